package interop

import (
	"context"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"

	"basalt/tests/interop/harness"
)

// downgrade asks for one step of a downgrade.
func downgrade(action pb.DowngradeRequest_DowngradeAction, version string) func(context.Context, services) (string, error) {
	return func(ctx context.Context, s services) (string, error) {
		answer, err := s.maintenance.Downgrade(ctx, &pb.DowngradeRequest{Action: action, Version: version})
		return answer.GetVersion(), err
	}
}

// awaitRelease waits until all that tells a release tells this one: etcd's leader changes it within seconds, basalt at once.
func awaitRelease(t *testing.T, ctx context.Context, server *harness.Server, s services, release, target string) {
	t.Helper()
	wanted := `{"etcdserver":"3.7.3","etcdcluster":"` + release + `","storage":"` + release + `"}`
	minor, _ := strings.CutSuffix(release, ".0")
	client := newClient(nil, false)
	gauge := `etcd_cluster_version{cluster_version="` + minor + `"} 1`
	await(t, ctx, "release "+release, func() bool {
		status := must(s.maintenance.Status(ctx, &pb.StatusRequest{}))(t)
		info := status.DowngradeInfo
		if info.Enabled != (target != "") || info.TargetVersion != target {
			t.Fatalf("downgrade is %v, want a target %q", info, target)
		}
		_, version := httpGet(t, client, server.Endpoint()+"/version")
		_, metrics := httpGet(t, client, server.Endpoint()+"/metrics")
		return status.StorageVersion == release && strings.TrimSpace(version) == wanted && strings.Contains(metrics, gauge)
	})
}

// TestDowngrade goes down a release and up again, by etcd's state machine (etcd-contract 48).
func TestDowngrade(t *testing.T) {
	const validate, enable, cancel = pb.DowngradeRequest_VALIDATE, pb.DowngradeRequest_ENABLE, pb.DowngradeRequest_CANCEL
	server, s, ctx := newStore(t)
	expect := func(name string, step func(context.Context, services) (string, error), version string) {
		t.Helper()
		if got, err := step(ctx, s); err != nil || got != version {
			t.Errorf("%s: %q, %v, want %q", name, got, err, version)
		}
	}
	refused := func(name string, step func(context.Context, services) (string, error), code codes.Code, text string) {
		t.Helper()
		_, err := step(ctx, s)
		expectStatus(t, name, err, code, text)
	}
	const target, format = "etcdserver: invalid downgrade target version", "etcdserver: wrong downgrade target version format"
	const underWay = "etcdserver: cluster has a downgrade job in progress"
	awaitRelease(t, ctx, server, s, "3.7.0", "")
	for _, version := range []string{"3.7.0", "3.5.0", "3.8.0", "2.6.0", "4.6"} {
		refused("validate "+version, downgrade(validate, version), codes.InvalidArgument, target)
		refused("enable "+version, downgrade(enable, version), codes.InvalidArgument, target)
	}
	for _, version := range []string{"", "x", "3", "v3.6.0", "3.6.0.0", "3.6.x", "3.6.0-a..b", "3.6.0+ü", "3.-6.0", "+3.5.0"} {
		refused("validate "+version, downgrade(validate, version), codes.InvalidArgument, format)
		refused("enable "+version, downgrade(enable, version), codes.InvalidArgument, format)
	}
	refused("an unknown action", downgrade(9, "3.6.0"), codes.Unknown, "etcdserver: unknown method")
	for _, version := range []string{"3.6", "3.6.0", "3.6.11", "3.6.0-rc.1+build"} {
		expect("validate "+version, downgrade(validate, version), "3.7")
	}
	expect("cancel of none", downgrade(cancel, ""), "3.7")
	expect("enable", downgrade(enable, "3.6.4"), "3.7")
	awaitRelease(t, ctx, server, s, "3.6.0", "3.6.0")
	refused("validate again", downgrade(validate, "3.6.0"), codes.InvalidArgument, target)
	refused("enable a second", downgrade(enable, "3.5.0"), codes.FailedPrecondition, underWay)
	server.Kill()
	server.Restart()
	s = servicesOf(server.Conn(t))
	awaitRelease(t, ctx, server, s, "3.6.0", "3.6.0")
	putValue(t, ctx, s, "a", "1")
	expect("cancel", downgrade(cancel, "whatever"), "3.6")
	awaitRelease(t, ctx, server, s, "3.7.0", "")
	if server.Kind == harness.Basalt && !server.LogContains("The server is ready to downgrade") {
		t.Error("the log says nothing of the downgrade")
	}
	if got := server.Etcdctl("downgrade", "validate", "3.6"); !strings.Contains(got, "Downgrade validate success") {
		t.Errorf("etcdctl: %s", got)
	}
}

// TestDowngradeBySnapshot is the way down: a snapshot taken amid a downgrade is one of etcd 3.6, which goes on with it and ends
// the downgrade; and basalt takes it too.
func TestDowngradeBySnapshot(t *testing.T) {
	if harness.UnderTest(t) == harness.Etcd {
		t.Skip("etcd 3.7 is replaced by 3.6 in place")
	}
	members := harness.StartMembers(t, harness.Basalt, 3)
	server, ctx := members[0], harness.Context(t, 2*time.Minute)
	s := servicesOf(server.Conn(t))
	grant := must(s.lease.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: 3600}))(t)
	must(s.kv.Put(ctx, &pb.PutRequest{Key: []byte("leased"), Value: []byte("1"), Lease: grant.ID}))(t)
	for _, value := range []string{"1", "2", "3"} {
		putValue(t, ctx, s, "a", value)
	}
	must(s.kv.Compact(ctx, &pb.CompactionRequest{Revision: 3}))(t)
	before := snapshotVersion(t, ctx, s)
	server.Etcdctl("downgrade", "enable", "3.6")
	for _, member := range members {
		awaitRelease(t, ctx, member, servicesOf(member.Conn(t)), "3.6.0", "3.6.0")
	}
	if after := snapshotVersion(t, ctx, s); before != "3.7.0" || after != "3.6.0" {
		t.Errorf("snapshots are of %s and %s", before, after)
	}
	path := filepath.Join(t.TempDir(), "backup.db")
	server.Etcdctl("snapshot", "save", path)
	want := everything(t, server)

	restored := filepath.Join(t.TempDir(), "etcd")
	harness.EtcdutlBefore(t, "snapshot", "restore", path, "--data-dir", restored)
	older := harness.Start(t, harness.Options{Kind: harness.Etcd, Program: harness.ToolPath(t, "etcd-3.6"), DataDir: restored})
	sameKeys(t, older, want)
	olderServices := servicesOf(older.Conn(t))
	await(t, ctx, "the end of the downgrade", func() bool {
		status := must(olderServices.maintenance.Status(ctx, &pb.StatusRequest{}))(t)
		return strings.HasPrefix(status.Version, "3.6.") && status.StorageVersion == "3.6.0" && !status.DowngradeInfo.Enabled
	})
	if lease := must(olderServices.lease.LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: grant.ID, Keys: true}))(t); len(lease.Keys) != 1 {
		t.Errorf("the lease came as %v", lease)
	}
	older.Stop()

	// And back, amid the downgrade, which can be cancelled here as there.
	own := filepath.Join(t.TempDir(), "basalt")
	harness.Basaltctl(t, "snapshot", "restore", path, "--data-dir", own)
	again := harness.Start(t, harness.Options{Kind: harness.Basalt, DataDir: own})
	sameKeys(t, again, want)
	awaitRelease(t, ctx, again, servicesOf(again.Conn(t)), "3.6.0", "3.6.0")
	again.Etcdctl("downgrade", "cancel")
	awaitRelease(t, ctx, again, servicesOf(again.Conn(t)), "3.7.0", "")
}

// snapshotVersion is what the messages of a snapshot say that it is of.
func snapshotVersion(t *testing.T, ctx context.Context, s services) string {
	t.Helper()
	stream := must(s.maintenance.Snapshot(ctx, &pb.SnapshotRequest{}))(t)
	version := ""
	for {
		message, err := stream.Recv()
		if err == io.EOF {
			return version
		}
		if err != nil || version != "" && message.Version != version {
			t.Fatalf("snapshot of %q: %v, %v", version, message.GetVersion(), err)
		}
		version = message.Version
	}
}
