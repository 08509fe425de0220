package interop

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"

	"basalt/tests/interop/harness"
)

// TestNotTakenOver: what etcd ran on and what it runs on is left as it is.
func TestNotTakenOver(t *testing.T) {
	if harness.UnderTest(t) != harness.Basalt {
		t.Skip("genuine etcd takes its own directory")
	}
	snapshot, etcd := snapshotOf(t, "")
	etcd.Stop()
	dir := t.TempDir()

	used := filepath.Join(dir, "used")
	harness.Etcdutl(t, "snapshot", "restore", snapshot, "--data-dir", used)
	running := harness.Start(t, harness.Options{Kind: harness.Etcd, DataDir: used})
	launch := harness.Launch{Args: freshPorts("--data-dir=" + used)}
	expectRefused(t, harness.RunToEnd(t, launch), 1, "holds data of etcd")
	running.Stop()
	before := treeOf(t, used)
	expectRefused(t, harness.RunToEnd(t, launch), 1, "etcd has run on this directory", "`etcdctl snapshot save FILE`",
		"basaltctl snapshot restore FILE")
	expectUntouched(t, before, treeOf(t, used))

	inside := filepath.Join(dir, "inside")
	harness.Etcdutl(t, "snapshot", "restore", snapshot, "--data-dir", inside)
	launch = harness.Launch{Args: freshPorts("--data-dir="+inside, "--wal-dir="+filepath.Join(inside, "member", "wal"))}
	expectRefused(t, harness.RunToEnd(t, launch), 1, "the --wal-dir lies inside `member`")

	// A restore that did not come to its end is no data, and no empty directory either.
	interrupted := filepath.Join(dir, "interrupted")
	mustBasaltctl(t, "snapshot", "restore", snapshot, "--data-dir", interrupted)
	if err := os.Remove(filepath.Join(interrupted, "member")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(interrupted, "importing"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	launch = harness.Launch{Args: freshPorts("--data-dir=" + interrupted)}
	expectRefused(t, harness.RunToEnd(t, launch), 1, "a restore that was interrupted", "basaltctl snapshot restore")
	if result := harness.Basaltctl(t, "check", interrupted); result.Code != 2 || !strings.Contains(result.Stderr, "interrupted") {
		t.Errorf("check of an interrupted restore: exit %d\n%s", result.Code, result.Stderr)
	}
	mustBasaltctl(t, "snapshot", "restore", snapshot, "--data-dir", interrupted)
	harness.Start(t, harness.Options{DataDir: interrupted})
}

// TestShapesOfDatabases imports one content in files of other page sizes, with and without a list of free pages, and with
// one of the two first pages lost.
func TestShapesOfDatabases(t *testing.T) {
	if harness.UnderTest(t) != harness.Basalt {
		t.Skip("this is basalt's reader")
	}
	snapshot, etcd := snapshotOf(t, "30")
	want := comingOf(t, etcd, 30)
	etcd.Stop()
	dir := t.TempDir()
	source, err := bolt.Open(snapshot, 0o600, &bolt.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	shapes := map[string]string{}
	for _, pageSize := range []int{1024, 4096, 16384, 65536} {
		for _, noFreelist := range []bool{false, true} {
			name := fmt.Sprintf("pages of %d, no list of free pages %v", pageSize, noFreelist)
			path := filepath.Join(dir, name)
			shape, err := bolt.Open(path, 0o600, &bolt.Options{PageSize: pageSize, NoFreelistSync: noFreelist})
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(bolt.Compact(shape, source, 4096), shape.Close()); err != nil {
				t.Fatal(err)
			}
			shapes[name] = path
		}
	}
	source.Close()
	// The newer of the two is the one that bbolt takes; without it the file is as it was one transaction before.
	for page := range 2 {
		content, err := os.ReadFile(snapshot)
		if err != nil {
			t.Fatal(err)
		}
		clear(content[page*4096 : page*4096+4096])
		path := filepath.Join(dir, fmt.Sprint("lost ", page))
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		shapes["lost page "+fmt.Sprint(page)] = path
	}
	for name, path := range shapes {
		t.Run(name, func(t *testing.T) {
			data := filepath.Join(t.TempDir(), "data")
			mustBasaltctl(t, "snapshot", "restore", path, "--skip-hash-check", "--data-dir", data)
			want.expect(t, harness.Start(t, harness.Options{DataDir: data}))
			if result := harness.Basaltctl(t, "check", data); result.Code != 2 {
				t.Errorf("a check beside the node ends with %d", result.Code)
			}
		})
	}
}

// TestKilledTakeover kills starts on a restored directory at whatever they have come to: etcd's tree is as it was, or the
// import is whole.
func TestKilledTakeover(t *testing.T) {
	if harness.UnderTest(t) != harness.Basalt {
		t.Skip("genuine etcd takes its own directory")
	}
	snapshot, etcd := snapshotOf(t, "30")
	want := comingOf(t, etcd, 30)
	etcd.Stop()
	for _, sign := range []string{
		"lock", "importing", "pages/shard-*", "manifest", "runs/run-*", "member.imported-*", "reserve", "wal/*.wal",
	} {
		t.Run(sign, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "data")
			harness.Etcdutl(t, "snapshot", "restore", snapshot, "--data-dir", dir)
			member := filepath.Join(dir, "member")
			before := treeOf(t, member)
			harness.KillAt(t, harness.Launch{Args: freshPorts("--data-dir=" + dir)}, filepath.Join(dir, sign))
			if info, err := os.Lstat(member); err != nil {
				t.Fatalf("there is no member: %v", err)
			} else if info.IsDir() {
				expectUntouched(t, before, treeOf(t, member))
			}
			want.expect(t, harness.Start(t, harness.Options{DataDir: dir}))
			expectOldTree(t, dir)
		})
	}
}
