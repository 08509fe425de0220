package interop

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"basalt/tests/interop/harness"
)

const (
	// tracedCalls are all that change files or names, and all that send.
	tracedCalls = "openat,mkdir,mkdirat,rename,renameat,renameat2,unlink,unlinkat,write,writev,pwrite64,pwritev," +
		"fsync,fdatasync,sendto,sendmsg"
	markedWriters = 8
	// markedBytes of each value: a batch of all writers is shown whole by strace.
	markedBytes = 700
)

// markedPuts counts the values that each writer has sent and that were acknowledged.
type markedPuts struct {
	// life of the server, which tells its writers from those before.
	life               int
	mutex              sync.Mutex
	sent, acknowledged [markedWriters]int
}

func (p *markedPuts) acks() int {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	sum := 0
	for _, count := range p.acknowledged {
		sum += count
	}
	return sum
}

func (p *markedPuts) note(counts *[markedWriters]int, n int) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	counts[n]++
}

// writer names one, with two digits of which the first is the life.
func (p *markedPuts) writer(n int) string { return fmt.Sprintf("%d%d", p.life, n) }

// write lets all writers put values with markers, each one after the other to its own key, until a put fails.
func (p *markedPuts) write(ctx context.Context, t *testing.T, server *harness.Server) *sync.WaitGroup {
	t.Helper()
	var group sync.WaitGroup
	for n := range markedWriters {
		kv := pb.NewKVClient(server.Conn(t))
		key := []string{"/registry/events/w", "/registry/leases/w", "w"}[n%3] + p.writer(n)
		group.Go(func() {
			for {
				p.note(&p.sent, n)
				value := markerOf(p.writer(n), p.sent[n]) + strings.Repeat("x", markedBytes)
				request := &pb.PutRequest{Key: []byte(key), Value: []byte(value), PrevKv: true}
				if _, err := kv.Put(ctx, request); err != nil {
					return
				}
				p.note(&p.acknowledged, n)
			}
		})
	}
	return &group
}

// expect looks whether each writer's value is its last acknowledged one, or the one that was in flight.
func (p *markedPuts) expect(t *testing.T, server *harness.Server) {
	t.Helper()
	found := map[string]string{}
	for _, kv := range everything(t, server).Kvs {
		key := string(kv.Key)
		found[key[len(key)-2:]] = string(kv.Value)
	}
	for n := range markedWriters {
		writer := p.writer(n)
		value, acknowledged := found[writer], p.acknowledged[n]
		isLast := strings.HasPrefix(value, markerOf(writer, acknowledged))
		inFlight := p.sent[n] > acknowledged && strings.HasPrefix(value, markerOf(writer, acknowledged+1))
		if (acknowledged > 0 || value != "") && !isLast && !inFlight {
			t.Errorf("writer %s: %d acknowledged, %d sent, found %.20q", writer, acknowledged, p.sent[n], value)
		}
	}
}

// TestNothingIsAcknowledgedBeforeItIsDurable looks at the system calls of a server under load: every answer to a put
// begins after a sync of its bytes has ended, every new name on the way to them was synced before, and so was all that a
// manifest names. The load goes on for two checkpoints and a full segment of the log; then kill -9, and the same for the
// start after it. All of it once more with the log in a directory of its own.
func TestNothingIsAcknowledgedBeforeItIsDurable(t *testing.T) {
	t.Parallel()
	if harness.UnderTest(t) != harness.Basalt {
		t.Skip("it knows the files of basalt")
	}
	t.Run("one directory", func(t *testing.T) { expectDurableAnswers(t) })
	t.Run("wal-dir", func(t *testing.T) { expectDurableAnswers(t, filepath.Join(t.TempDir(), "log")) })
}

// expectDurableAnswers runs a server with its log in `logDirs`, if that has one, and judges two lives.
func expectDurableAnswers(t *testing.T, logDirs ...string) {
	dataDir := filepath.Join(t.TempDir(), "parent", "data")
	if err := os.Mkdir(filepath.Dir(dataDir), 0o700); err != nil {
		t.Fatal(err)
	}
	var args []string
	for _, logDir := range logDirs {
		args = append(args, "--wal-dir="+logDir)
	}
	newest := func() string {
		segments := segmentsOf(t, append([]string{dataDir}, logDirs...)[len(logDirs)])
		return segments[len(segments)-1]
	}
	trace, order := harness.NewStrace(t, tracedCalls), newDiskOrder(t, dataDir, logDirs...)
	server := harness.Start(t, harness.Options{DataDir: dataDir, Args: args, Wrapper: trace.Wrapper})
	ctx := harness.Context(t, 3*time.Minute)
	for life := range 2 {
		puts := &markedPuts{life: life}
		order.life = fmt.Sprint(life)
		group := puts.write(ctx, t, server)
		segment := newest()
		await(t, ctx, "two checkpoints, a full segment and many writes", func() bool {
			busy := puts.acks() > 400 && checkpoints(t, server) >= 2
			return busy && (life > 0 || newest() != segment)
		})
		server.Kill()
		group.Wait()
		order.judge(parseStrace(t, trace.Lines()))
		t.Logf("life %d: %d answers, %d manifests, %d files made, %d renamed, %d segments judged",
			life, order.answers, order.manifests, order.creations, order.renames, len(order.segments))
		if order.answers < 300 || order.manifests < 4 || order.creations < 5 {
			t.Fatal("too little was judged")
		}
		// Whatever was not durable lives in the cache of the system: the next start makes it so, or it does not count.
		trace, order = harness.NewStrace(t, tracedCalls), newDiskOrder(t, dataDir, logDirs...)
		server.Wrap(trace.Wrapper)
		server.Restart()
		puts.expect(t, server)
	}
}

// TestImportsAreDurable looks at the system calls of both ways in: `basaltctl snapshot restore`, and a start on what etcdutl
// restored. When data begins to count, and at the end, every name and every byte has a sync behind it.
func TestImportsAreDurable(t *testing.T) {
	if harness.UnderTest(t) != harness.Basalt {
		t.Skip("it knows the files of basalt")
	}
	snapshot, etcd := snapshotOf(t, "30")
	want := comingOf(t, etcd, 30)
	etcd.Stop()
	for _, c := range []struct {
		name string
		run  func(t *testing.T, dataDir, logDir string, trace *harness.Strace)
		// imports is how many instants there are at which data begins to count.
		imports int
	}{
		{"restore", func(t *testing.T, dataDir, logDir string, trace *harness.Strace) {
			args := []string{"snapshot", "restore", snapshot, "--data-dir", dataDir, "--wal-dir", logDir}
			if result := trace.Basaltctl(args...); result.Code != 0 {
				t.Fatalf("exit %d: %s", result.Code, result.Stderr)
			}
		}, 1},
		{"takeover", func(t *testing.T, dataDir, logDir string, trace *harness.Strace) {
			args := []string{"--wal-dir=" + logDir}
			harness.Start(t, harness.Options{DataDir: dataDir, Args: args, Wrapper: trace.Wrapper}).Stop()
		}, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			dataDir, logDir := filepath.Join(t.TempDir(), "data"), filepath.Join(t.TempDir(), "log")
			if c.name == "takeover" {
				harness.Etcdutl(t, "snapshot", "restore", snapshot, "--data-dir", dataDir, "--wal-dir", logDir)
			}
			trace, order := harness.NewStrace(t, tracedCalls), newDiskOrder(t, dataDir, logDir)
			c.run(t, dataDir, logDir, trace)
			lines := trace.Lines()
			order.judge(parseStrace(t, lines))
			order.expectAllDurable(len(lines))
			t.Logf("%d ends of imports, %d manifests, %d files made, %d renamed", order.imports, order.manifests, order.creations, order.renames)
			if order.imports != c.imports || order.manifests == 0 || order.creations < 5 {
				t.Error("too little was judged")
			}
			want.expect(t, harness.Start(t, harness.Options{DataDir: dataDir, Args: []string{"--wal-dir=" + logDir}}))
		})
	}
}

// await waits until `enough` says so.
func await(t *testing.T, ctx context.Context, what string, enough func() bool) {
	t.Helper()
	for tick := time.NewTicker(20 * time.Millisecond); !enough(); {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// TestAFailedSyncEndsTheServer has one sync fail, wherever one may: the process ends with one line that says what it did,
// nothing of the batch was acknowledged, and the next start has all that was.
func TestAFailedSyncEndsTheServer(t *testing.T) {
	t.Parallel()
	if harness.UnderTest(t) != harness.Basalt {
		t.Skip("genuine etcd panics in a way of its own")
	}
	for _, c := range []struct{ name, doing, inject, path string }{
		// Without a path they are counted by thread: no other thread has as many.
		{"of the log", "writing the log", "fdatasync:error=EIO:when=100", ""},
		{"of the log, which says that the disk is full", "writing the log", "fdatasync:error=ENOSPC:when=100", ""},
		{"of a segment in the making", "preparing a log segment", "fdatasync:error=EIO:when=30", "wal/0000000000000002.wal"},
		{"of a run", "writing a checkpoint", "fdatasync:error=EIO:when=1", "runs/run-0000000000000001"},
		{"of a run, which says that the disk is full", "writing a checkpoint", "fdatasync:error=ENOSPC:when=1", "runs/run-0000000000000001"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dataDir := filepath.Join(t.TempDir(), "data")
			options := []string{"-e", "inject=" + c.inject}
			if c.path != "" {
				options = append(options, "-P", filepath.Join(dataDir, c.path))
			}
			trace := harness.NewStrace(t, "pwrite64,fdatasync", options...)
			server := harness.Start(t, harness.Options{DataDir: dataDir, Wrapper: trace.Wrapper})
			puts := &markedPuts{}
			group := puts.write(harness.Context(t, time.Minute), t, server)
			if code := server.AwaitExit(); code != 1 {
				t.Errorf("exit %d", code)
			}
			group.Wait()
			ends := server.LinesWith("basalt: stopped while ")
			if len(ends) != 1 || ends[0] != server.LastLine() || !strings.HasPrefix(ends[0], "basalt: stopped while "+c.doing) {
				t.Errorf("it should end with one line about %s: %q, last %q", c.doing, ends, server.LastLine())
			}
			lost := puts.expectNothingOfTheFailedBatch(t, parseStrace(t, trace.Lines()))
			t.Logf("%d acknowledged, %d in the batch that failed: %s", puts.acks(), lost, ends)
			if c.doing == "writing the log" && lost == 0 {
				t.Error("no value was in the batch that failed")
			}
			server.Wrap(nil)
			server.Restart()
			puts.expect(t, server)
		})
	}
}

// expectNothingOfTheFailedBatch gives how many values were written to a file whose next sync failed.
func (p *markedPuts) expectNothingOfTheFailedBatch(t *testing.T, events []syscallEvent) int {
	t.Helper()
	written := map[string][]string{}
	for _, event := range events {
		switch {
		case !event.ended:
		case event.name == "pwrite64":
			written[event.path] = append(written[event.path], markersIn(event.arguments)...)
		case !event.failed:
			delete(written, event.path)
		case strings.HasSuffix(event.path, ".wal"):
			for _, m := range written[event.path] {
				parts := marker.FindStringSubmatch(m)
				for n := range markedWriters {
					if number, _ := strconv.Atoi(parts[2]); parts[1] == p.writer(n) && number <= p.acknowledged[n] {
						t.Errorf("%s was acknowledged, and the sync of its batch had failed", m)
					}
				}
			}
			return len(written[event.path])
		}
	}
	return 0
}
