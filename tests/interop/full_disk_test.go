package interop

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"basalt/tests/interop/harness"
)

// valueBytes of each write to a disk that is to fill up.
const valueBytes = 256 << 10

// filler writes values that do not compress, and remembers what was acknowledged.
type filler struct {
	kv           pb.KVClient
	random       *rand.Rand
	sent         int
	acknowledged map[string]string
}

func fillKey(n int) string { return fmt.Sprintf("fill/%05d", n) }

func newFiller(t *testing.T, server *harness.Server) *filler {
	t.Helper()
	return &filler{pb.NewKVClient(server.Conn(t)), rand.New(rand.NewPCG(1, 2)), 0, map[string]string{}}
}

func (f *filler) put(ctx context.Context) error {
	key, value := fillKey(f.sent), make([]byte, valueBytes)
	f.sent++
	for n := range value {
		value[n] = byte(f.random.Uint32())
	}
	_, err := f.kv.Put(ctx, &pb.PutRequest{Key: []byte(key), Value: value})
	if err == nil {
		f.acknowledged[key] = string(value)
	}
	return err
}

// delete removes the first `count` keys.
func (f *filler) delete(t *testing.T, ctx context.Context, count int) {
	t.Helper()
	for n := range count {
		key := fillKey(n)
		deleted, err := f.kv.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: []byte(key)})
		if err != nil || deleted.Deleted != 1 {
			t.Fatalf("delete of %s: %v, %v", key, deleted, err)
		}
		delete(f.acknowledged, key)
	}
}

// expect reads every acknowledged value.
func (f *filler) expect(t *testing.T, ctx context.Context, server *harness.Server) {
	t.Helper()
	kv := pb.NewKVClient(server.Conn(t))
	for key, value := range f.acknowledged {
		got, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte(key)})
		if err != nil || len(got.Kvs) != 1 || string(got.Kvs[0].Value) != value {
			t.Fatalf("%s was acknowledged; now %d keys, %v", key, len(got.GetKvs()), err)
		}
	}
}

// TestFullDiskUnderPages: a checkpoint finds no space. Reads, deletes and compactions go on; once there is room and the
// alarm is disarmed, so do puts, without a restart.
func TestFullDiskUnderPages(t *testing.T) {
	t.Parallel()
	if harness.UnderTest(t) != harness.Basalt {
		t.Skip("genuine etcd has no checkpoints")
	}
	for name, deletes := range map[string]int{"a larger disk makes room": 3, "deletes make room": 90} {
		t.Run(name, func(t *testing.T) {
			disk := harness.NewSmallDisk(t, 16)
			server := harness.Start(t, harness.Options{
				DataDir: filepath.Join(disk.Dir, "data"), Args: []string{"--wal-dir=" + t.TempDir()},
			})
			ctx := harness.Context(t, 2*time.Minute)
			s, filler := servicesOf(server.Conn(t)), newFiller(t, server)
			for range 96 { // 24 MiB
				if err := filler.put(ctx); err != nil {
					t.Fatal(err)
				}
			}
			awaitNoSpace(t, ctx, s)
			if alarms := server.Etcdctl("alarm", "list"); !strings.Contains(alarms, "alarm:NOSPACE") {
				t.Fatalf("alarm list: %q", alarms)
			}
			if !server.LogContains("no space for a checkpoint") {
				t.Error("the log does not say why")
			}
			filler.expect(t, ctx, server)
			filler.delete(t, ctx, deletes)

			if deletes < 90 {
				disk.Grow(64)
			}
			server.Etcdctl("compaction", fmt.Sprint(everything(t, server).Header.Revision), "--physical")
			server.Etcdctl("defrag") // waits for a checkpoint, which finds room now
			server.Etcdctl("alarm", "disarm")
			if err := filler.put(ctx); err != nil {
				t.Fatalf("a put after the disarm: %v", err)
			}
			server.Etcdctl("defrag")
			if alarms := server.Etcdctl("alarm", "list"); alarms != "" {
				t.Fatalf("alarm list with room again: %q", alarms)
			}
			want := contentsOf(t, server)
			server.Kill()
			server.Restart()
			want.expectSame(t, server)
			filler.expect(t, ctx, server)
		})
	}
}

// awaitNoSpace puts little until that is refused: the next checkpoint comes within seconds.
func awaitNoSpace(t *testing.T, ctx context.Context, s services) {
	t.Helper()
	for tick := time.NewTicker(20 * time.Millisecond); ; <-tick.C {
		err := put(&pb.PutRequest{Key: []byte("small")})(ctx, s)
		if err == nil {
			continue
		}
		if got := status.Convert(err); got.Code() != codes.ResourceExhausted || got.Message() != noSpace {
			t.Fatalf("a put on a full disk: %v", err)
		}
		return
	}
}

// TestFullDiskUnderLog: the log finds no space, which ends the process with one line. After a start with more room
// everything acknowledged is there.
func TestFullDiskUnderLog(t *testing.T) {
	if harness.UnderTest(t) != harness.Basalt {
		t.Skip("genuine etcd panics in a way of its own")
	}
	disk := harness.NewSmallDisk(t, 80)
	server := harness.Start(t, harness.Options{Args: []string{"--wal-dir=" + filepath.Join(disk.Dir, "log")}})
	fillUntilItStops(t, server, disk, 400)
}

// TestFullDiskUnderAll keeps all data on one disk: whoever finds it full first, nothing acknowledged is lost.
func TestFullDiskUnderAll(t *testing.T) {
	if harness.UnderTest(t) != harness.Basalt {
		t.Skip("genuine etcd panics in a way of its own")
	}
	disk := harness.NewSmallDisk(t, 96)
	server := harness.Start(t, harness.Options{DataDir: filepath.Join(disk.Dir, "data")})
	fillUntilItStops(t, server, disk, 500)
}

// fillUntilItStops writes until the server has ended by itself, and starts it again on a larger disk.
func fillUntilItStops(t *testing.T, server *harness.Server, disk *harness.SmallDisk, larger int) {
	t.Helper()
	ctx := harness.Context(t, 3*time.Minute)
	filler := newFiller(t, server)
	var failed error
	for failed == nil {
		if len(filler.acknowledged) > 1000 {
			t.Fatalf("%d MiB went to a disk of less than 100", len(filler.acknowledged)*valueBytes>>20)
		}
		failed = filler.put(ctx)
	}
	if code := server.AwaitExit(); code != 1 {
		t.Errorf("exit %d after %v", code, failed)
	}
	last := server.LastLine()
	for _, part := range []string{"basalt: stopped while ", "No space left on device", "nothing acknowledged is lost", "start again"} {
		if !strings.Contains(last, part) {
			t.Errorf("the last line does not say %q: %s", part, last)
		}
	}
	t.Logf("%d MiB written, then %s", len(filler.acknowledged)*valueBytes>>20, last)
	disk.Grow(larger)
	server.Restart()
	filler.expect(t, ctx, server)
	if err := newFiller(t, server).put(ctx); err != nil {
		t.Errorf("a put after the disk has grown: %v", err)
	}
}

// TestOneFullDiskOfThree: the disk of one of three members has no room for its checkpoints. That one leads no more, and the
// cluster goes on without an alarm; the member is well again when there is room.
func TestOneFullDiskOfThree(t *testing.T) {
	t.Parallel()
	if harness.UnderTest(t) != harness.Basalt {
		t.Skip("genuine etcd has no checkpoints")
	}
	disk := harness.NewSmallDisk(t, 16)
	members := harness.NewMembers(t, harness.Basalt, 3)
	full := members[0]
	full.DataDir = filepath.Join(disk.Dir, "data")
	full.AddArgs("--wal-dir=" + t.TempDir())
	members.Start()
	moveLead(t, members, full)
	filler := newFiller(t, members[1])
	ctx := harness.Context(t, 2*time.Minute)
	for range 96 { // 24 MiB
		for filler.put(ctx) != nil {
			// The lead moves meanwhile.
			filler.sent--
		}
	}
	await(t, ctx, "the disk to be full", func() bool {
		putUntilTaken(t, members[1], "small", "value")
		return full.LogContains("no space for a checkpoint")
	})
	await(t, ctx, "another member to lead", func() bool { return leaderOf(t, members) != full })
	for _, member := range members {
		putUntilTaken(t, member, "small", "value")
	}
	if alarms := members[1].Etcdctl("alarm", "list"); alarms != "" {
		t.Errorf("alarm list while one disk is full: %q", alarms)
	}
	disk.Grow(128)
	full.Etcdctl("defrag") // waits for a checkpoint, which finds room now
	filler.expect(t, ctx, full)
	sameEverywhere(t, members)
}

// moveLead has a member lead.
func moveLead(t *testing.T, members harness.Members, to *harness.Server) {
	t.Helper()
	move := &pb.MoveLeaderRequest{TargetID: idOf(t, to)}
	for leader := leaderOf(t, members); leader != to; leader = leaderOf(t, members) {
		if _, err := pb.NewMaintenanceClient(leader.Conn(t)).MoveLeader(harness.Context(t, 10*time.Second), move); err != nil {
			t.Logf("moving the lead: %v", err)
		}
	}
}
