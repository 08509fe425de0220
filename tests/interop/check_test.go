package interop

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"basalt/tests/interop/harness"
)

// TestCheck: `basaltctl check` finds nothing wrong with what nodes leave, however they ended, names each damaged file, and
// changes nothing.
func TestCheck(t *testing.T) {
	if harness.UnderTest(t) != harness.Basalt {
		t.Skip("these are basalt's files")
	}
	server := harness.StartUnderTest(t)
	dir := server.DataDir
	writeHistory(t, server)
	server.Etcdctl("compaction", "40", "--physical")
	server.Etcdctl("put", "leased", "x", "--lease="+strings.Fields(server.Etcdctl("lease", "grant", "5000"))[1])
	if result := harness.Basaltctl(t, "check", dir); result.Code != 2 || !strings.Contains(result.Stderr, "while a node runs on it") {
		t.Errorf("check of a running node: exit %d\n%s%s", result.Code, result.Stdout, result.Stderr)
	}
	sound := func(after string) {
		t.Helper()
		before := treeOf(t, dir)
		result := harness.Basaltctl(t, "check", dir)
		if result.Code != 0 || !strings.Contains(result.Stdout, ": no damage\n") || strings.Contains(result.Stdout, "damage: ") {
			t.Errorf("check after %s: exit %d\n%s%s", after, result.Code, result.Stdout, result.Stderr)
		}
		expectUntouched(t, before, treeOf(t, dir))
	}
	server.Kill()
	sound("a kill")
	server.Restart()
	server.Etcdctl("put", "last", "x")
	server.Stop()
	sound("a stop")

	page := filepath.Join(dir, "pages", "shard-0000000000000001")
	for _, c := range []struct {
		name  string
		spoil func(t *testing.T) (undo func())
		says  []string
	}{
		{"manifest", func(t *testing.T) func() {
			return patchFile(t, filepath.Join(dir, "manifest"), func(content []byte) { content[manifestBodyAt] ^= 1 })
		}, []string{"manifest at byte 0", "CRC mismatch"}},
		{"all manifests", func(t *testing.T) func() {
			return patchFile(t, filepath.Join(dir, "manifest"), func(content []byte) {
				for at := 0; at < len(content); at += manifestSlotBytes {
					content[at+manifestBodyAt] ^= 1
				}
			})
		}, []string{"damage: manifest: ", "no copy of it can be read"}},
		{"run", func(t *testing.T) func() {
			return patchFile(t, aRun(t, dir), func(content []byte) { content[len(content)/2] ^= 1 })
		}, []string{"damage: runs/run-", "is damaged at offset"}},
		{"page", func(t *testing.T) func() {
			return patchFile(t, page, func(content []byte) {
				// Also where a page is free by now: the value of one that counts is among them.
				copy(content, strings.ReplaceAll(string(content), "5858585858", "5858585859"))
			})
		}, []string{"damage: pages/shard-0000000000000001 of shard \"main\": entry Revision", "is corrupt"}},
		{"log", func(t *testing.T) func() {
			segments := segmentsOf(t, dir)
			return patchFile(t, segments[len(segments)-1], func(content []byte) {
				content[segmentBatchesAt+batchLengthAt] ^= 0xff
			})
		}, []string{"damage: wal: log segment", "is corrupt at offset 8192"}},
		{"no page file", func(t *testing.T) func() { return moveAway(t, page) },
			[]string{"damage: pages/shard-0000000000000001 of shard \"main\": ", "No such file"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			undo := c.spoil(t)
			result := harness.Basaltctl(t, "check", dir)
			if result.Code != 1 {
				t.Errorf("exit %d, want 1", result.Code)
			}
			for _, part := range c.says {
				if !strings.Contains(result.Stdout, part) {
					t.Errorf("%q is not in\n%s%s", part, result.Stdout, result.Stderr)
				}
			}
			undo()
			sound("mending")
		})
	}

	empty := t.TempDir()
	for _, none := range []string{empty, filepath.Join(empty, "absent")} {
		if result := harness.Basaltctl(t, "check", none); result.Code != 2 || !strings.Contains(result.Stderr, "cannot check") {
			t.Errorf("check of %s: exit %d\n%s%s", none, result.Code, result.Stdout, result.Stderr)
		}
	}
	if entries, err := os.ReadDir(empty); err != nil || len(entries) != 0 {
		t.Errorf("a check has made %v, %v", entries, err)
	}
}

// TestDamageIsToldWithItsShard reads a value that went bad: the client hears of damage, the log says where.
func TestDamageIsToldWithItsShard(t *testing.T) {
	if harness.UnderTest(t) != harness.Basalt {
		t.Skip("these are basalt's files")
	}
	server := harness.StartUnderTest(t)
	const key, value = "/registry/events/a", "a value that goes bad"
	server.Etcdctl("put", key, value)
	server.Stop()
	patchFile(t, filepath.Join(server.DataDir, "pages", "shard-0000000000000002"), func(content []byte) {
		copy(content, strings.ReplaceAll(string(content), value, "a value that went bad"))
	})
	server.Restart()
	err := get(&pb.RangeRequest{Key: []byte(key)})(harness.Context(t, time.Minute), servicesOf(server.Conn(t)))
	if status.Code(err) != codes.DataLoss {
		t.Errorf("a damaged value: %v", err)
	}
	const says = `"stored data is damaged","error":"reading shard \"events\": entry Revision`
	// The line comes through a pipe of its own.
	for deadline := time.Now().Add(10 * time.Second); !server.LogContains(says) && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	if !server.LogContains(says) {
		t.Errorf("the log lacks %s", says)
	}
}
