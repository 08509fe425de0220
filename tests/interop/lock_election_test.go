package interop

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	epb "go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	lpb "go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"google.golang.org/grpc/codes"

	"basalt/tests/interop/harness"
)

func grantID(t *testing.T, ctx context.Context, s services, ttl int64) int64 {
	t.Helper()
	return must(s.lease.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: ttl}))(t).ID
}

// queueOf gives the keys of a name in the order of their creation.
func queueOf(t *testing.T, ctx context.Context, s services, name string) (keys []string) {
	t.Helper()
	all := must(s.kv.Range(ctx, &pb.RangeRequest{
		Key: []byte(name + "/"), RangeEnd: []byte(name + "0"), SortTarget: pb.RangeRequest_CREATE, SortOrder: pb.RangeRequest_ASCEND,
	}))(t)
	for _, kv := range all.Kvs {
		keys = append(keys, string(kv.Key))
	}
	return keys
}

// awaitQueue waits until as many stand in a queue.
func awaitQueue(t *testing.T, ctx context.Context, s services, name string, length int) []string {
	t.Helper()
	for {
		if keys := queueOf(t, ctx, s, name); len(keys) == length {
			return keys
		}
		if err := ctx.Err(); err != nil {
			t.Fatalf("never %d in the queue of %s: %v", length, name, queueOf(t, context.Background(), s, name))
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// TestLockIsHeldByOneAndGoesOnInOrder: keys as etcd makes them, each waiter in its turn.
func TestLockIsHeldByOneAndGoesOnInOrder(t *testing.T) {
	server := harness.StartUnderTest(t)
	conn := server.Conn(t)
	s, locks, ctx := servicesOf(conn), lpb.NewLockClient(conn), harness.Context(t, time.Minute)
	first := grantID(t, ctx, s, 600)
	held := must(locks.Lock(ctx, &lpb.LockRequest{Name: []byte("l"), Lease: first}))(t)
	if want := fmt.Sprintf("l/%x", first); string(held.Key) != want || held.Header.Revision != 2 {
		t.Errorf("key %q at %d, want %q", held.Key, held.Header.Revision, want)
	}
	again := must(locks.Lock(ctx, &lpb.LockRequest{Name: []byte("l"), Lease: first}))(t)
	if string(again.Key) != string(held.Key) {
		t.Errorf("the same session gets %q", again.Key)
	}
	other := must(locks.Lock(ctx, &lpb.LockRequest{Name: []byte("other")}))(t)
	if len(other.Key) < len("other/")+1 {
		t.Errorf("a lease of the server's own: %q", other.Key)
	}
	var order []int
	var mutex sync.Mutex
	var done sync.WaitGroup
	for n := range 5 {
		lease := grantID(t, ctx, s, 600)
		done.Go(func() {
			mine, err := locks.Lock(ctx, &lpb.LockRequest{Name: []byte("l"), Lease: lease})
			if err != nil {
				t.Error(err)
				return
			}
			mutex.Lock()
			order = append(order, n)
			mutex.Unlock()
			if _, err := locks.Unlock(ctx, &lpb.UnlockRequest{Key: mine.Key}); err != nil {
				t.Error(err)
			}
		})
		awaitQueue(t, ctx, s, "l", n+2)
	}
	must(locks.Unlock(ctx, &lpb.UnlockRequest{Key: held.Key}))(t)
	done.Wait()
	if !slices.Equal(order, []int{0, 1, 2, 3, 4}) {
		t.Errorf("served in the order %v", order)
	}
}

// TestWhoGivesUpLeavesTheQueue: a waiter whose call ends keeps nobody waiting; one whose lease ends is told.
func TestWhoGivesUpLeavesTheQueue(t *testing.T) {
	server := harness.StartUnderTest(t)
	conn := server.Conn(t)
	s, locks, ctx := servicesOf(conn), lpb.NewLockClient(conn), harness.Context(t, time.Minute)
	held := must(locks.Lock(ctx, &lpb.LockRequest{Name: []byte("l"), Lease: grantID(t, ctx, s, 600)}))(t)
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	_, err := locks.Lock(short, &lpb.LockRequest{Name: []byte("l"), Lease: grantID(t, ctx, s, 600)})
	expectStatus(t, "who gave up", err, codes.DeadlineExceeded, "context deadline exceeded")
	awaitQueue(t, ctx, s, "l", 1)

	ending := grantID(t, ctx, s, 600)
	told := make(chan error, 1)
	go func() {
		_, err := locks.Lock(ctx, &lpb.LockRequest{Name: []byte("l"), Lease: ending})
		told <- err
	}()
	awaitQueue(t, ctx, s, "l", 2)
	must(s.lease.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: ending}))(t)
	awaitQueue(t, ctx, s, "l", 1)
	must(locks.Unlock(ctx, &lpb.UnlockRequest{Key: held.Key}))(t)
	expectStatus(t, "whose lease ended", <-told, codes.Unknown, "mutex: session is expired")
}

// TestLockErrors: of services over the store all errors have the code Unknown in etcd.
func TestLockErrors(t *testing.T) {
	server := harness.StartUnderTest(t)
	conn := server.Conn(t)
	locks, elections, ctx := lpb.NewLockClient(conn), epb.NewElectionClient(conn), harness.Context(t, time.Minute)
	expect := func(name, text string) func(any, error) {
		return func(_ any, err error) {
			t.Helper()
			expectStatus(t, name, err, codes.Unknown, text)
		}
	}
	nobody := &epb.LeaderKey{Name: []byte("e"), Key: []byte("e/1"), Rev: 5, Lease: 3}
	expect("lock by an unknown lease", "etcdserver: requested lease not found")(locks.Lock(ctx, &lpb.LockRequest{Name: []byte("l"), Lease: 9}))
	expect("unlock nothing", "etcdserver: key is not provided")(locks.Unlock(ctx, &lpb.UnlockRequest{}))
	expect("nobody leads", "election: no leader")(elections.Leader(ctx, &epb.LeaderRequest{Name: []byte("e")}))
	expect("proclaim as nobody", `"leader" field must be provided`)(elections.Proclaim(ctx, &epb.ProclaimRequest{}))
	expect("resign as nobody", `"leader" field must be provided`)(elections.Resign(ctx, &epb.ResignRequest{}))
	expect("proclaim without the lead", "election: not leader")(elections.Proclaim(ctx, &epb.ProclaimRequest{Leader: nobody}))
	expect("campaign by an unknown lease", "etcdserver: requested lease not found")(elections.Campaign(ctx, &epb.CampaignRequest{Lease: 9}))
	if _, err := locks.Unlock(ctx, &lpb.UnlockRequest{Key: []byte("none")}); err != nil {
		t.Errorf("unlock what is not there: %v", err)
	}
	if _, err := elections.Resign(ctx, &epb.ResignRequest{Leader: nobody}); err != nil {
		t.Errorf("resign without the lead: %v", err)
	}
}

// TestElection: campaign, proclaim, observe, resign, and the next one leads.
func TestElection(t *testing.T) {
	server := harness.StartUnderTest(t)
	conn := server.Conn(t)
	s, elections, ctx := servicesOf(conn), epb.NewElectionClient(conn), harness.Context(t, time.Minute)
	name := []byte("e")
	observer := must(elections.Observe(ctx, &epb.LeaderRequest{Name: name}))(t)
	observed := func(value string) {
		t.Helper()
		if seen := must(observer.Recv())(t); string(seen.Kv.Value) != value || seen.Header.Revision < seen.Kv.ModRevision {
			t.Errorf("observed %v, want %q", seen, value)
		}
	}
	time.Sleep(100 * time.Millisecond) // so that it mostly waits for the first
	lease := grantID(t, ctx, s, 600)
	first := must(elections.Campaign(ctx, &epb.CampaignRequest{Name: name, Lease: lease, Value: []byte("a")}))(t)
	if want := fmt.Sprintf("e/%x", lease); string(first.Leader.Key) != want || first.Leader.Rev != 2 || first.Leader.Lease != lease {
		t.Errorf("%v", first.Leader)
	}
	observed("a")
	again := must(elections.Campaign(ctx, &epb.CampaignRequest{Name: name, Lease: lease, Value: []byte("b")}))(t)
	if again.Leader.Rev != 2 {
		t.Errorf("again: %v", again.Leader)
	}
	observed("b")
	must(elections.Proclaim(ctx, &epb.ProclaimRequest{Leader: first.Leader, Value: []byte("c")}))(t)
	observed("c")
	leader := must(elections.Leader(ctx, &epb.LeaderRequest{Name: name}))(t)
	if string(leader.Kv.Value) != "c" || leader.Kv.Version != 3 || leader.Header.Revision != 4 {
		t.Errorf("%v", leader)
	}
	second := make(chan *epb.CampaignResponse, 1)
	go func() {
		won, err := elections.Campaign(ctx, &epb.CampaignRequest{Name: name, Value: []byte("d")})
		if err != nil {
			t.Error(err)
		}
		second <- won
	}()
	awaitQueue(t, ctx, s, "e", 2)
	must(elections.Resign(ctx, &epb.ResignRequest{Leader: first.Leader}))(t)
	observed("d")
	won := <-second
	_, err := elections.Proclaim(ctx, &epb.ProclaimRequest{Leader: first.Leader, Value: []byte("x")})
	expectStatus(t, "who resigned", err, codes.Unknown, "election: not leader")
	// The lead ends with its lease.
	must(s.lease.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: won.Leader.Lease}))(t)
	_, err = elections.Leader(ctx, &epb.LeaderRequest{Name: name})
	expectStatus(t, "nobody is left", err, codes.Unknown, "election: no leader")
	must(elections.Campaign(ctx, &epb.CampaignRequest{Name: name, Value: []byte("e")}))(t)
	observed("e")
}

// TestLockAsSomebody: a lock is a key, and asks for what that asks for (etcd-contract 49).
func TestLockAsSomebody(t *testing.T) {
	server := harness.StartUnderTest(t)
	guard(t, server)
	conn := server.Conn(t)
	s, locks, elections, ctx := servicesOf(conn), lpb.NewLockClient(conn), epb.NewElectionClient(conn), harness.Context(t, time.Minute)
	ann := login(t, ctx, s, "ann", "word")
	held := must(locks.Lock(ann, &lpb.LockRequest{Name: []byte("a")}))(t)
	must(locks.Unlock(ann, &lpb.UnlockRequest{Key: held.Key}))(t)
	denied := "etcdserver: permission denied"
	_, err := locks.Lock(ann, &lpb.LockRequest{Name: []byte("b")})
	expectStatus(t, "another name", err, codes.Unknown, denied)
	_, err = elections.Leader(ann, &epb.LeaderRequest{Name: []byte("b")})
	expectStatus(t, "another election", err, codes.Unknown, denied)
	_, err = locks.Lock(ctx, &lpb.LockRequest{Name: []byte("a")})
	expectStatus(t, "as nobody", err, codes.Unknown, "etcdserver: user name is empty")
}

// TestWhoHoldsALockAndAsksAgainLosesNothing: however early such a call ends, and whichever member is
// asked, the lock is held and the next one waits.
func TestWhoHoldsALockAndAsksAgainLosesNothing(t *testing.T) {
	members := harness.StartMembers(t, harness.UnderTest(t), 3)
	conn := members[0].Conn(t)
	s, locks, elections, ctx := servicesOf(conn), lpb.NewLockClient(conn), epb.NewElectionClient(conn), harness.Context(t, time.Minute)
	lease := grantID(t, ctx, s, 600)
	held := must(locks.Lock(ctx, &lpb.LockRequest{Name: []byte("l"), Lease: lease}))(t)
	led := must(elections.Campaign(ctx, &epb.CampaignRequest{Name: []byte("e"), Lease: lease}))(t)
	next := make(chan error, 1)
	go func() {
		_, err := locks.Lock(ctx, &lpb.LockRequest{Name: []byte("l"), Lease: grantID(t, ctx, s, 600)})
		next <- err
	}()
	queue := awaitQueue(t, ctx, s, "l", 2)
	for _, member := range members {
		again := lpb.NewLockClient(member.Conn(t))
		for n := range 200 {
			short, cancel := context.WithTimeout(ctx, time.Duration(n+1)*50*time.Microsecond)
			// It may come to its end or not.
			_, _ = again.Lock(short, &lpb.LockRequest{Name: []byte("l"), Lease: lease})
			cancel()
		}
	}
	if now := queueOf(t, ctx, s, "l"); !slices.Equal(now, queue) || now[0] != string(held.Key) {
		t.Errorf("after calls that were given up %q wait for %q, before %q", now, held.Key, queue)
	}
	again := must(elections.Campaign(ctx, &epb.CampaignRequest{Name: []byte("e"), Lease: lease}))(t)
	if again.Leader.Rev != led.Leader.Rev {
		t.Errorf("who leads and campaigns again leads since %d, not %d", again.Leader.Rev, led.Leader.Rev)
	}
	must(locks.Unlock(ctx, &lpb.UnlockRequest{Key: held.Key}))(t)
	if err := <-next; err != nil {
		t.Errorf("the next one: %v", err)
	}
}

// TestQueuesThatOnesUserMayNotRead: a lock is refused and nothing written, nor is one that is held taken away; a campaign is in
// the queue before it is refused a look at the others, and finds its place when it may.
func TestQueuesThatOnesUserMayNotRead(t *testing.T) {
	server := harness.StartUnderTest(t)
	for _, args := range [][]string{
		{"role", "add", "b"}, {"role", "grant-permission", "b", "readwrite", "l/5"},
		{"user", "add", "bob:word"}, {"user", "grant-role", "bob", "b"},
	} {
		server.Etcdctl(args...)
	}
	guard(t, server)
	conn := server.Conn(t)
	s, locks, elections, ctx := servicesOf(conn), lpb.NewLockClient(conn), epb.NewElectionClient(conn), harness.Context(t, time.Minute)
	bob, root := login(t, ctx, s, "bob", "word"), login(t, ctx, s, "root", "secret")
	must(s.lease.LeaseGrant(root, &pb.LeaseGrantRequest{TTL: 600, ID: 5}))(t)
	denied := "etcdserver: permission denied"
	expectQueue := func(when string, keys ...string) {
		t.Helper()
		// What was ordered before it is applied when it is answered.
		must(s.kv.Put(root, &pb.PutRequest{Key: []byte("between")}))(t)
		if now := queueOf(t, root, s, "l"); !slices.Equal(now, keys) {
			t.Errorf("%s: %q", when, now)
		}
	}
	before := must(s.kv.Range(root, &pb.RangeRequest{Key: []byte("l")}))(t).Header.Revision
	_, err := locks.Lock(bob, &lpb.LockRequest{Name: []byte("l"), Lease: 5})
	expectStatus(t, "a lock", err, codes.Unknown, denied)
	if after := must(s.kv.Range(root, &pb.RangeRequest{Key: []byte("l")}))(t).Header.Revision; after != before {
		t.Errorf("a lock that was refused took the revision from %d to %d", before, after)
	}
	held := must(locks.Lock(root, &lpb.LockRequest{Name: []byte("l"), Lease: 5}))(t)
	_, err = locks.Lock(bob, &lpb.LockRequest{Name: []byte("l"), Lease: 5})
	expectStatus(t, "a lock that is held", err, codes.Unknown, denied)
	expectQueue("after a lock that is held was refused", string(held.Key))
	must(locks.Unlock(root, &lpb.UnlockRequest{Key: held.Key}))(t)

	ask := &epb.CampaignRequest{Name: []byte("l"), Lease: 5, Value: []byte("bob")}
	_, err = elections.Campaign(bob, ask)
	expectStatus(t, "a campaign", err, codes.Unknown, denied)
	expectQueue("after a campaign that was refused", "l/5")
	entered := must(elections.Leader(root, &epb.LeaderRequest{Name: []byte("l")}))(t)
	server.Etcdctl("--user", "root:secret", "role", "grant-permission", "b", "readwrite", "--prefix", "l/")
	won := must(elections.Campaign(login(t, ctx, s, "bob", "word"), ask))(t)
	if won.Leader.Rev != entered.Kv.CreateRevision {
		t.Errorf("leads since %d, entered at %d", won.Leader.Rev, entered.Kv.CreateRevision)
	}
}

// TestWhoWaitsIsKnownByItsTokenToTheEnd: a token that ended while its call waited for a lock gets it no more.
func TestWhoWaitsIsKnownByItsTokenToTheEnd(t *testing.T) {
	server := harness.StartUnderTest(t)
	guard(t, server)
	conn := server.Conn(t)
	s, locks, ctx := servicesOf(conn), lpb.NewLockClient(conn), harness.Context(t, time.Minute)
	ann, root := login(t, ctx, s, "ann", "word"), login(t, ctx, s, "root", "secret")
	held := must(locks.Lock(root, &lpb.LockRequest{Name: []byte("a"), Lease: grantID(t, root, s, 60)}))(t)
	waiting := make(chan error, 1)
	lease := grantID(t, ann, s, 60)
	go func() {
		_, err := locks.Lock(ann, &lpb.LockRequest{Name: []byte("a"), Lease: lease})
		waiting <- err
	}()
	awaitQueue(t, root, s, "a", 2)
	must(s.auth.UserChangePassword(root, &pb.AuthUserChangePasswordRequest{Name: "ann", Password: "other"}))(t)
	must(locks.Unlock(root, &lpb.UnlockRequest{Key: held.Key}))(t)
	select {
	case err := <-waiting:
		expectStatus(t, "a lock by a token that ended", err, codes.Unknown, invalidToken)
	case <-ctx.Done():
		t.Fatal("the lock waits for ever")
	}
}

// TestEtcdctlLocksAndElects: etcdctl's own, which are built of transactions, leases and watches.
func TestEtcdctlLocksAndElects(t *testing.T) {
	server := harness.StartUnderTest(t)
	locked := server.EtcdctlSession("lock", "l")
	key := locked.Next()
	if keys := queueOf(t, harness.Context(t, time.Minute), servicesOf(server.Conn(t)), "l"); len(keys) != 1 || keys[0] != key {
		t.Errorf("it says %q, and there are %q", key, keys)
	}
	elected := server.EtcdctlSession("elect", "e", "me")
	elected.Next()
	elected.Expect("me")
	listening := server.EtcdctlSession("elect", "--listen", "e")
	listening.Next()
	listening.Expect("me")
}
