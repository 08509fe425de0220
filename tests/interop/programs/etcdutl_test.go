package programs

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"basalt/tests/interop/harness"
)

// savedHistory is a snapshot of one history: versions, deletions and a compaction, with no lease, whose id would differ.
func savedHistory(t *testing.T, kind harness.Kind) string {
	t.Helper()
	server := harness.Start(t, harness.Options{Kind: kind})
	for n := range 60 {
		put(t, server, "/registry/"+[]string{"events", "leases", "pods"}[n%3]+"/"+strconv.Itoa(n%20), strconv.Itoa(n))
	}
	server.Etcdctl("del", "--prefix", "/registry/leases/1")
	server.Etcdctl("compaction", "40", "--physical")
	server.Etcdctl("role", "add", "reader")
	path := filepath.Join(t.TempDir(), "saved.db")
	server.Etcdctl("snapshot", "save", path)
	return path
}

// TestEtcdutl tries all of etcdutl on a snapshot of the server under test, beside one of genuine etcd with the same history.
func TestEtcdutl(t *testing.T) {
	etcd, tested := savedHistory(t, harness.Etcd), savedHistory(t, harness.UnderTest(t))
	t.Run("commands", func(t *testing.T) {
		t.Run("status", func(t *testing.T) { snapshotStatus(t, copyOf(t, etcd), copyOf(t, tested)) })
		t.Run("hashkv", func(t *testing.T) { hashOfFile(t, copyOf(t, etcd), copyOf(t, tested)) })
		t.Run("restore", func(t *testing.T) { restoreWithEverything(t, copyOf(t, tested)) })
		t.Run("migrate and defrag", func(t *testing.T) { migrateRestored(t, copyOf(t, tested)) })
		t.Run("damaged", func(t *testing.T) { damagedSnapshot(t, copyOf(t, tested)) })
		t.Run("version", func(t *testing.T) {
			if text := harness.Etcdutl(t, "version"); !strings.Contains(text, "etcdutl version: 3.7.3") {
				t.Errorf("version: %s", text)
			}
			for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
				harness.Etcdutl(t, "completion", shell)
			}
			harness.Etcdutl(t, "help")
		})
	})
	if !t.Failed() && !filtered() {
		expectAllDone(t, "etcdutl", nil)
	}
}

// copyOf is what a test may have for itself: etcdutl writes to a file of which it is to tell a hash.
func copyOf(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	own := filepath.Join(t.TempDir(), "own.db")
	if err := os.WriteFile(own, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return own
}

func snapshotStatus(t *testing.T, etcd, tested string) {
	type status struct {
		Hash, Revision, TotalKey, TotalSize int64
		Version                             string
	}
	var answers [2]status
	for n, path := range []string{etcd, tested} {
		if err := json.Unmarshal([]byte(harness.Etcdutl(t, "snapshot", "status", path, "-w", "json")), &answers[n]); err != nil {
			t.Fatal(err)
		}
		// Of a file's layout.
		answers[n].Hash, answers[n].TotalSize = 0, 0
	}
	if answers[0] != answers[1] {
		t.Errorf("snapshot status: genuine etcd %+v, here %+v", answers[0], answers[1])
	}
	for _, format := range []string{"simple", "table", "fields"} {
		if text := harness.Etcdutl(t, "snapshot", "status", tested, "-w", format); !strings.Contains(text, "3.7.0") {
			t.Errorf("snapshot status -w %s: %s", format, text)
		}
	}
}

func hashOfFile(t *testing.T, etcd, tested string) {
	for _, flags := range [][]string{nil, {"--rev=50"}, {"-w", "json"}, {"--rev=41", "-w", "table"}, {"-w", "fields"}} {
		want := harness.Etcdutl(t, append([]string{"hashkv", etcd}, flags...)...)
		got := harness.Etcdutl(t, append([]string{"hashkv", tested, "--timeout=20s"}, flags...)...)
		if want != got {
			t.Errorf("hashkv %v: genuine etcd %s, here %s", flags, want, got)
		}
	}
}

// restoreWithEverything restores with every flag, and genuine etcd serves what it makes.
func restoreWithEverything(t *testing.T, tested string) {
	dir := t.TempDir()
	before := decodeStatus(t, copyOf(t, tested))
	restored, peer := filepath.Join(dir, "data"), "http://127.0.0.1:"+strconv.Itoa(harness.FreePort(t))
	harness.Etcdutl(t, "snapshot", "restore", tested, "--data-dir="+restored, "--wal-dir="+filepath.Join(dir, "wal"), "--name=one",
		"--initial-cluster=one="+peer, "--initial-cluster-token=token", "--initial-advertise-peer-urls="+peer,
		"--initial-memory-map-size=1000000", "--bump-revision=1000", "--mark-compacted")
	client := "http://127.0.0.1:" + strconv.Itoa(harness.FreePort(t))
	server := harness.Start(t, harness.Options{Kind: harness.Etcd, Endpoint: client, Line: []string{
		"--name=one", "--data-dir=" + restored, "--wal-dir=" + filepath.Join(dir, "wal"), "--listen-peer-urls=" + peer,
		"--initial-advertise-peer-urls=" + peer, "--initial-cluster=one=" + peer, "--initial-cluster-token=token",
		"--listen-client-urls=" + client, "--advertise-client-urls=" + client,
	}})
	answer, err := server.Client(t).Get(harness.Context(t, waitMax), "/registry/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	if answer.Header.Revision != before+1000 || answer.Count != 49 {
		t.Errorf("restored at %d with %d keys, the snapshot was at %d", answer.Header.Revision, answer.Count, before)
	}
	expectText(t, "roles", server.Etcdctl("role", "list"), "reader")

	unchecked := filepath.Join(dir, "unchecked")
	content, err := os.ReadFile(tested)
	if err != nil {
		t.Fatal(err)
	}
	bare := filepath.Join(dir, "bare.db")
	if err := os.WriteFile(bare, content[:len(content)-32], 0o600); err != nil { // without the digest at its end
		t.Fatal(err)
	}
	harness.Etcdutl(t, "snapshot", "restore", bare, "--skip-hash-check", "--data-dir="+unchecked)
	if got, want := harness.Etcdutl(t, "hashkv", filepath.Join(unchecked, "member", "snap", "db")), harness.Etcdutl(t, "hashkv", copyOf(t, tested)); got != want {
		t.Errorf("the hash was %s and is %s", want, got)
	}
}

func decodeStatus(t *testing.T, path string) int64 {
	t.Helper()
	var status struct{ Revision int64 }
	if err := json.Unmarshal([]byte(harness.Etcdutl(t, "snapshot", "status", path, "-w", "json")), &status); err != nil {
		t.Fatal(err)
	}
	return status.Revision
}

// migrateRestored brings a restored directory to the storage version before and back.
func migrateRestored(t *testing.T, tested string) {
	restored := filepath.Join(t.TempDir(), "data")
	harness.Etcdutl(t, "snapshot", "restore", tested, "--data-dir="+restored)
	file := filepath.Join(restored, "member", "snap", "db")
	hash := harness.Etcdutl(t, "hashkv", file)
	harness.Etcdutl(t, "defrag", "--data-dir="+restored)
	harness.Etcdutl(t, "migrate", "--data-dir="+restored, "--target-version=3.6")
	if text := harness.Etcdutl(t, "snapshot", "status", file, "-w", "fields"); !strings.Contains(text, "3.6.0") {
		t.Errorf("after the migration: %s", text)
	}
	harness.Etcdutl(t, "migrate", "--data-dir="+restored, "--target-version=3.7", "--force")
	if again := harness.Etcdutl(t, "hashkv", file); again != hash {
		t.Errorf("the hash was %s and is %s", hash, again)
	}
}

// damagedSnapshot: the digest at the end of a snapshot is one that etcdutl checks.
func damagedSnapshot(t *testing.T, tested string) {
	content, err := os.ReadFile(tested)
	if err != nil {
		t.Fatal(err)
	}
	content = slices.Clone(content)
	content[len(content)-33] ^= 1
	path := filepath.Join(t.TempDir(), "damaged.db")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	refused := harness.EtcdutlResult(t, "snapshot", "restore", path, "--data-dir="+filepath.Join(t.TempDir(), "data"))
	if refused.Code == 0 || !strings.Contains(refused.Stderr, "expected sha256") {
		t.Errorf("restore of a damaged snapshot: %+v", refused)
	}
}
