package interop

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"basalt/tests/interop/harness"
)

// snapshotWith saves a snapshot of a server that was told one value after a few others.
func snapshotWith(t *testing.T, value string) string {
	t.Helper()
	server := harness.StartUnderTest(t)
	for n := range 20 {
		putUntilTaken(t, server, fmt.Sprintf("/registry/pods/%d", n), "value")
	}
	putUntilTaken(t, server, "/registry/pods/last", value)
	file := filepath.Join(t.TempDir(), "snapshot.db")
	server.Etcdctl("snapshot", "save", file)
	server.Kill()
	return file
}

// restoreFor restores a snapshot into the directory of a member.
func restoreFor(t *testing.T, member *harness.Server, file string) {
	t.Helper()
	args := slices.Concat([]string{"snapshot", "restore", file}, member.RestoreFlags())
	if result := harness.Basaltctl(t, args...); result.Code != 0 {
		t.Fatalf("restore for %s: %s", member.PeerURL(), result.Stderr)
	}
}

// TestClusterFromOneSnapshot restores one file for three members: the way from another cluster, and from a lost quorum. Either
// with basaltctl, or with etcdutl, whose directories basalt takes over.
func TestClusterFromOneSnapshot(t *testing.T) {
	file := snapshotWith(t, "last")
	for _, tool := range []string{"basaltctl", "etcdutl"} {
		t.Run(tool, func(t *testing.T) {
			members := harness.NewMembers(t, harness.Basalt, 3, "--corrupt-check-time=200ms")
			for _, member := range members {
				if tool == "basaltctl" {
					restoreFor(t, member, file)
				} else {
					harness.Etcdutl(t, slices.Concat([]string{"snapshot", "restore", file}, member.RestoreFlags())...)
				}
			}
			serveAsOne(t, members)
		})
	}
}

// serveAsOne starts restored members: they have the data, take more, and find themselves equal.
func serveAsOne(t *testing.T, members harness.Members) {
	t.Helper()
	members.Start()
	got, err := pb.NewKVClient(members[1].Conn(t)).Range(harness.Context(t, 10*time.Second), &pb.RangeRequest{Key: []byte("/registry/pods/last")})
	if err != nil || len(got.Kvs) != 1 || string(got.Kvs[0].Value) != "last" {
		t.Fatalf("what was restored: %v %v", got, err)
	}
	for n, member := range members {
		putUntilTaken(t, member, fmt.Sprintf("/registry/new/%d", n), "value")
	}
	sameEverywhere(t, members)
	// They compare their data by themselves, and find it equal.
	for _, member := range members {
		compared := 0.0
		for deadline := time.Now().Add(20 * time.Second); compared < 2 && time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
			putUntilTaken(t, member, "/registry/new/more", "value")
			samples, _ := parseMetrics(t, metricsOf(t, member))
			compared = samples["basalt_hash_marks_equal_total"]
			if samples["basalt_hash_marks_different_total"] != 0 {
				t.Fatalf("%s found members of one snapshot to differ", member.Endpoint())
			}
		}
		if compared < 2 {
			t.Errorf("%s does not compare its data with others", member.Endpoint())
		}
	}
}

// observeCorruptCheckTime restores one of three members from another snapshot than the others: that is noticed, by itself, and
// the CORRUPT alarm stops writes.
func observeCorruptCheckTime(t *testing.T) {
	if harness.UnderTest(t) == harness.Etcd {
		harness.StartUnderTest(t, "--corrupt-check-time=1s")
		return
	}
	members := harness.NewMembers(t, harness.Basalt, 3, "--corrupt-check-time=100ms")
	file, other := snapshotWith(t, "this"), snapshotWith(t, "that")
	restoreFor(t, members[0], file)
	restoreFor(t, members[1], file)
	restoreFor(t, members[2], other)
	members.Start()
	var armed []*pb.AlarmMember
	for deadline := time.Now().Add(30 * time.Second); len(armed) == 0 && time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		// Something must change, or there is nothing to compare; it is refused once the alarm is armed.
		_, _ = pb.NewKVClient(members[0].Conn(t)).Put(harness.Context(t, 10*time.Second), &pb.PutRequest{Key: []byte("/registry/new"), Value: []byte("x")})
		answer, err := pb.NewMaintenanceClient(members[0].Conn(t)).Alarm(harness.Context(t, 10*time.Second), &pb.AlarmRequest{Action: pb.AlarmRequest_GET})
		if err != nil {
			t.Fatal(err)
		}
		armed = answer.Alarms
	}
	if len(armed) == 0 || armed[0].Alarm != pb.AlarmType_CORRUPT {
		t.Fatalf("members with different data were not noticed: %v", armed)
	}
}
