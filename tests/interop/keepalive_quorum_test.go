package interop

import (
	"errors"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"basalt/tests/interop/harness"
)

// TestAKeepaliveIsAnsweredByAQuorum pauses all members but the leader: it hears nothing of one that would take its place, which would
// end the lease by its own clock. So it may not promise its holder anything, neither a full life nor that the lease is gone.
func TestAKeepaliveIsAnsweredByAQuorum(t *testing.T) {
	t.Parallel()
	if harness.UnderTest(t) == harness.Etcd {
		t.Skip("etcd's leader answers keepalives by its own clock, also when it has been replaced")
	}
	members := harness.StartMembers(t, harness.UnderTest(t), 3)
	leader := leaderOf(t, members)
	client := pb.NewLeaseClient(leader.Conn(t))
	granted, err := client.LeaseGrant(harness.Context(t, 10*time.Second), &pb.LeaseGrantRequest{TTL: 600})
	if err != nil {
		t.Fatal(err)
	}
	renew := func(id int64) error {
		stream, err := client.LeaseKeepAlive(harness.Context(t, 20*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: id}); err != nil {
			t.Fatal(err)
		}
		answer, err := stream.Recv()
		if err == nil && answer.TTL != 600 {
			return errors.New("the lease is said to be gone")
		}
		return err
	}
	if err := renew(granted.ID); err != nil {
		t.Fatalf("while all is well: %v", err)
	}
	for _, other := range members.Without(leader) {
		other.Pause()
	}
	if err := renew(granted.ID); err == nil {
		t.Error("a leader that nobody answers has renewed a lease")
	}
	if err := renew(granted.ID + 1); err != nil && err.Error() == "the lease is said to be gone" {
		t.Error("a leader that nobody answers says that a lease is gone")
	}
	for _, other := range members.Without(leader) {
		other.Resume()
	}
	deadline := time.Now().Add(60 * time.Second)
	for err = renew(granted.ID); err != nil && time.Now().Before(deadline); err = renew(granted.ID) {
		time.Sleep(100 * time.Millisecond)
	}
	if err != nil {
		t.Errorf("when all is well again: %v", err)
	}
}
