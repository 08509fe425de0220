package crowds

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"sync/atomic"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/status"

	"basalt/tests/interop/harness"
)

// fillList writes a list of 40 MB: so many keys of 4 KiB.
const (
	listKeys       = 10_000
	listValueBytes = 4_096
)

func fillList(t *testing.T, server *harness.Server) {
	t.Helper()
	ctx, conn := harness.Context(t, 5*time.Minute), server.Conn(t)
	random := rand.New(rand.NewSource(1))
	value := make([]byte, listValueBytes)
	random.Read(value)
	parallel(t, 32, listKeys, func(i int) error { return put(ctx, conn, fmt.Sprintf("list/%05d", i), value) })
}

// TestListsThatComeTogether asks for a list of 40 MB many times at once, as streams, in pages and whole, from a server that
// is to plan with 1 GiB of memory, and looks that it never takes more.
func TestListsThatComeTogether(t *testing.T) {
	const limit = 1 << 30
	lists := size(60, 1_000)
	server := harness.StartUnderTest(t, fmt.Sprintf("--basalt-memory-limit=%d", limit))
	fillList(t, server)
	// Nothing in caches, and all values in pages.
	server.Stop()
	server.Restart()
	ctx, conns := harness.Context(t, 30*time.Minute), connections(t, server, 20)
	server.ForgetPeakMemory()
	var refused atomic.Int64
	parallel(t, lists, lists, func(i int) error {
		kv := pb.NewKVClient(conns[i%len(conns)])
		for {
			keys, err := listOnce(ctx, kv, i)
			// Where others hold the room for answers for 10 s, a client is told to come again.
			if status.Convert(err).Message() == "etcdserver: too many requests" {
				refused.Add(1)
				continue
			}
			if err == nil && keys != listKeys {
				err = fmt.Errorf("a list of %d keys, want %d", keys, listKeys)
			}
			return err
		}
	})
	peak := server.PeakMemory()
	t.Logf("%d lists of 40 MB at once: peak %d MiB, %d times told to come again", lists, peak>>20, refused.Load())
	if peak > limit {
		t.Errorf("peak memory %d, the limit is %d", peak, limit)
	}
}

// listOnce reads the list in the way that its number says, and returns how many keys it has.
func listOnce(ctx context.Context, kv pb.KVClient, number int) (keys int, err error) {
	whole := &pb.RangeRequest{Key: []byte("list/"), RangeEnd: []byte("list0")}
	switch {
	case number%10 == 0 && number < 200:
		// Whole: the client must hold all of it, so not too many.
		answer, err := kv.Range(ctx, whole)
		return len(answer.GetKvs()), err
	case number%2 == 0:
		for page := whole; ; {
			page.Limit = 500
			answer, err := kv.Range(ctx, page)
			if err != nil {
				return 0, err
			}
			if keys += len(answer.Kvs); !answer.More {
				return keys, nil
			}
			page.Revision = answer.Header.Revision
			page.Key = append(answer.Kvs[len(answer.Kvs)-1].Key, 0)
		}
	default:
		stream, err := kv.RangeStream(ctx, whole)
		for err == nil {
			var answer *pb.RangeStreamResponse
			if answer, err = stream.Recv(); err == nil {
				keys += len(answer.RangeResponse.Kvs)
			}
		}
		if errors.Is(err, io.EOF) {
			err = nil
		}
		return keys, err
	}
}

// TestColdListsLeaveHotWritesAlone reads lists that no cache holds from a disk on which each read takes a millisecond. Apply
// must not wait for any of these reads, and puts and keepalives must go through while one list is under way.
func TestColdListsLeaveHotWritesAlone(t *testing.T) {
	// A quarter of it is the page cache: 16 MiB.
	const limit = "--basalt-memory-limit=67108864"
	server := harness.StartUnderTest(t, limit)
	fillList(t, server)
	server.Stop()
	slow := harness.NewStrace(t, "pread64,preadv,preadv2", "-e", "inject=pread64,preadv,preadv2:delay_enter=1000")
	server.Wrap(slow.Wrapper)
	server.Restart()

	ctx, conns := harness.Context(t, 10*time.Minute), connections(t, server, 3)
	stop := keepHot(t, ctx, conns[2])
	listed := make(chan error, 1)
	go func() {
		stream, err := pb.NewKVClient(conns[0]).RangeStream(ctx, &pb.RangeRequest{Key: []byte("list/"), RangeEnd: []byte("list0")})
		for err == nil {
			_, err = stream.Recv()
		}
		listed <- err
	}()
	puts := 0
	for under := true; under; {
		select {
		case err := <-listed:
			if !errors.Is(err, io.EOF) {
				t.Fatalf("list: %v", err)
			}
			under = false
		default:
			if err := put(ctx, conns[1], "hot", []byte("value")); err != nil {
				t.Fatal(err)
			}
			puts++
		}
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d puts, one after the other, while a cold list was read", puts)
	if waits := metric(t, server, "basalt_apply_disk_waits_total"); waits != 0 {
		t.Errorf("apply waited for the disk %v times", waits)
	}
	// A list needs more than 1,000 reads of a millisecond; a put that waited for the list could be but one or two.
	if puts < 10 {
		t.Errorf("%d puts while a list was read", puts)
	}
	server.Stop()
	if reads := len(slow.Lines()); reads < 500 {
		t.Errorf("%d reads of the disk: the list was not cold", reads)
	}
}
