package interop

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"basalt/tests/interop/harness"
)

// coming is what a store shows that must survive every way from one program to the other.
type coming struct {
	head, compacted int64
	// keys at each revision that can be read, as the bytes of their answers.
	keys map[int64]string
	// hashes at some revisions, without the compact revision of the answer: a start forgets cached ones.
	hashes map[int64]uint32
	events []*mvccpb.Event
	leases []string
}

// comingOf reads a store from its compact revision on (etcd-contract 12, 13, 25, 51, 52, 53, 59).
func comingOf(t *testing.T, server *harness.Server, compacted int64) coming {
	t.Helper()
	all := coming{head: everything(t, server).Header.Revision, compacted: compacted}
	all.keys, all.hashes = map[int64]string{}, map[int64]uint32{}
	for revision := max(compacted, 1); revision <= all.head; revision++ {
		response := everythingAt(t, server, revision)
		response.Header = nil
		all.keys[revision] = response.String()
		all.hashes[revision] = endpointHashOf(t, server, revision)
	}
	all.events = watchToHead(t, server, max(compacted, 1))
	client := server.Client(t)
	leases, err := client.Leases(harness.Context(t, 30*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	for _, lease := range leases.Leases {
		left, err := client.TimeToLive(harness.Context(t, 30*time.Second), lease.ID, clientv3.WithAttachedKeys())
		if err != nil {
			t.Fatal(err)
		}
		slices.SortFunc(left.Keys, func(a, b []byte) int { return strings.Compare(string(a), string(b)) })
		all.leases = append(all.leases, fmt.Sprintf("%x granted %d keys %q", lease.ID, left.GrantedTTL, left.Keys))
	}
	slices.Sort(all.leases)
	return all
}

func endpointHashOf(t *testing.T, server *harness.Server, revision int64) uint32 {
	t.Helper()
	response, err := pb.NewMaintenanceClient(server.Conn(t)).HashKV(harness.Context(t, 30*time.Second),
		&pb.HashKVRequest{Revision: revision})
	if err != nil {
		t.Fatal(err)
	}
	return response.Hash
}

func (want coming) expect(t *testing.T, server *harness.Server) {
	t.Helper()
	got := comingOf(t, server, want.compacted)
	if got.head != want.head {
		t.Fatalf("%s is at revision %d, want %d", server.Kind, got.head, want.head)
	}
	for revision, keys := range want.keys {
		if got.keys[revision] != keys {
			t.Fatalf("%s at revision %d:\n%s\nwant\n%s", server.Kind, revision, got.keys[revision], keys)
		}
		if got.hashes[revision] != want.hashes[revision] {
			t.Errorf("%s: HashKV at %d is %d, want %d", server.Kind, revision, got.hashes[revision], want.hashes[revision])
		}
	}
	expectSameEvents(t, "the watch from the compact revision", want.events, got.events)
	if !slices.Equal(got.leases, want.leases) {
		t.Errorf("%s has leases\n%q\nwant\n%q", server.Kind, got.leases, want.leases)
	}
	// Below the compact revision a watch ends with it.
	if want.compacted > 1 {
		watch := server.Client(t).Watch(harness.Context(t, 30*time.Second), "\x00", clientv3.WithFromKey(), clientv3.WithRev(1))
		if response := <-watch; response.CompactRevision != want.compacted {
			t.Errorf("%s: a watch from 1 is told compact revision %d, want %d", server.Kind, response.CompactRevision,
				want.compacted)
		}
	}
}

// snapshotOf saves a snapshot of genuine etcd with a history, leases, users and roles, and leaves that etcd running.
func snapshotOf(t *testing.T, compact string) (path string, etcd *harness.Server) {
	t.Helper()
	etcd = harness.Start(t, harness.Options{Kind: harness.Etcd})
	writeHistory(t, etcd)
	if _, err := etcd.Client(t).Put(harness.Context(t, 30*time.Second), "large", strings.Repeat("x", 1<<20)); err != nil {
		t.Fatal(err) // overflow pages
	}
	for _, keys := range [][]string{{"leased", "/registry/events/leased"}, {}} {
		lease := strings.Fields(etcd.Etcdctl("lease", "grant", "5000"))[1]
		for _, key := range keys {
			etcd.Etcdctl("put", key, "x", "--lease="+lease)
		}
	}
	etcd.Etcdctl("role", "add", "reader")
	etcd.Etcdctl("role", "grant-permission", "reader", "read", "a", "z")
	etcd.Etcdctl("user", "add", "ann", "--new-user-password=secret")
	etcd.Etcdctl("user", "grant-role", "ann", "reader")
	if compact != "" {
		etcd.Etcdctl("compaction", compact, "--physical")
	}
	path = filepath.Join(t.TempDir(), "etcd.db")
	etcd.Etcdctl("snapshot", "save", path)
	// A compaction leaves its own hash in memory, which answers for its revision until a restart (etcd-contract 52).
	etcd.Stop()
	etcd.Restart()
	return path, etcd
}

func mustBasaltctl(t *testing.T, args ...string) string {
	t.Helper()
	result := harness.Basaltctl(t, args...)
	if result.Code != 0 {
		t.Fatalf("basaltctl %v: exit %d\n%s%s", args, result.Code, result.Stdout, result.Stderr)
	}
	return result.Stdout
}

// TestComingAndGoing carries etcd's data to basalt, by a restore and by taking a directory over, and back to etcd.
func TestComingAndGoing(t *testing.T) {
	t.Parallel()
	if harness.UnderTest(t) != harness.Basalt {
		t.Skip("this compares the two")
	}
	for _, compact := range []string{"", "40"} {
		t.Run("compacted at "+compact, func(t *testing.T) {
			snapshot, etcd := snapshotOf(t, compact)
			compacted := int64(0)
			fmt.Sscan(compact, &compacted)
			want := comingOf(t, etcd, compacted)
			users := etcd.Etcdctl("user", "get", "ann", "--detail") + etcd.Etcdctl("role", "list")
			etcd.Stop()
			dir := t.TempDir()

			restored := filepath.Join(dir, "restored")
			said := mustBasaltctl(t, "snapshot", "restore", snapshot, "--data-dir", restored)
			if !strings.Contains(said, fmt.Sprintf("revision %d, compacted at", want.head)) || !strings.Contains(said, "2 leases") {
				t.Errorf("basaltctl said:\n%s", said)
			}
			expectEtcdRefuses(t, restored)
			here := harness.Start(t, harness.Options{DataDir: restored})
			want.expect(t, here)

			taken := filepath.Join(dir, "taken")
			harness.Etcdutl(t, "snapshot", "restore", snapshot, "--data-dir", taken)
			there := harness.Start(t, harness.Options{DataDir: taken})
			want.expect(t, there)
			expectOldTree(t, taken)
			there.Kill()
			expectEtcdRefuses(t, taken)
			there.Restart()
			want.expect(t, there)
			there.Etcdctl("put", "after", "the takeover")
			there.Stop()
			there.Restart()
			expectText(t, "get", there.Etcdctl("get", "after"), "after", "the takeover")
			expectOldTree(t, taken)

			// And back.
			out := filepath.Join(dir, "out.db")
			here.Etcdctl("snapshot", "save", out)
			if status := statusOf(t, out); status.Revision != want.head {
				t.Errorf("our snapshot is of revision %d, want %d", status.Revision, want.head)
			}
			if hash := fileHashKV(t, out); hash.Hash != want.hashes[want.head] {
				t.Errorf("etcdutl hashkv of our snapshot is %d, want %d", hash.Hash, want.hashes[want.head])
			}
			back := filepath.Join(dir, "back")
			harness.Etcdutl(t, "snapshot", "restore", out, "--data-dir", back)
			again := harness.Start(t, harness.Options{Kind: harness.Etcd, DataDir: back})
			want.expect(t, again)
			if now := again.Etcdctl("user", "get", "ann", "--detail") + again.Etcdctl("role", "list"); now != users {
				t.Errorf("users and roles became\n%s\nwere\n%s", now, users)
			}
		})
	}
}

// fileHashKV asks etcdutl about a copy: it rewrites the file that it reads.
func fileHashKV(t *testing.T, path string) hashKV {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	aside := filepath.Join(t.TempDir(), "copy.db")
	if err := os.WriteFile(aside, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return decode[hashKV](t, harness.Etcdutl(t, "hashkv", aside, "-w", "json"))
}

// expectEtcdRefuses starts genuine etcd on a directory of ours: it must not start empty there.
func expectEtcdRefuses(t *testing.T, dir string) {
	t.Helper()
	end := harness.RunToEnd(t, harness.Launch{Kind: harness.Etcd, Args: freshPorts("--data-dir=" + dir)})
	if end.Code != 1 || !strings.Contains(end.Stdout+end.Stderr, "not a directory") {
		t.Errorf("etcd on a directory of ours: exit %d\n%s%s", end.Code, end.Stdout, end.Stderr)
	}
}

// expectOldTree finds etcd's tree, whole and once, under its new name.
func expectOldTree(t *testing.T, dir string) {
	t.Helper()
	trees, err := filepath.Glob(filepath.Join(dir, "member.imported-*", "snap", "db"))
	if err != nil || len(trees) != 1 {
		t.Errorf("old trees: %v, %v", trees, err)
	}
	if info, err := os.Lstat(filepath.Join(dir, "member")); err != nil || !info.Mode().IsRegular() {
		t.Errorf("member is %v, %v", info, err)
	}
}

// TestRaisedRevision restores with --bump-revision and --mark-compacted by both tools.
func TestRaisedRevision(t *testing.T) {
	if harness.UnderTest(t) != harness.Basalt {
		t.Skip("this compares the two")
	}
	snapshot, etcd := snapshotOf(t, "30")
	before := everything(t, etcd).Header.Revision
	etcd.Stop()
	dir := t.TempDir()
	flags := []string{"--bump-revision", "1000000", "--mark-compacted", "--data-dir"}
	for _, name := range []string{"etcd", "taken"} {
		harness.Etcdutl(t, append([]string{"snapshot", "restore", snapshot}, append(flags, filepath.Join(dir, name))...)...)
	}
	mustBasaltctl(t, append([]string{"snapshot", "restore", snapshot}, append(flags, filepath.Join(dir, "basalt"))...)...)

	etcd = harness.Start(t, harness.Options{Kind: harness.Etcd, DataDir: filepath.Join(dir, "etcd")})
	etcd.Etcdctl("put", "behind", "x") // etcd goes on with the compaction that was scheduled when it starts
	want := comingOf(t, etcd, before+1000000)
	if want.head != before+1000001 {
		t.Fatalf("etcd is at %d after %d", want.head, before)
	}
	for _, name := range []string{"basalt", "taken"} {
		server := harness.Start(t, harness.Options{DataDir: filepath.Join(dir, name)})
		server.Etcdctl("put", "behind", "x")
		want.expect(t, server)
		out := filepath.Join(dir, name+".db")
		server.Etcdctl("snapshot", "save", out)
		back := filepath.Join(dir, "back from "+name)
		harness.Etcdutl(t, "snapshot", "restore", out, "--data-dir", back)
		want.expect(t, harness.Start(t, harness.Options{Kind: harness.Etcd, DataDir: back}))
	}
}

// TestRestoreOptions: ids, places and the digest, as etcdutl has them.
func TestRestoreOptions(t *testing.T) {
	if harness.UnderTest(t) != harness.Basalt {
		t.Skip("these are basalt's tools")
	}
	snapshot, etcd := snapshotOf(t, "")
	want := comingOf(t, etcd, 0)
	etcd.Stop()
	dir := t.TempDir()
	members := []string{
		"--name=one", "--initial-cluster=one=http://10.0.0.1:2380,one=http://10.0.0.2:2380",
		"--initial-cluster-token=t", "--initial-advertise-peer-urls=http://10.0.0.2:2380,http://10.0.0.1:2380",
	}
	theirs, ours := filepath.Join(dir, "theirs"), filepath.Join(dir, "ours")
	harness.Etcdutl(t, append([]string{"snapshot", "restore", snapshot, "--data-dir", theirs, "--wal-dir", theirs + ".wal"},
		members...)...)
	mustBasaltctl(t, append([]string{"snapshot", "restore", snapshot, "--data-dir", ours, "--wal-dir", ours + ".wal"},
		members...)...)

	refused := harness.RunToEnd(t, harness.Launch{Args: freshPorts("--data-dir=" + theirs)})
	expectRefused(t, refused, 1, "holds data of etcd", "there is no log of etcd", "--wal-dir")
	refused = harness.RunToEnd(t, harness.Launch{Args: freshPorts("--data-dir="+filepath.Join(dir, "new"), "--wal-dir="+theirs+".wal")})
	expectRefused(t, refused, 1, "holds data of etcd, and the data directory does not")

	ids := map[string]*pb.ResponseHeader{}
	for _, data := range []string{theirs, ours} {
		server := harness.Start(t, harness.Options{DataDir: data, Args: []string{"--wal-dir=" + data + ".wal"}})
		want.expect(t, server)
		ids[data] = everything(t, server).Header
		server.Kill()
		server.Restart()
		want.expect(t, server)
	}
	if ids[theirs].MemberId != ids[ours].MemberId || ids[theirs].ClusterId != ids[ours].ClusterId {
		t.Errorf("ids differ: etcdutl %v, basaltctl %v", ids[theirs], ids[ours])
	}

	content, err := os.ReadFile(snapshot)
	if err != nil {
		t.Fatal(err)
	}
	damaged, bare := filepath.Join(dir, "damaged.db"), filepath.Join(dir, "bare.db")
	for path, bytes := range map[string][]byte{
		damaged: slices.Concat(content[:len(content)-1], []byte{content[len(content)-1] ^ 1}),
		bare:    content[:len(content)-32],
	} {
		if err := os.WriteFile(path, bytes, 0o400); err != nil {
			t.Fatal(err)
		}
	}
	occupied := filepath.Join(dir, "occupied")
	if err := os.MkdirAll(filepath.Join(occupied, "somebody's"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{damaged}, 1, "SHA-256 does not match"},
		{[]string{bare}, 1, "carries no SHA-256"},
		{[]string{filepath.Join(dir, "absent.db")}, 1, "No such file"},
		{[]string{snapshot, "--data-dir=" + occupied}, 1, "is not empty"},
		{[]string{snapshot, "--data-dir=" + ours}, 1, "is not empty"},
		{[]string{snapshot, "--wal-dir=" + occupied}, 1, "is not empty"},
		{[]string{snapshot, "--name=two"}, 1, "couldn't find local name"},
		{[]string{snapshot, "--initial-cluster=default=http://a:1,b=http://a:1"}, 1, "has duplicate url"},
		{[]string{snapshot, "--bump-revision=5"}, 2, "--mark-compacted required"},
		{[]string{snapshot, "--mark-compacted"}, 2, "--mark-compacted required"},
		{[]string{}, 2, "exactly one argument"},
	} {
		fresh := filepath.Join(t.TempDir(), "fresh")
		result := harness.Basaltctl(t, append([]string{"snapshot", "restore", "--data-dir=" + fresh}, c.args...)...)
		if result.Code != c.code || !strings.Contains(result.Stderr, c.says) {
			t.Errorf("basaltctl %v: exit %d, want %d and %q\n%s", c.args, result.Code, c.code, c.says, result.Stderr)
		}
		if _, err := os.Stat(fresh); err == nil {
			t.Errorf("basaltctl %v has made the directory", c.args)
		}
	}
	for n, path := range []string{damaged, bare} {
		data := filepath.Join(dir, fmt.Sprint("unchecked", n))
		mustBasaltctl(t, "snapshot", "restore", path, "--skip-hash-check", "--data-dir", data)
		want.expect(t, harness.Start(t, harness.Options{DataDir: data}))
	}
}

// TestSnapshotStatusAsEtcdutl compares what the two tools print of one file.
func TestSnapshotStatusAsEtcdutl(t *testing.T) {
	if harness.UnderTest(t) != harness.Basalt {
		t.Skip("this is basalt's tool")
	}
	snapshot, _ := snapshotOf(t, "30")
	type status struct {
		Hash, Revision, TotalKey, TotalSize int64
		Version                             string
	}
	theirs := decode[status](t, harness.Etcdutl(t, "snapshot", "status", snapshot, "-w", "json"))
	want := fmt.Sprintf("%x, %d, %d, %d, %s\n", theirs.Hash, theirs.Revision, theirs.TotalKey, theirs.TotalSize, theirs.Version)
	if got := mustBasaltctl(t, "snapshot", "status", snapshot); got != want {
		t.Errorf("basaltctl prints %q, etcdutl would print %q", got, want)
	}
}
