package interop

import (
	"context"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"basalt/tests/interop/harness"
)

// TestRollingRestart stops and starts one member after another, the leader last, while a client writes through whoever runs and
// another watches: no write fails for longer than it takes to go to another member, nothing is lost, and the watch misses nothing until its own member stops. The
// runbook docs/operations/rolling-restart.md.
func TestRollingRestart(t *testing.T) {
	members := harness.StartMembers(t, harness.UnderTest(t), 3)
	leader := leaderOf(t, members)
	order := append(members.Without(leader), leader)
	const prefix = "/registry/rolling/"
	watched := watchPrefix(t, leader, prefix)

	var down atomic.Pointer[harness.Server]
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	stop, done := make(chan struct{}), make(chan int)
	var written atomic.Int64
	clients := map[*harness.Server]pb.KVClient{}
	for _, member := range members {
		clients[member] = pb.NewKVClient(member.Conn(t))
	}
	go func() {
		count := 0
		defer func() { done <- count }()
		for n := 0; ctx.Err() == nil; n++ {
			select {
			case <-stop:
				return
			default:
			}
			through := members[n%len(members)]
			if through == down.Load() {
				continue
			}
			// Until it is taken: a put says what it says, however often it is said.
			put := &pb.PutRequest{Key: fmt.Appendf(nil, "%s%06d", prefix, count), Value: []byte("value")}
			attempt, end := context.WithTimeout(ctx, 10*time.Second)
			if _, err := clients[through].Put(attempt, put); err == nil {
				count++
				written.Store(int64(count))
			}
			end()
		}
	}()
	// However slow the machine is: something is written with each member down, and after it is back.
	more := func() {
		t.Helper()
		want := written.Load() + 20
		await(t, ctx, "20 more writes", func() bool { return written.Load() >= want })
	}
	more()
	for _, member := range order[:2] {
		down.Store(member)
		member.Stop()
		more()
		member.Restart()
		awaitPage(t, member, "/readyz")
		down.Store(nil)
		more()
	}
	// What the watch saw is behind the first restarts; it hangs on the leader, whose end is its own.
	down.Store(leader)
	leader.Stop()
	more()
	seen := 0
	for key := range watched {
		if want := fmt.Sprintf("%s%06d", prefix, seen); key != want {
			t.Fatalf("the watch saw %s, want %s", key, want)
		}
		seen++
	}
	leader.Restart()
	awaitPage(t, leader, "/readyz")
	down.Store(nil)
	more()
	close(stop)
	count := <-done
	// Seven times more was written, five of them before the watch's own member began to stop.
	if count < 100 || seen < 80 {
		t.Fatalf("%d writes, and a watch of %d: too few to say anything", count, seen)
	}
	for _, member := range members {
		if cut := member.LinesWith("calls did not end in time"); len(cut) != 0 {
			t.Errorf("a stop waited for what never ends: %s", cut[0])
		}
	}
	sameEverywhere(t, members)
	if found := len(everything(t, leader).Kvs); found < count {
		t.Errorf("%d of %d acknowledged keys are there", found, count)
	}
}

// awaitPage waits until a page says that all is well.
func awaitPage(t *testing.T, member *harness.Server, page string) {
	t.Helper()
	await(t, harness.Context(t, 60*time.Second), page, func() bool {
		response, _ := httpGet(t, newClient(nil, false), member.Endpoint()+page)
		return response.StatusCode == http.StatusOK
	})
}
