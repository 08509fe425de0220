package crowds

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"basalt/tests/interop/harness"
)

// TestWatchersThatComeBackShareOneReadOfHistory lets watchers resume far back, all at once, and counts reads of history.
func TestWatchersThatComeBackShareOneReadOfHistory(t *testing.T) {
	watchers, revisions := size(1_000, 10_000), size(20_000, 100_000)
	// A sixteenth of it is for recent events: 4 MiB, much less than what is written.
	server := harness.StartUnderTest(t, "--basalt-memory-limit=67108864")
	ctx, conn := harness.Context(t, 10*time.Minute), server.Conn(t)
	value := bytes.Repeat([]byte{'v'}, 500)
	key := func(i int) string { return fmt.Sprintf("back/%05d", i) }
	parallel(t, 64, revisions, func(i int) error { return put(ctx, conn, key(i%watchers), value) })

	conns := connections(t, server, 10)
	const scans = "basalt_watch_history_scans_total"
	before := metric(t, server, scans)
	if err := follow(ctx, conns[:1], []string{"back/"}, revisions); err != nil {
		t.Fatal(err)
	}
	alone := metric(t, server, scans) - before
	if alone == 0 {
		t.Fatal("history was not read")
	}

	keys := make([]string, watchers)
	for i := range keys {
		keys[i] = key(i)
	}
	before = metric(t, server, scans)
	if err := follow(ctx, conns, keys, revisions); err != nil {
		t.Fatal(err)
	}
	together := metric(t, server, scans) - before
	t.Logf("reads of history: %v for one watcher of all, %v for %d watchers of a key each", alone, together, watchers)
	// They come over some time, and who comes while others are on their way begins anew.
	if passes := together / alone; passes > float64(watchers)/20 {
		t.Errorf("%v reads of history for %d watchers, %v for one: %.1f passes", together, watchers, alone, passes)
	}
}

// follow watches keys, those that end in a slash as prefixes, from the first write on, over all connections; it returns
// when they were told of so many events together.
func follow(ctx context.Context, conns []*grpc.ClientConn, keys []string, events int) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	told := make(chan error, len(conns))
	counts := make(chan int, 1024)
	for at, conn := range conns {
		stream, err := pb.NewWatchClient(conn).Watch(ctx)
		if err != nil {
			return err
		}
		go func() { told <- receive(stream, counts) }()
		for i := at; i < len(keys); i += len(conns) {
			create := &pb.WatchCreateRequest{Key: []byte(keys[i]), StartRevision: 2}
			if keys[i][len(keys[i])-1] == '/' {
				create.RangeEnd = []byte(keys[i][:len(keys[i])-1] + "0")
			}
			if err := stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}); err != nil {
				return err
			}
		}
	}
	for seen := 0; seen < events; {
		select {
		case count := <-counts:
			seen += count
		case err := <-told:
			return fmt.Errorf("a watch ended after %d events: %w", seen, err)
		}
	}
	return nil
}

func receive(stream pb.Watch_WatchClient, counts chan<- int) error {
	last := map[int64]int64{}
	for {
		answer, err := stream.Recv()
		if err != nil {
			return err
		}
		if answer.Canceled {
			return fmt.Errorf("canceled: %v", answer)
		}
		for _, event := range answer.Events {
			if event.Kv.ModRevision < last[answer.WatchId] {
				return fmt.Errorf("watch %d: revision %d after %d", answer.WatchId, event.Kv.ModRevision, last[answer.WatchId])
			}
			last[answer.WatchId] = event.Kv.ModRevision
		}
		if len(answer.Events) > 0 {
			counts <- len(answer.Events)
		}
	}
}

// TestAWatcherThatDoesNotReadCostsLittle writes while one watcher takes nothing off its stream and another takes all; then
// the first reads, and misses nothing.
func TestAWatcherThatDoesNotReadCostsLittle(t *testing.T) {
	events, valueBytes := size(100_000, 1_000_000), size(4_096, 1_024)
	server, ctx := harness.StartUnderTest(t, "--basalt-memory-limit=536870912"), harness.Context(t, 20*time.Minute)
	writer, reader, idler := server.Conn(t), server.Conn(t), server.Conn(t)

	idle, err := pb.NewWatchClient(idler).Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	create := &pb.WatchCreateRequest{Key: []byte("idle/"), RangeEnd: []byte("idle0"), StartRevision: 2}
	if err := idle.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}); err != nil {
		t.Fatal(err)
	}
	if answer, err := idle.Recv(); err != nil || !answer.Created {
		t.Fatalf("create: %v, %v", answer, err)
	}

	value := bytes.Repeat([]byte{'v'}, valueBytes)
	half := func(from int) {
		followed := make(chan error, 1)
		go func() { followed <- follow(ctx, []*grpc.ClientConn{reader}, []string{"idle/"}, from+events/2) }()
		const perTxn = 50
		parallel(t, 16, events/2/perTxn, func(i int) error {
			txn := &pb.TxnRequest{}
			for op := range perTxn {
				put := &pb.PutRequest{Key: fmt.Appendf(nil, "idle/%d", (i*perTxn+op)%5_000), Value: value}
				txn.Success = append(txn.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: put}})
			}
			_, err := pb.NewKVClient(writer).Txn(ctx, txn)
			return err
		})
		if err := <-followed; err != nil {
			t.Fatal(err)
		}
	}
	half(0)
	middle := server.Memory()
	half(events / 2)
	end := server.Memory()
	t.Logf("resident after half of %d events: %d MiB, after all: %d MiB", events, middle>>20, end>>20)
	if grown, written := end-middle, int64(events/2*valueBytes); grown > written/2 {
		t.Errorf("memory grew by %d bytes while %d bytes were written that one watcher did not read", grown, written)
	}

	counts, told := make(chan int, 1024), make(chan error, 1)
	go func() { told <- receiveTogether(idle, counts) }()
	for seen := 0; seen < events; {
		select {
		case count := <-counts:
			seen += count
		case err := <-told:
			t.Fatalf("the watch ended after %d of %d events: %v", seen, events, err)
		}
	}
}

// receiveTogether counts the events of a stream, whose revisions never fall.
func receiveTogether(stream pb.Watch_WatchClient, counts chan<- int) error {
	last := int64(0)
	for {
		answer, err := stream.Recv()
		if err != nil {
			return err
		}
		for _, event := range answer.Events {
			if event.Kv.ModRevision < last {
				return fmt.Errorf("revision %d after %d", event.Kv.ModRevision, last)
			}
			last = event.Kv.ModRevision
		}
		counts <- len(answer.Events)
	}
}
