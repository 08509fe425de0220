package interop

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/lease/leasepb"
	"google.golang.org/protobuf/proto"

	"basalt/tests/interop/harness"
)

// pointsAmongMembers are those that a member alone does not come by; TestPanicAmongMembers sets each off.
var pointsAmongMembers = []string{
	"raftBeforeLeaderSend", "raftBeforeFollowerSend", "raftDropHeartbeat", "beforeServeHTTPLeaseRenew",
	"beforeLookupWhenForwardLeaseTimeToLive", "raftBeforeApplySnap", "applyBeforeOpenSnapshot", "applyAfterOpenSnapshot",
	"raftAfterApplySnap",
}

// pointedMembers is a cluster whose members have failpoints, and what it acknowledged.
type pointedMembers struct {
	t            *testing.T
	members      harness.Members
	addresses    map[*harness.Server]string
	acknowledged int
}

func startPointedMembers(t *testing.T) *pointedMembers {
	t.Helper()
	next := harness.NextVersion(t)
	cluster := &pointedMembers{
		t: t, members: harness.NewMembers(t, harness.Basalt, 3, "--snapshot-catchup-entries=10"), addresses: map[*harness.Server]string{},
	}
	for _, member := range cluster.members {
		member.UseProgram(next)
		cluster.addresses[member] = fmt.Sprintf("127.0.0.1:%d", harness.FreePort(t))
		cluster.wrap(member, "")
	}
	cluster.members.Start()
	return cluster
}

// wrap sets the points of a member's next life.
func (c *pointedMembers) wrap(member *harness.Server, points string) {
	member.Wrap([]string{"env", "GOFAIL_HTTP=" + c.addresses[member], "GOFAIL_FAILPOINTS=" + points})
}

func (c *pointedMembers) put(through *harness.Server, count int) {
	c.t.Helper()
	for range count {
		putUntilTaken(c.t, through, fmt.Sprintf("k%06d", c.acknowledged), "v")
		c.acknowledged++
	}
}

// stopsAt waits until a member has ended at a point, and does meanwhile what leads there.
func (c *pointedMembers) stopsAt(member *harness.Server, point string, provoke func(context.Context)) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(harness.Context(c.t, time.Minute), 30*time.Second)
	defer cancel()
	died := make(chan int, 1)
	go func() { died <- member.AwaitExit() }()
	for alive := true; alive; {
		provoke(ctx)
		select {
		case <-died:
			alive = false
		case <-ctx.Done():
			c.t.Fatalf("%s: the process goes on", point)
		case <-time.After(5 * time.Millisecond):
		}
	}
	if !member.LogContains("failpoint panic: " + point) {
		c.t.Errorf("%s: it ended for another reason", point)
	}
}

// keptAll has a member come back, and looks for everything that was acknowledged, at it alone.
func (c *pointedMembers) keptAll(member *harness.Server, point string) {
	c.t.Helper()
	c.wrap(member, "")
	member.RestartLater()
	member.AwaitReady()
	// A linearizable read: what the others acknowledged has to be here then.
	found := map[string]bool{}
	for _, kv := range everything(c.t, member).Kvs {
		found[string(kv.Key)] = true
	}
	for n := range c.acknowledged {
		if key := fmt.Sprintf("k%06d", n); !found[key] {
			c.t.Fatalf("%s: %s was acknowledged and is gone", point, key)
		}
	}
}

// TestPanicAmongMembers stops a member at each point that takes others to come by, and loses nothing that was acknowledged.
func TestPanicAmongMembers(t *testing.T) {
	t.Parallel()
	c := startPointedMembers(t)
	nothing := func(context.Context) {}
	// Whoever leads, and somebody else, through whom it is asked.
	roles := func() (leader, other *harness.Server) {
		leader = leaderOf(t, c.members)
		return leader, c.members.Without(leader)[0]
	}
	const lease = 7
	_, other := roles()
	must(servicesOf(other.Conn(t)).lease.LeaseGrant(harness.Context(t, 20*time.Second), &pb.LeaseGrantRequest{ID: lease, TTL: 10_000}))(t)
	renew := func(ctx context.Context, s services) {
		if stream, err := s.lease.LeaseKeepAlive(ctx); err == nil {
			_ = stream.Send(&pb.LeaseKeepAliveRequest{ID: lease})
			_, _ = stream.Recv()
		}
	}
	look := func(ctx context.Context, s services) {
		_, _ = s.lease.LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: lease})
	}
	for _, at := range []struct {
		point   string
		leader  bool
		provoke func(context.Context, services)
	}{
		{"raftBeforeLeaderSend", true, nil}, {"raftBeforeFollowerSend", false, nil}, {"raftDropHeartbeat", false, nil},
		{"beforeServeHTTPLeaseRenew", true, renew}, {"beforeLookupWhenForwardLeaseTimeToLive", true, look},
	} {
		leader, other := roles()
		stopped, through := other, leader
		if at.leader {
			stopped, through = leader, other
		}
		s, provoke := servicesOf(through.Conn(t)), nothing
		if at.provoke != nil {
			provoke = func(ctx context.Context) {
				attempt, end := context.WithTimeout(ctx, time.Second)
				defer end()
				at.provoke(attempt, s)
			}
		}
		c.put(through, 1)
		pointed{stopped, t, "http://" + c.addresses[stopped] + "/"}.set(at.point, "panic")
		c.stopsAt(stopped, at.point, provoke)
		c.put(through, 1)
		c.keptAll(stopped, at.point)
	}
	// A member that was away for longer than the log reaches back is given the whole state.
	for _, point := range []string{"raftBeforeApplySnap", "applyBeforeOpenSnapshot", "applyAfterOpenSnapshot", "raftAfterApplySnap"} {
		leader, other := roles()
		other.Kill()
		c.put(leader, 30)
		c.wrap(other, point+"=panic")
		awaitShortLog(t, leader)
		other.RestartLater()
		c.stopsAt(other, point, nothing)
		c.put(leader, 1)
		c.keptAll(other, point)
	}
}

// awaitShortLog has a leader write a checkpoint, and waits until its log reaches back no further than others are to catch up from.
func awaitShortLog(t *testing.T, leader *harness.Server) {
	t.Helper()
	ctx, s := harness.Context(t, time.Minute), servicesOf(leader.Conn(t))
	for {
		compactNow(ctx, s)
		if samples, _ := parseMetrics(t, metricsOf(t, leader)); samples["basalt_raft_log_entries"] <= 12 {
			return
		}
		if ctx.Err() != nil {
			t.Fatal("the log stays long")
		}
		putValue(t, ctx, s, "other", "v")
	}
}

// TestNoPointIsForgotten: each point of the program is set off by a test.
func TestNoPointIsForgotten(t *testing.T) {
	server := startPointed(t, "")
	server.AwaitReady()
	known := slices.Concat(pointsAmongMembers, []string{pointOfStarts, pointOfRemainders})
	for _, at := range panics {
		known = append(known, at.point)
	}
	_, list := server.ask("GET", "", "")
	var offered []string
	for line := range strings.Lines(list) {
		point, _, _ := strings.Cut(line, "=")
		offered = append(offered, point)
	}
	slices.Sort(known)
	if !slices.Equal(known, offered) {
		t.Errorf("tests set off %q, the program has %q", known, offered)
	}
}

// TestPointOfRemainders stops a member that is about to have the remainder of a lease forgotten, which a snapshot brought: so
// soon no leader would note one.
func TestPointOfRemainders(t *testing.T) {
	source := harness.StartUnderTest(t)
	ctx := harness.Context(t, time.Minute)
	const lease, ttl = 7, 10_000
	must(servicesOf(source.Conn(t)).lease.LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: lease, TTL: ttl}))(t)
	file := filepath.Join(t.TempDir(), "snapshot.db")
	source.Etcdctl("snapshot", "save", file)
	source.Kill()
	db := must(bolt.Open(file, 0o600, nil))(t)
	err := db.Update(func(tx *bolt.Tx) error {
		value, err := proto.Marshal(&leasepb.Lease{ID: lease, TTL: ttl, RemainingTTL: ttl / 2})
		if err != nil {
			return err
		}
		return tx.Bucket([]byte("lease")).Put(binary.BigEndian.AppendUint64(nil, lease), value)
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}

	members := harness.NewMembers(t, harness.Basalt, 1)
	args := slices.Concat([]string{"snapshot", "restore", file, "--skip-hash-check"}, members[0].RestoreFlags())
	if result := harness.Basaltctl(t, args...); result.Code != 0 {
		t.Fatal(result.Stderr)
	}
	members[0].UseProgram(harness.NextVersion(t))
	members[0].Wrap([]string{"env", "GOFAIL_FAILPOINTS=" + pointOfRemainders + "=panic"})
	members.Start()
	if stream, err := servicesOf(members[0].Conn(t)).lease.LeaseKeepAlive(ctx); err == nil {
		_ = stream.Send(&pb.LeaseKeepAliveRequest{ID: lease})
		_, _ = stream.Recv()
	}
	members[0].AwaitExit()
	if !members[0].LogContains("failpoint panic: " + pointOfRemainders) {
		t.Error("it stopped for another reason")
	}
}
