package interop

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"basalt/tests/interop/harness"
)

const (
	// mebibytesQuick is the size without LARGE_SNAPSHOT_MIB: large against what may be held, small enough for every run.
	mebibytesQuick  = 640
	largeValueBytes = 64 << 10
	// grownMax bounds what a node's memory may grow by meanwhile: the writers' revisions that wait for a checkpoint, and
	// buffers of the snapshot, not its values. toolMemoryMax bounds what a tool takes for a database of any size with few keys.
	grownMax      = (256 + 192) << 20
	toolMemoryMax = 192 << 20
)

// TestLargeSnapshot saves a snapshot while writes go on, restores and checks it, and measures the memory of each.
// LARGE_SNAPSHOT_MIB=5120 makes it 5 GiB; give it `-timeout 60m` and three times the space.
func TestLargeSnapshot(t *testing.T) {
	if harness.UnderTest(t) != harness.Basalt {
		t.Skip("it measures basalt")
	}
	mebibytes := mebibytesQuick
	if text := os.Getenv("LARGE_SNAPSHOT_MIB"); text != "" {
		var err error
		if mebibytes, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	harness.SetToolTimeout(t, time.Minute+time.Duration(mebibytes)*time.Second)
	server := harness.StartUnderTest(t, fmt.Sprintf("--quota-backend-bytes=%d", int64(mebibytes+4096)<<20))
	putLarge(t, server, mebibytes)
	traffic := startTraffic(t, server)
	traffic.await(t, 100)

	snapshot := filepath.Join(t.TempDir(), "large.db")
	before, acks := server.Memory(), traffic.acks.Load()
	server.ForgetPeakMemory()
	started := time.Now()
	server.Etcdctl("snapshot", "save", snapshot)
	took, grown := time.Since(started), server.PeakMemory()-before
	during := traffic.acks.Load() - acks
	traffic.end()
	info, err := os.Stat(snapshot)
	if err != nil {
		t.Fatal(err)
	}
	status := statusOf(t, snapshot)
	t.Logf("snapshot of %d MiB in %v: %d writes meanwhile, memory from %d to at most %d MiB",
		info.Size()>>20, took.Round(time.Millisecond), during, before>>20, (before+grown)>>20)
	if during == 0 || info.Size() < int64(mebibytes)<<20 {
		t.Errorf("%d writes while a file of %d bytes was saved", during, info.Size())
	}
	if grown > grownMax {
		t.Errorf("the snapshot took %d MiB of memory", grown>>20)
	}
	hash := endpointHashOf(t, server, status.Revision)
	server.Stop()

	restored := filepath.Join(t.TempDir(), "restored")
	for _, args := range [][]string{{"snapshot", "restore", snapshot, "--data-dir", restored}, {"check", restored}} {
		started := time.Now()
		result := harness.Basaltctl(t, args...)
		if result.Code != 0 {
			t.Fatalf("basaltctl %v: exit %d\n%s%s", args, result.Code, result.Stdout, result.Stderr)
		}
		t.Logf("basaltctl %s: %v, at most %d MiB of memory", args[0], time.Since(started).Round(time.Millisecond),
			result.PeakMemory>>20)
		if result.PeakMemory > toolMemoryMax {
			t.Errorf("basaltctl %s took %d MiB of memory", args[0], result.PeakMemory>>20)
		}
	}
	again := harness.Start(t, harness.Options{DataDir: restored})
	if now := endpointHashOf(t, again, status.Revision); now != hash {
		t.Errorf("HashKV at %d is %d after the restore, was %d", status.Revision, now, hash)
	}
}

// putLarge puts so many MiB of values that do not compress.
func putLarge(t *testing.T, server *harness.Server, mebibytes int) {
	t.Helper()
	ctx := harness.Context(t, time.Minute+time.Duration(mebibytes)*time.Second)
	var next atomic.Int64
	var group sync.WaitGroup
	for n := range 8 {
		kv := pb.NewKVClient(server.Conn(t))
		group.Go(func() {
			random := rand.NewChaCha8([32]byte{byte(n)})
			value := make([]byte, largeValueBytes)
			for {
				number := next.Add(1)
				if number > int64(mebibytes)<<20/largeValueBytes {
					return
				}
				_, _ = random.Read(value)
				if _, err := kv.Put(ctx, &pb.PutRequest{Key: fmt.Appendf(nil, "/registry/large/%08d", number), Value: value}); err != nil {
					t.Errorf("put %d: %v", number, err)
					return
				}
			}
		})
	}
	group.Wait()
	if t.Failed() {
		t.FailNow()
	}
}
