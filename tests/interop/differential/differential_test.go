package differential

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

const (
	// requestsDefault of a round; with seedsDefault and three maps of shards a run compares more than 10,000.
	requestsDefault = 1_200
	// requestsOfRound is where a long run goes on with fresh servers: history costs etcd time.
	requestsOfRound = 8_000
	// roundsAtOnce keeps two cores busy.
	roundsAtOnce = 3
)

var (
	seedsDefault  = []uint64{1, 2, 3}
	shardsDefault = []int{1, 3, 8}
)

// TestSameAnswers compares the server under test with genuine etcd; with INTEROP_SERVER=etcd it compares two genuine
// ones, which proves the list in allowed.go and the runner itself. DIFF_REQUESTS asks for a long run (see
// tests/differential), from the seed DIFF_SEED on, with the numbers of shards in DIFF_SHARDS.
func TestSameAnswers(t *testing.T) {
	var compared, rounds atomic.Int64
	begun := time.Now()
	todo := roundsToDo(t)
	t.Run("rounds", func(t *testing.T) {
		slots := make(chan struct{}, roundsAtOnce)
		for _, round := range todo {
			t.Run(fmt.Sprintf("shards%d-seed%d", round.shards, round.seed), func(t *testing.T) {
				t.Parallel()
				slots <- struct{}{}
				defer func() { <-slots }()
				runner := round.run(t)
				total := compared.Add(int64(runner.requests))
				if number := rounds.Add(1); len(todo) > len(seedsDefault)*len(shardsDefault) {
					fmt.Fprintf(os.Stderr, "%s: %d requests equal in %d of %d rounds, last of seed %d with %d shards; %.0f a second\n",
						time.Now().UTC().Format(time.DateTime), total, number, len(todo), round.seed, round.shards,
						float64(total)/time.Since(begun).Seconds())
				} else {
					runner.LogSeen(t)
				}
			})
		}
	})
	t.Logf("%d requests compared in %d rounds", compared.Load(), rounds.Load())
}

// roundsToDo are those of the fixed seeds, or as many as DIFF_REQUESTS needs.
func roundsToDo(t *testing.T) []round {
	t.Helper()
	shards := shardsDefault
	if text := os.Getenv("DIFF_SHARDS"); text != "" {
		shards = nil
		for count := range strings.SplitSeq(text, ",") {
			shards = append(shards, int(parse(t, "DIFF_SHARDS", count)))
			if shardMaps[shards[len(shards)-1]] == "" {
				t.Fatalf("DIFF_SHARDS: there is no map of %s shards", count)
			}
		}
	}
	var rounds []round
	if os.Getenv("DIFF_REQUESTS") == "" {
		for _, seed := range seedsDefault {
			for _, count := range shards {
				rounds = append(rounds, round{count, seed, requestsDefault})
			}
		}
		return rounds
	}
	requests, seed := int(parse(t, "DIFF_REQUESTS", os.Getenv("DIFF_REQUESTS"))), uint64(1)
	if text := os.Getenv("DIFF_SEED"); text != "" {
		seed = parse(t, "DIFF_SEED", text)
	}
	for ; requests > 0; requests -= requestsOfRound {
		rounds = append(rounds, round{shards[len(rounds)%len(shards)], seed, min(requests, requestsOfRound)})
		seed++
	}
	return rounds
}

func parse(t *testing.T, name, text string) uint64 {
	t.Helper()
	value, err := strconv.ParseUint(text, 10, 63)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return value
}

// TestKeptSequences replays what once failed.
func TestKeptSequences(t *testing.T) {
	paths, err := filepath.Glob(filepath.Join("testdata", "*.steps"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no sequences: %v", err)
	}
	for _, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) {
			t.Parallel()
			shards, steps, err := readSteps(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := replay(t, shards, steps); err != nil {
				t.Error(err)
			}
		})
	}
}
