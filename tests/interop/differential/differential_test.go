package differential

import (
	"fmt"
	"os"
	"strconv"
	"testing"

	"basalt/tests/interop/harness"
)

// requestsDefault per seed; DIFF_REQUESTS overrides it, and DIFF_SEED the seeds.
const requestsDefault = 1_500

var seedsDefault = []uint64{1, 2, 3}

// TestSameAnswers compares the server under test with genuine etcd; with INTEROP_SERVER=etcd it compares two genuine
// ones, which proves the rules of normalise.go and the runner itself.
func TestSameAnswers(t *testing.T) {
	seeds, requests := seedsDefault, requestsDefault
	if seed, ok := number(t, "DIFF_SEED"); ok {
		seeds = []uint64{seed}
	}
	if count, ok := number(t, "DIFF_REQUESTS"); ok {
		requests = int(count)
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprintf("seed%d", seed), func(t *testing.T) {
			servers := startPair(t)
			runner := newRunner(t, seed, servers)
			runner.Run(requests)
			runner.LogSeen()
		})
	}
}

// TestSameAnswersAfterRestart stops both servers in between: what they have kept must be the same, too.
func TestSameAnswersAfterRestart(t *testing.T) {
	const seed, requests = 4, 500
	servers := startPair(t)
	runner := newRunner(t, seed, servers)
	runner.Run(requests)
	for _, server := range servers {
		server.Stop()
		server.Restart()
	}
	runner.Reconnect(newSides(t, servers))
	runner.Run(requests)
}

// startPair starts genuine etcd and the server under test.
func startPair(t *testing.T) [2]*harness.Server {
	t.Helper()
	return [2]*harness.Server{harness.Start(t, harness.Options{Kind: harness.Etcd}), harness.Start(t, harness.Options{})}
}

func newSides(t *testing.T, servers [2]*harness.Server) (left, right *side) {
	t.Helper()
	return newSide(t, "genuine etcd", servers[0]), newSide(t, string(servers[1].Kind)+" under test", servers[1])
}

func newRunner(t *testing.T, seed uint64, servers [2]*harness.Server) *Runner {
	t.Helper()
	runner := &Runner{t: t, seed: seed, generator: NewGenerator(seed), seen: map[string]int{}, differencesMax: 1}
	if most, ok := number(t, "DIFF_DIFFERENCES"); ok {
		runner.differencesMax = int(most)
	}
	runner.left, runner.right = newSides(t, servers)
	return runner
}

func number(t *testing.T, name string) (uint64, bool) {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return 0, false
	}
	value, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return value, true
}
