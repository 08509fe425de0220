package interop

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"basalt/tests/interop/harness"
)

// busyRounds end with SIGKILL, KILL9_ROUNDS or few of them, each only after checkpointsPerRound checkpoints, compactions
// behind them, and a segment of the log that was full.
var busyRounds = numberFromEnvironment("KILL9_ROUNDS", 2)

const (
	checkpointsPerRound = 2
	// compactionLag is how many revisions stay readable; whoever watches is nearer to the head than that.
	compactionLag = 400
)

// follower collects every event over the lives of the server.
type follower struct {
	mutex  sync.Mutex
	events []*mvccpb.Event
	failed error
}

func follow(t *testing.T, server *harness.Server) *follower {
	t.Helper()
	f, client := &follower{}, server.Client(t)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for response := range client.Watch(ctx, "\x00", clientv3.WithFromKey(), clientv3.WithRev(1)) {
			f.take(response)
		}
	}()
	t.Cleanup(func() {
		stop()
		<-done
	})
	return f
}

func (f *follower) take(response clientv3.WatchResponse) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if err := response.Err(); err != nil && f.failed == nil {
		f.failed = err
	}
	for _, event := range response.Events {
		f.events = append(f.events, (*mvccpb.Event)(event))
	}
}

func (f *follower) seen() (events []*mvccpb.Event, failed error) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	return slices.Clone(f.events), f.failed
}

// await waits until the follower has seen a revision.
func (f *follower) await(t *testing.T, revision int64) []*mvccpb.Event {
	t.Helper()
	ctx := harness.Context(t, time.Minute)
	for tick := time.NewTicker(10 * time.Millisecond); ; {
		events, failed := f.seen()
		if failed != nil {
			t.Fatalf("the watch has ended at %d: %v", nextRevision(events)-1, failed)
		}
		if nextRevision(events) > revision {
			return events
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("the watch stands at %d, want %d", nextRevision(events)-1, revision)
		}
	}
}

// TestKill9AmidCheckpoints kills the server with SIGKILL amid writes that have gone on for several checkpoints, with
// compactions between them and more than one segment of the log. One watch goes on through all of it.
func TestKill9AmidCheckpoints(t *testing.T) {
	t.Parallel()
	server := harness.StartUnderTest(t)
	log, watch := newJournal(), follow(t, server)
	compacted := int64(0)
	for round := range busyRounds {
		ctx, client := harness.Context(t, 2*time.Minute), server.Client(t)
		segments, acks := newestSegment(t, server), log.acks()
		writeUntil(t, server, log, round, func() bool {
			events, failed := watch.seen()
			if failed != nil {
				t.Errorf("the watch has ended: %v", failed)
				return true
			}
			if target := nextRevision(events) - compactionLag; target > compacted {
				if _, err := client.Compact(ctx, target); err != nil {
					t.Errorf("compaction at %d: %v", target, err)
					return true
				}
				compacted = target
			}
			return log.acks()-acks >= 4*compactionLag && checkpoints(t, server) >= checkpointsPerRound &&
				newestSegment(t, server) != segments
		})
		t.Logf("round %d: %d checkpoints, compacted at %d, log at %s", round, checkpointsPerRound, compacted, newestSegment(t, server))
		server.Restart()

		head := everything(t, server).Header.Revision
		history := watch.await(t, head)
		log.check(t, history, math.MaxInt64)
		checkState(t, server, history)
		if _, err := server.Client(t).Get(harness.Context(t, 20*time.Second), "x", clientv3.WithRev(compacted-1)); err == nil ||
			!strings.Contains(err.Error(), "has been compacted") {
			t.Errorf("revision %d was compacted; a read there says %v", compacted-1, err)
		}
		suffix := watchToHead(t, server, compacted)
		first := slices.IndexFunc(history, func(event *mvccpb.Event) bool { return event.Kv.ModRevision >= compacted })
		expectSameEvents(t, "what can still be read and what the watch has seen", suffix, history[first:])
	}
}

// checkpoints of this life of the server.
func checkpoints(t *testing.T, server *harness.Server) int {
	t.Helper()
	if server.Kind != harness.Basalt {
		return checkpointsPerRound
	}
	_, text := httpGet(t, newClient(nil, false), server.Endpoint()+"/metrics")
	samples, _ := parseMetrics(t, text)
	count, found := samples["basalt_checkpoint_duration_seconds_count"]
	if !found {
		t.Fatal("/metrics does not count checkpoints")
	}
	return int(count)
}

// newestSegment of the log that has begun; another one later means that it was full.
func newestSegment(t *testing.T, server *harness.Server) string {
	t.Helper()
	if server.Kind != harness.Basalt {
		return fmt.Sprint(time.Now().UnixNano())
	}
	segments := segmentsOf(t, server.DataDir)
	return segments[len(segments)-1]
}
