package interop

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"basalt/tests/interop/harness"
)

// TestThreeMembersMove moves a cluster of three from etcd to basalt by one snapshot, and back by another: the runbook
// docs/operations/moving.md.
func TestThreeMembersMove(t *testing.T) {
	if harness.UnderTest(t) != harness.Basalt {
		t.Skip("it runs both")
	}
	from := harness.StartMembers(t, harness.Etcd, 3)
	granted, err := pb.NewLeaseClient(from[0].Conn(t)).LeaseGrant(harness.Context(t, 10*time.Second), &pb.LeaseGrantRequest{TTL: 6000})
	if err != nil {
		t.Fatal(err)
	}
	for n := range 100 {
		putUntilTaken(t, from[n%3], fmt.Sprintf("/registry/pods/%d", n%40), fmt.Sprint("value ", n))
	}
	put := &pb.PutRequest{Key: []byte("/registry/leases/a"), Value: []byte("value"), Lease: granted.ID}
	if _, err := pb.NewKVClient(from[1].Conn(t)).Put(harness.Context(t, 10*time.Second), put); err != nil {
		t.Fatal(err)
	}
	before := everything(t, from[2])

	here := move(t, from, harness.Basalt)
	sameKeys(t, here[1], before)
	left, err := pb.NewLeaseClient(here[2].Conn(t)).LeaseTimeToLive(harness.Context(t, 10*time.Second), &pb.LeaseTimeToLiveRequest{ID: granted.ID, Keys: true})
	if err != nil || left.GrantedTTL != 6000 || len(left.Keys) != 1 {
		t.Fatalf("the lease after the move: %v %v", left, err)
	}
	if revision := everything(t, here[0]).Header.Revision; revision < before.Header.Revision+raised {
		t.Errorf("the revision is %d after the move: no higher than clients may have seen", revision)
	}
	for n, member := range here {
		putUntilTaken(t, member, fmt.Sprintf("/registry/pods/new/%d", n), "value")
	}
	sameEverywhere(t, here)

	written := everything(t, here[0])
	back := move(t, here, harness.Etcd)
	sameKeys(t, back[2], written)
	for n, member := range back {
		putUntilTaken(t, member, fmt.Sprintf("/registry/pods/back/%d", n), "value")
	}
	sameEverywhere(t, back)
}

// raised is by how much a move raises the revision.
const raised = 1000000

// move saves a snapshot, stops all members, and starts as many of the other kind on it.
func move(t *testing.T, from harness.Members, kind harness.Kind) harness.Members {
	t.Helper()
	file := filepath.Join(t.TempDir(), "snapshot.db")
	from[0].Etcdctl("snapshot", "save", file)
	for _, member := range from {
		member.Stop()
	}
	members := harness.NewMembers(t, kind, len(from))
	for _, member := range members {
		args := append([]string{"snapshot", "restore", file, fmt.Sprint("--bump-revision=", raised), "--mark-compacted"}, member.RestoreFlags()...)
		if kind == harness.Etcd {
			harness.Etcdutl(t, args...)
		} else {
			ctl(t, args...)
		}
	}
	members.Start()
	return members
}

// sameKeys fails unless a member has exactly these keys and values.
func sameKeys(t *testing.T, member *harness.Server, want *pb.RangeResponse) {
	t.Helper()
	got := everything(t, member)
	if len(got.Kvs) != len(want.Kvs) {
		t.Fatalf("%d keys, not %d", len(got.Kvs), len(want.Kvs))
	}
	for n, kv := range got.Kvs {
		if kv.String() != want.Kvs[n].String() {
			t.Errorf("%v is not what was there: %v", kv, want.Kvs[n])
		}
	}
}
