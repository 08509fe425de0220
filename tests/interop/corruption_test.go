package interop

import (
	"slices"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"basalt/tests/interop/harness"
)

// oneDiffers are three members, not started, of which the last was restored from another snapshot than the others: of the same
// revision, with another value.
func oneDiffers(t *testing.T, args ...string) harness.Members {
	t.Helper()
	members := harness.NewMembers(t, harness.UnderTest(t), 3, args...)
	file, other := snapshotWith(t, "this"), snapshotWith(t, "that")
	restoreAs(t, members[0], file)
	restoreAs(t, members[1], file)
	restoreAs(t, members[2], other)
	return members
}

// restoreAs restores a snapshot for a member of either kind.
func restoreAs(t *testing.T, member *harness.Server, file string) {
	t.Helper()
	if member.Kind == harness.Basalt {
		restoreFor(t, member, file)
		return
	}
	harness.Etcdutl(t, slices.Concat([]string{"snapshot", "restore", file}, member.RestoreFlags())...)
}

// TestInitialCorruptCheck starts a member whose data differs: it does not come to serve. One with the same data does.
func TestInitialCorruptCheck(t *testing.T) {
	for _, flag := range []string{"--feature-gates=InitialCorruptCheck=true", "--experimental-initial-corrupt-check"} {
		if harness.UnderTest(t) == harness.Etcd && strings.Contains(flag, "experimental") {
			continue
		}
		t.Run(flag, func(t *testing.T) {
			var periodic []string
			if harness.UnderTest(t) == harness.Basalt {
				periodic = []string{"--corrupt-check-time=1h"}
			}
			members := oneDiffers(t, periodic...)
			bad := members[2]
			members[:2].Start()
			putUntilTaken(t, members[0], "/registry/new", "value")
			bad.Extra(append(periodic, flag)...)
			bad.RestartLater()
			if code := bad.AwaitExit(); code == 0 {
				t.Error("a member with other data ended with 0")
			}
			if !bad.LogContains("found data inconsistency with peers") {
				t.Error("a member with other data does not say why it stops")
			}
			if bad.Kind == harness.Basalt && !strings.Contains(bad.LastLine(), "basaltctl reseed") {
				t.Errorf("the last line does not say what to do: %s", bad.LastLine())
			}
			// Nobody was told anything by it.
			putUntilTaken(t, members[1], "/registry/new", "again")
			good := members[0]
			good.Kill()
			good.Extra(append(periodic, flag)...)
			good.Restart()
			if !good.LogContains("initial corruption checking passed; no corruption") {
				t.Error("a member with the same data does not say that it was compared")
			}
			putUntilTaken(t, good, "/registry/new", "more")
		})
	}
}

// observeCompactHashCheck compacts a cluster in which one member differs: the leader finds out which, by what the compaction
// hashed.
func observeCompactHashCheck(t *testing.T) {
	args := []string{"--feature-gates=CompactHashCheck=true", "--compact-hash-check-time=300ms"}
	if harness.UnderTest(t) == harness.Basalt {
		args = append(args, "--corrupt-check-time=1h")
	}
	members := oneDiffers(t, args...)
	members.Start()
	revision := everything(t, members[0]).Header.Revision
	if _, err := pb.NewKVClient(members[0].Conn(t)).Compact(harness.Context(t, 10*time.Second), &pb.CompactionRequest{Revision: revision}); err != nil {
		t.Fatal(err)
	}
	differs := idOf(t, members[2])
	var armed []*pb.AlarmMember
	for deadline := time.Now().Add(30 * time.Second); len(armed) == 0 && time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		answer, err := pb.NewMaintenanceClient(members[0].Conn(t)).Alarm(harness.Context(t, 10*time.Second), &pb.AlarmRequest{Action: pb.AlarmRequest_GET})
		if err != nil {
			t.Fatal(err)
		}
		armed = answer.Alarms
	}
	if len(armed) != 1 || armed[0].Alarm != pb.AlarmType_CORRUPT || armed[0].MemberID != differs {
		t.Fatalf("armed is %v, want CORRUPT of %x", armed, differs)
	}
	refused := newLine(t)
	expectRefusedFlag(t, 1, "--compact-hash-check-time", refused.args("--compact-hash-check-time=0s")...)
}

// TestCompactHashCheckFindsNothing compacts members that are equal: nobody is accused.
func TestCompactHashCheckFindsNothing(t *testing.T) {
	members := harness.StartMembers(t, harness.UnderTest(t), 3, "--feature-gates=CompactHashCheck=true", "--compact-hash-check-time=100ms")
	leader := leaderOf(t, members)
	for n := range 5 {
		putUntilTaken(t, members[n%3], "/registry/pods/a", "value")
		revision := everything(t, members[0]).Header.Revision
		if _, err := pb.NewKVClient(members[0].Conn(t)).Compact(harness.Context(t, 10*time.Second), &pb.CompactionRequest{Revision: revision}); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(20 * time.Second); len(leader.LinesWith("successfully checked hash on whole cluster")) <= n; time.Sleep(20 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("the leader does not come to compare all members")
			}
		}
	}
	answer, err := pb.NewMaintenanceClient(leader.Conn(t)).Alarm(harness.Context(t, 10*time.Second), &pb.AlarmRequest{Action: pb.AlarmRequest_GET})
	if err != nil || len(answer.Alarms) != 0 {
		t.Errorf("equal members were found to differ: %v %v", answer, err)
	}
}
