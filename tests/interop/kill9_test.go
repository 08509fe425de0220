package interop

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"basalt/tests/interop/harness"
)

// killRounds is how often the server is killed, KILL9_ROUNDS or few times, each time after up to killAfterAcks more
// acknowledged writes.
var killRounds = numberFromEnvironment("KILL9_ROUNDS", 5)

func numberFromEnvironment(name string, otherwise int) int {
	text, found := os.LookupEnv(name)
	if !found {
		return otherwise
	}
	number, err := strconv.Atoi(text)
	if err != nil {
		panic(fmt.Sprintf("%s: %v", name, err))
	}
	return number
}

const (
	killAfterAcks = 300
	// writers run at the same time, each on keysPerWriter keys of its own.
	writers       = 6
	keysPerWriter = 25
)

// write is one request that a writer has sent.
type write struct {
	key, value string
	// deleted says that it deletes the key; value is then empty.
	deleted bool
}

// journal holds what was sent and what was acknowledged.
//
// Invariants of any right server: each acknowledged write stands in the history at its revision; each event of the
// history was sent, and at most once; the history only grows.
type journal struct {
	mutex        sync.Mutex
	sent         map[write]int
	acknowledged map[int64]write
	newest       int64
	leases       []int64
}

func newJournal() *journal { return &journal{sent: map[write]int{}, acknowledged: map[int64]write{}} }

func (j *journal) send(w write) {
	j.mutex.Lock()
	defer j.mutex.Unlock()
	j.sent[w]++
}

func (j *journal) acknowledge(revision int64, w write) {
	j.mutex.Lock()
	defer j.mutex.Unlock()
	j.acknowledged[revision] = w
	j.newest = max(j.newest, revision)
}

// acks counts acknowledged writes.
func (j *journal) acks() int {
	j.mutex.Lock()
	defer j.mutex.Unlock()
	return len(j.acknowledged)
}

// check compares a history up to a revision, in order and from the first write on, with the journal.
func (j *journal) check(t *testing.T, events []*mvccpb.Event, upTo int64) {
	t.Helper()
	j.mutex.Lock()
	defer j.mutex.Unlock()
	times, last := map[write]int{}, int64(1)
	found := map[int64]write{}
	for _, event := range events {
		w := write{string(event.Kv.Key), string(event.Kv.Value), event.Type == mvccpb.Event_DELETE}
		if times[w]++; times[w] > j.sent[w] {
			t.Fatalf("revision %d holds %+v for the %dth time; it was sent %d times",
				event.Kv.ModRevision, w, times[w], j.sent[w])
		}
		if event.Kv.ModRevision != last+1 {
			t.Fatalf("revision %d follows %d", event.Kv.ModRevision, last)
		}
		last = event.Kv.ModRevision
		found[last] = w
	}
	for revision, w := range j.acknowledged {
		if revision <= upTo && found[revision] != w {
			t.Fatalf("acknowledged %+v at revision %d, the history has %+v there (it ends at %d)",
				w, revision, found[revision], last)
		}
	}
}

// TestKill9LosesNothing kills the server with SIGKILL in the middle of writes, again and again.
func TestKill9LosesNothing(t *testing.T) {
	server := harness.StartUnderTest(t)
	log := newJournal()
	var resumed, before []*mvccpb.Event
	for round := range killRounds {
		keepLease(t, server, log)
		writeUntilKilled(t, server, log, round)
		server.Restart()
		resumed = append(resumed, watchToHead(t, server, nextRevision(resumed))...)
		checkLeases(t, server, log)

		history := watchToHead(t, server, 1)
		log.check(t, history, math.MaxInt64)
		expectSameEvents(t, "the history before the kill and now", before, history[:min(len(before), len(history))])
		expectSameEvents(t, "the resumed watch and the history", resumed, history)
		checkState(t, server, history)
		before = history
		t.Logf("round %d: %d acknowledged, %d in the history", round, len(log.acknowledged), len(history))
	}
	server.Stop()
	server.Restart()
	expectSameEvents(t, "the history before a clean stop and after it", before, watchToHead(t, server, 1))
}

func nextRevision(events []*mvccpb.Event) int64 {
	if len(events) == 0 {
		return 1
	}
	return events[len(events)-1].Kv.ModRevision + 1
}

// writeUntilKilled kills the server after some acknowledged writes, a number of the round's own.
func writeUntilKilled(t *testing.T, server *harness.Server, log *journal, round int) {
	t.Helper()
	start, wanted := log.acks(), 1+rand.New(rand.NewPCG(uint64(round), 9)).IntN(killAfterAcks)
	writeUntil(t, server, log, round, func() bool { return log.acks()-start >= wanted })
}

// writeUntil writes until `enough` says so, kills the server, and returns when every writer has seen that.
func writeUntil(t *testing.T, server *harness.Server, log *journal, round int, enough func() bool) {
	t.Helper()
	ctx := harness.Context(t, 2*time.Minute)
	var group sync.WaitGroup
	for n := range writers {
		kv := pb.NewKVClient(server.Conn(t))
		prefix := []string{"/registry/events/w", "/registry/leases/w", "w"}[n%3]
		group.Go(func() {
			random := rand.New(rand.NewPCG(uint64(round), uint64(n)))
			for serial := 0; ; serial++ {
				w := write{key: fmt.Sprintf("%s%d/%d", prefix, n, random.IntN(keysPerWriter)), deleted: random.IntN(5) == 0}
				if !w.deleted {
					w.value = fmt.Sprintf("round %d writer %d number %d", round, n, serial)
				}
				if !send(ctx, kv, log, w) {
					return
				}
			}
		})
	}
	for tick := time.NewTicker(5 * time.Millisecond); !enough(); {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Errorf("round %d: only %d writes were acknowledged", round, log.acks())
			enough = func() bool { return true }
		}
	}
	server.Kill()
	group.Wait()
}

// send says whether the server has answered.
func send(ctx context.Context, kv pb.KVClient, log *journal, w write) bool {
	log.send(w)
	if w.deleted {
		response, err := kv.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: []byte(w.key)})
		if err == nil && response.Deleted == 1 {
			log.acknowledge(response.Header.Revision, w)
		}
		return err == nil
	}
	response, err := kv.Put(ctx, &pb.PutRequest{Key: []byte(w.key), Value: []byte(w.value)})
	if err == nil {
		log.acknowledge(response.Header.Revision, w)
	}
	return err == nil
}

// watchToHead watches everything from `start` until the current revision has arrived. Nobody writes meanwhile.
func watchToHead(t *testing.T, server *harness.Server, start int64) []*mvccpb.Event {
	t.Helper()
	client := server.Client(t)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	current, err := client.Get(ctx, "absent")
	if err != nil {
		t.Fatal(err)
	}
	head := current.Header.Revision
	var events []*mvccpb.Event
	watch := client.Watch(ctx, "\x00", clientv3.WithFromKey(), clientv3.WithRev(start))
	for next := start; next <= head; {
		response, ok := <-watch
		if !ok || response.Err() != nil {
			t.Fatalf("watch from %d ended at %d, before %d: %v", start, next, head, response.Err())
		}
		for _, event := range response.Events {
			events = append(events, (*mvccpb.Event)(event))
			next = event.Kv.ModRevision + 1
		}
	}
	return events
}

func expectSameEvents(t *testing.T, what string, left, right []*mvccpb.Event) {
	t.Helper()
	if len(left) != len(right) {
		t.Fatalf("%s: %d and %d events", what, len(left), len(right))
	}
	for n := range left {
		if left[n].Type != right[n].Type || left[n].Kv.String() != right[n].Kv.String() {
			t.Fatalf("%s: event %d is %v and %v", what, n, left[n], right[n])
		}
	}
}

// checkState compares what a range answers with what the events add up to.
func checkState(t *testing.T, server *harness.Server, history []*mvccpb.Event) {
	t.Helper()
	want := map[string]string{}
	for _, event := range history {
		if event.Type == mvccpb.Event_DELETE {
			delete(want, string(event.Kv.Key))
		} else {
			want[string(event.Kv.Key)] = event.Kv.String()
		}
	}
	got := everything(t, server)
	if len(got.Kvs) != len(want) || int(got.Count) != len(want) {
		t.Fatalf("%d keys, count %d, want %d", len(got.Kvs), got.Count, len(want))
	}
	for _, kv := range got.Kvs {
		if want[string(kv.Key)] != kv.String() {
			t.Fatalf("key %q is %v, want %s", kv.Key, kv, want[string(kv.Key)])
		}
	}
	if last := nextRevision(history) - 1; got.Header.Revision != last {
		t.Fatalf("revision %d, the history ends at %d", got.Header.Revision, last)
	}
}

func keepLease(t *testing.T, server *harness.Server, log *journal) {
	t.Helper()
	granted, err := server.Client(t).Grant(harness.Context(t, 20*time.Second), 10_000)
	if err != nil {
		t.Fatal(err)
	}
	log.leases = append(log.leases, int64(granted.ID))
}

func checkLeases(t *testing.T, server *harness.Server, log *journal) {
	t.Helper()
	client, ctx := server.Client(t), harness.Context(t, 20*time.Second)
	for _, id := range log.leases {
		left, err := client.TimeToLive(ctx, clientv3.LeaseID(id))
		if err != nil || left.GrantedTTL != 10_000 || left.TTL <= 0 {
			t.Fatalf("lease %x after the kill: %+v, %v", id, left, err)
		}
	}
}
