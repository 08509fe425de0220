package interop

import (
	"context"
	"os"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"basalt/tests/interop/harness"
)

// wipe takes the data of a member whose process has ended.
func wipe(t *testing.T, member *harness.Server) {
	t.Helper()
	if err := os.RemoveAll(member.DataDir); err != nil {
		t.Fatal(err)
	}
}

// TestAWipedMemberIsRefused starts a member whose data is lost as if nothing had happened: the others know it, and say so
// (etcd `isMemberBootstrapped`). It comes back by being removed and added.
func TestAWipedMemberIsRefused(t *testing.T) {
	t.Parallel()
	kind := harness.UnderTest(t)
	members := harness.StartMembers(t, kind, 3)
	lost, others := members[2], members.Without(members[2])
	putUntilTaken(t, lost, "/registry/pods/a", "value")
	id := idOf(t, lost)
	lost.Kill()
	wipe(t, lost)
	lost.RestartLater()
	if code := lost.AwaitExit(); code == 0 {
		t.Error("a wiped member ended as if all were well")
	}
	if !lost.LogContains("has already been bootstrapped") {
		t.Error("it is not told why")
	}
	removeUntilTaken(t, others[0], id)
	spare := harness.Spare(t, kind, "spare")
	addMember(t, others[1], spare, false)
	spare.Join(others)
	putUntilTaken(t, spare, "/registry/pods/b", "value")
	sameEverywhere(t, append(others, spare))
}

// TestAWipedMemberHasNoVote starts such a member while it reaches nobody, so that it begins anew; then it meets one other. The
// two would be a quorum, of which one has forgotten what it promised.
func TestAWipedMemberHasNoVote(t *testing.T) {
	t.Parallel()
	if harness.UnderTest(t) != harness.Basalt {
		t.Skip("etcd counts the vote of such a member, and loses what it had acknowledged")
	}
	members := harness.StartMembers(t, harness.Basalt, 3)
	lost, others := members[2], members.Without(members[2])
	putUntilTaken(t, lost, "/registry/pods/a", "value")
	lost.Kill()
	wipe(t, lost)
	others[1].Kill()
	others[0].Pause()
	lost.RestartLater()
	lost.AwaitReady()
	others[0].Resume()
	if code := lost.AwaitExit(); code == 0 {
		t.Error("a wiped member ended as if all were well")
	}
	if !lost.LogContains("ran before with another data directory") {
		t.Error("it is not told how to come back")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	if _, err := pb.NewKVClient(others[0].Conn(t)).Put(ctx, &pb.PutRequest{Key: []byte("b")}); err == nil {
		t.Error("a write found a quorum of one")
	}
	others[1].RestartLater()
	others[1].AwaitReady()
	putUntilTaken(t, others[1], "/registry/pods/b", "value")
	sameEverywhere(t, others)
}

// TestALeaderWithASlowDiskHandsOver lets the syncs of the leader take long, not those of the others: one of these leads soon.
func TestALeaderWithASlowDiskHandsOver(t *testing.T) {
	if harness.UnderTest(t) != harness.Basalt {
		t.Skip("etcd goes on with a leader whose disk is slow")
	}
	members := harness.NewMembers(t, harness.Basalt, 3)
	slow := members[0]
	// A start takes fewer; then each sync of the log takes more than half an election timeout.
	trace := harness.NewStrace(t, "fdatasync", "-e", "inject=fdatasync:delay_enter=800ms:when=60+")
	slow.Wrap(trace.Wrapper)
	members.Start()
	moveLead(t, members, slow)
	ctx := harness.Context(t, 90*time.Second)
	kv := pb.NewKVClient(members[1].Conn(t))
	await(t, ctx, "another member to lead", func() bool {
		if _, err := kv.Put(ctx, &pb.PutRequest{Key: []byte("a"), Value: []byte("1")}); err != nil {
			t.Logf("put: %v", err)
		}
		return slow.LogContains("one of them is to lead")
	})
	if leader := leaderOf(t, members); leader == slow {
		t.Error("the member with the slow disk still leads")
	}
	putUntilTaken(t, members[2], "b", "2")
	sameEverywhere(t, members)
}
