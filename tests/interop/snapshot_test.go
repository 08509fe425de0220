package interop

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"basalt/tests/interop/harness"
)

// traffic is writers that go on until stopped, in every shard, with a journal of what they did.
type traffic struct {
	log   *journal
	acks  atomic.Int64
	stop  chan struct{}
	group sync.WaitGroup
}

func startTraffic(t *testing.T, server *harness.Server) *traffic {
	t.Helper()
	traffic := &traffic{log: newJournal(), stop: make(chan struct{})}
	ctx := harness.Context(t, time.Hour) // longer than any test: writers end when they are told
	for n := range writers {
		kv := pb.NewKVClient(server.Conn(t))
		prefix := []string{"/registry/events/w", "/registry/leases/w", "w"}[n%3]
		traffic.group.Go(func() {
			random := rand.New(rand.NewPCG(7, uint64(n)))
			for serial := 0; ; serial++ {
				select {
				case <-traffic.stop:
					return
				default:
				}
				w := write{key: fmt.Sprintf("%s%d/%d", prefix, n, random.IntN(keysPerWriter)), deleted: random.IntN(5) == 0}
				if !w.deleted {
					w.value = fmt.Sprintf("writer %d number %d %s", n, serial, strings.Repeat("x", random.IntN(20_000)))
				}
				if !send(ctx, kv, traffic.log, w) {
					t.Errorf("writer %d was refused", n)
					return
				}
				traffic.acks.Add(1)
			}
		})
	}
	t.Cleanup(traffic.end)
	return traffic
}

// await waits for `more` acknowledged writes from now on.
func (traffic *traffic) await(t *testing.T, more int64) {
	t.Helper()
	ctx, want := harness.Context(t, time.Minute), traffic.acks.Load()+more
	for tick := time.NewTicker(5 * time.Millisecond); traffic.acks.Load() < want; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%d writes were acknowledged, want %d", traffic.acks.Load(), want)
		}
	}
}

func (traffic *traffic) end() {
	select {
	case <-traffic.stop:
	default:
		close(traffic.stop)
	}
	traffic.group.Wait()
}

func (j *journal) newestAcknowledged() int64 {
	j.mutex.Lock()
	defer j.mutex.Unlock()
	return j.newest
}

// TestSnapshotWhileWriting saves snapshots amid writes. Genuine etcd started from each holds one revision whole: what was
// acknowledged before the save began and nothing after that revision.
func TestSnapshotWhileWriting(t *testing.T) {
	server := harness.StartUnderTest(t)
	traffic := startTraffic(t, server)
	dir := t.TempDir()
	type saved struct {
		path           string
		before, during int64
	}
	var snapshots []saved
	for n := range 3 {
		traffic.await(t, 500)
		snapshot := saved{path: filepath.Join(dir, fmt.Sprintf("%d.db", n)), before: traffic.log.newestAcknowledged()}
		acks := traffic.acks.Load()
		server.Etcdctl("snapshot", "save", snapshot.path)
		snapshot.during = traffic.acks.Load() - acks
		snapshots = append(snapshots, snapshot)
	}
	traffic.await(t, 100)
	traffic.end()

	last := int64(0)
	for n, snapshot := range snapshots {
		revision := statusOf(t, snapshot.path).Revision
		if snapshot.during == 0 {
			t.Errorf("snapshot %d: no write was acknowledged while it was saved", n)
		}
		if revision < snapshot.before || revision <= last || revision > traffic.log.newestAcknowledged() {
			t.Errorf("snapshot %d is of revision %d; %d was acknowledged before it, the one before is of %d",
				n, revision, snapshot.before, last)
		}
		last = revision
		restored := filepath.Join(dir, fmt.Sprint("restored", n))
		harness.Etcdutl(t, "snapshot", "restore", snapshot.path, "--data-dir", restored)
		etcd := harness.Start(t, harness.Options{Kind: harness.Etcd, DataDir: restored})
		traffic.log.check(t, watchToHead(t, etcd, 1), revision)

		want, got := everythingAt(t, server, revision), everything(t, etcd)
		if got.Header.Revision != revision {
			t.Errorf("etcd is at revision %d, the snapshot was of %d", got.Header.Revision, revision)
		}
		want.Header, got.Header = nil, nil
		if !proto.Equal(want, got) {
			t.Errorf("revision %d differs: %d keys here, %d in the restored etcd", revision, len(want.Kvs), len(got.Kvs))
		}
		at := "--rev=" + fmt.Sprint(revision)
		if here, there := endpointHashKV(t, server, at), endpointHashKV(t, etcd, at); here.Hash != there.Hash {
			t.Errorf("HashKV at %d is %+v here, %+v in the restored etcd", revision, here, there)
		}
		etcd.Stop()
	}
}
