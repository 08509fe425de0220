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
			runner := newRunner(t, seed)
			runner.Run(requests)
		})
	}
}

func newRunner(t *testing.T, seed uint64) *Runner {
	t.Helper()
	left := harness.Start(t, harness.Options{Kind: harness.Etcd})
	right := harness.Start(t, harness.Options{})
	return &Runner{
		t: t, seed: seed, generator: NewGenerator(seed), seen: map[string]int{},
		left: newSide(t, "genuine etcd", left), right: newSide(t, string(right.Kind)+" under test", right),
	}
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
