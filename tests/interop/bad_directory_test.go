package interop

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/protobuf/proto"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"basalt/tests/interop/harness"
)

// treesOf is every file at or below `roots` with the hash of its content.
func treesOf(t *testing.T, roots []string) map[string]string {
	t.Helper()
	trees := map[string]string{}
	for _, root := range roots {
		err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			content, err := os.ReadFile(path)
			trees[path] = fmt.Sprintf("%x", sha256.Sum256(content))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return trees
}

func treeOf(t *testing.T, dir string) map[string]string {
	t.Helper()
	return treesOf(t, []string{dir})
}

// expectUntouched compares files with what they were.
func expectUntouched(t *testing.T, before, after map[string]string) {
	t.Helper()
	if maps.Equal(before, after) {
		return
	}
	for path, hash := range before {
		if after[path] != hash {
			t.Errorf("the refused start has changed or removed %s", path)
		}
	}
	for path := range after {
		if _, was := before[path]; !was {
			t.Errorf("the refused start has made %s", path)
		}
	}
}

// contents is all that a client can see of a store.
type contents struct {
	keys *pb.RangeResponse
	hash hashKV
}

func contentsOf(t *testing.T, server *harness.Server) contents {
	t.Helper()
	keys := everything(t, server)
	keys.Header = &pb.ResponseHeader{Revision: keys.Header.Revision}
	return contents{keys, endpointHashKV(t, server)}
}

func (c contents) expectSame(t *testing.T, server *harness.Server) {
	t.Helper()
	now := contentsOf(t, server)
	if !proto.Equal(c.keys, now.keys) || c.hash != now.hash {
		t.Fatalf("revision %d with %d keys and %+v became revision %d with %d keys and %+v",
			c.keys.Header.Revision, len(c.keys.Kvs), c.hash, now.keys.Header.Revision, len(now.keys.Kvs), now.hash)
	}
}

// spoiled is a data directory that must be refused as it is.
type spoiled struct {
	name string
	// spoil changes the directory and gives back what undoes that.
	spoil func(t *testing.T, dir string) (undo func())
	says  []string
	// logMoves says that the log was opened before something else was found: its last batch then stands in a segment
	// more.
	logMoves bool
}

// TestSpoiledDirectory makes a good directory newer than the release, another's, or damaged: it is refused and left as
// it is, and once it is as before, everything is there.
func TestSpoiledDirectory(t *testing.T) {
	if harness.UnderTest(t) != harness.Basalt {
		t.Skip("these are basalt's files")
	}
	server := harness.StartUnderTest(t)
	writeHistory(t, server)
	server.Stop() // with a checkpoint: there are runs now
	oldManifest, err := os.ReadFile(filepath.Join(server.DataDir, "manifest"))
	if err != nil {
		t.Fatal(err)
	}
	server.Restart()
	server.Etcdctl("put", "between", "checkpoints")
	server.Stop()
	server.Restart()
	server.Etcdctl("put", "behind", "the last checkpoint")
	want := contentsOf(t, server)
	server.Kill()

	stranger := harness.StartUnderTest(t)
	stranger.Etcdctl("put", "a", "1")
	stranger.Kill()

	newest := func(t *testing.T, dir string) string {
		segments := segmentsOf(t, dir)
		return segments[len(segments)-1]
	}
	startNewer := "start the release that wrote it"
	for _, c := range []spoiled{
		{name: "newer manifest", spoil: func(t *testing.T, dir string) func() {
			return patchManifest(t, dir, func(header []byte) { header[manifestVersionAt]++ })
		}, says: []string{"the manifest has version 2", startNewer}},
		{name: "manifest with an unknown feature", spoil: func(t *testing.T, dir string) func() {
			return patchManifest(t, dir, func(header []byte) { header[manifestFeaturesAt] |= 2 })
		}, says: []string{"the manifest has version 1 and features 0x2", startNewer}},
		{name: "newer log", spoil: func(t *testing.T, dir string) func() {
			return patchSegment(t, newest(t, dir), func(head []byte) { head[segmentVersionAt]++ })
		}, says: []string{"log segment", "format version 2", startNewer}},
		{name: "log with an unknown feature", spoil: func(t *testing.T, dir string) func() {
			return patchSegment(t, newest(t, dir), func(head []byte) { head[segmentFeaturesAt] |= 1 })
		}, says: []string{"log segment", "features 0x1", startNewer}},
		{name: "newer run", spoil: func(t *testing.T, dir string) func() {
			return patchRun(t, aRun(t, dir), func(header []byte) { header[runVersionAt]++ })
		}, says: []string{"run ", "version 2", startNewer}},
		{name: "run with an unknown feature", spoil: func(t *testing.T, dir string) func() {
			return patchRun(t, aRun(t, dir), func(header []byte) { header[runFeaturesAt] |= 1 })
		}, says: []string{"run ", "features 0x1", startNewer}},
		{name: "damaged run", spoil: func(t *testing.T, dir string) func() {
			return patchFile(t, aRun(t, dir), func(content []byte) { content[len(content)/2] ^= 1 })
		}, says: []string{"run ", "is damaged at offset", "restore a snapshot"}},
		{name: "no run", spoil: func(t *testing.T, dir string) func() { return moveAway(t, aRun(t, dir)) },
			says: []string{"runs/run-", "No such file", "restore a snapshot"}},
		{name: "damaged manifest", spoil: func(t *testing.T, dir string) func() {
			return patchFile(t, filepath.Join(dir, "manifest"), func(content []byte) {
				for at := 0; at < len(content); at += manifestSlotBytes {
					content[at+manifestBodyAt] ^= 1
				}
			})
		}, says: []string{"all copies of the manifest are damaged", "restore a snapshot"}},
		{name: "no manifest", spoil: func(t *testing.T, dir string) func() { return moveAway(t, filepath.Join(dir, "manifest")) },
			says: []string{"manifest", "restore a snapshot"}},
		{name: "older manifest", spoil: func(t *testing.T, dir string) func() {
			return patchFile(t, filepath.Join(dir, "manifest"), func(content []byte) { copy(content, oldManifest) })
		}, says: []string{"the manifest was lost", "restore a snapshot"}, logMoves: true},
		{name: "damaged log", spoil: func(t *testing.T, dir string) func() {
			return patchFile(t, newest(t, dir), func(content []byte) { content[segmentBatchesAt+batchLengthAt] ^= 0xff })
		}, says: []string{"log segment", "is corrupt at offset 8192", "restore a snapshot"}},
		{name: "no log", spoil: func(t *testing.T, dir string) func() { return moveAway(t, filepath.Join(dir, "wal")) },
			says: []string{"there is no log", "--wal-dir"}},
		{name: "log of another member", spoil: func(t *testing.T, dir string) func() {
			undo := moveAway(t, filepath.Join(dir, "wal"))
			if err := os.CopyFS(filepath.Join(dir, "wal"), os.DirFS(filepath.Join(stranger.DataDir, "wal"))); err != nil {
				t.Fatal(err)
			}
			return func() {
				if err := os.RemoveAll(filepath.Join(dir, "wal")); err != nil {
					t.Fatal(err)
				}
				undo()
			}
		}, says: []string{"log belongs to", "--wal-dir"}},
		{name: "no page file", spoil: func(t *testing.T, dir string) func() {
			return moveAway(t, filepath.Join(dir, "pages", "shard-0000000000000001"))
		}, says: []string{"pages/shard-0000000000000001", "No such file", "restore a snapshot"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			undo := c.spoil(t, server.DataDir)
			untouched := []string{server.DataDir}
			if c.logMoves {
				untouched = []string{
					filepath.Join(server.DataDir, "manifest"), filepath.Join(server.DataDir, "pages"), filepath.Join(server.DataDir, "runs"),
				}
			}
			before := treesOf(t, untouched)
			expectRefused(t, server.RefusedRestart(), 1, c.says...)
			expectUntouched(t, before, treesOf(t, untouched))
			undo()
			server.Restart()
			want.expectSame(t, server)
			server.Kill()
		})
	}
}

// aRun is one that the manifest names: those of a stopped server all are.
func aRun(t *testing.T, dir string) string {
	t.Helper()
	runs, err := filepath.Glob(filepath.Join(dir, "runs", "run-*"))
	if err != nil || len(runs) == 0 {
		t.Fatalf("runs: %v, %v", runs, err)
	}
	return runs[len(runs)-1]
}

func moveAway(t *testing.T, path string) (undo func()) {
	t.Helper()
	aside := filepath.Join(t.TempDir(), filepath.Base(path))
	if err := os.Rename(path, aside); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := os.Rename(aside, path); err != nil {
			t.Fatal(err)
		}
	}
}

// TestLockedDirectory starts a second process on the directory of one that runs, which goes on.
func TestLockedDirectory(t *testing.T) {
	if harness.UnderTest(t) != harness.Basalt {
		t.Skip("genuine etcd waits for its lock")
	}
	server := harness.StartUnderTest(t)
	server.Etcdctl("put", "a", "1")
	end := harness.RunToEnd(t, harness.Launch{Args: freshPorts("--data-dir=" + server.DataDir)})
	expectRefused(t, end, 1, "in use by another process", "stop the other process, or choose another --data-dir")
	server.Etcdctl("put", "b", "2")
	want := contentsOf(t, server)
	server.Kill()
	server.Restart()
	want.expectSame(t, server)
}

// freshPorts adds ports that nobody has to a command line.
func freshPorts(args ...string) []string {
	return append(args, "--listen-client-urls=http://127.0.0.1:0", "--advertise-client-urls=http://127.0.0.1:1",
		"--listen-peer-urls=http://127.0.0.1:0")
}

// TestDirectoryOfEtcd: basalt does not start empty beside etcd's data, and leaves it as it is.
func TestDirectoryOfEtcd(t *testing.T) {
	if harness.UnderTest(t) != harness.Basalt {
		t.Skip("genuine etcd takes its own directory")
	}
	etcd := harness.Start(t, harness.Options{Kind: harness.Etcd})
	etcd.Etcdctl("put", "a", "1")
	etcd.Stop()
	before := treeOf(t, etcd.DataDir)
	end := harness.RunToEnd(t, harness.Launch{Args: freshPorts("--data-dir=" + etcd.DataDir)})
	expectRefused(t, end, 1, etcd.DataDir, "holds data of etcd", "choose another --data-dir")
	expectUntouched(t, before, treeOf(t, etcd.DataDir))
	etcd.Restart()
	expectText(t, "get", etcd.Etcdctl("get", "a"), "a", "1")
}

// TestDirectoryOfSomebody starts in a directory full of other files, to which others come later: they stay what they are.
func TestDirectoryOfSomebody(t *testing.T) {
	dir := t.TempDir()
	somebodys := map[string]string{}
	add := func(names ...string) {
		t.Helper()
		for _, name := range names {
			path := filepath.Join(dir, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte("somebody's "+name), 0o600); err != nil {
				t.Fatal(err)
			}
			somebodys[path] = treeOf(t, path)[path]
		}
	}
	add("letter.txt", "photos/one.jpg", "lost+found/x")
	server := harness.Start(t, harness.Options{DataDir: dir})
	writeHistory(t, server)
	want := contentsOf(t, server)
	for _, later := range []string{"runs/notes", "pages/of/a/book", "wal/paper.txt", "wal/0001.wal"} {
		server.Stop()
		add(later)
		server.Restart()
		want.expectSame(t, server)
	}
	after := treeOf(t, dir)
	for path, hash := range somebodys {
		if after[path] != hash {
			t.Errorf("%s is not what it was", path)
		}
	}
}

// TestDirectoryThatIsNone: a file where a directory should be, and one below a file.
func TestDirectoryThatIsNone(t *testing.T) {
	if harness.UnderTest(t) != harness.Basalt {
		t.Skip("genuine etcd serves on, or waits")
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("somebody's"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, args := range map[string][]string{
		"data directory":        {"--data-dir=" + file},
		"below a file":          {"--data-dir=" + filepath.Join(file, "below")},
		"directory for the log": {"--data-dir=" + filepath.Join(t.TempDir(), "data"), "--wal-dir=" + file},
	} {
		t.Run(name, func(t *testing.T) {
			expectRefused(t, harness.RunToEnd(t, harness.Launch{Args: freshPorts(args...)}), 1, file,
				"check that it exists, belongs to this user and has space")
			if content, err := os.ReadFile(file); err != nil || string(content) != "somebody's" {
				t.Errorf("the file is now %q, %v", content, err)
			}
		})
	}
}
