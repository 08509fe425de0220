package differential

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// delivery is an event with its main revision, or a cancellation by compaction, which has none; both as bytes, too.
type delivery struct {
	revision int64
	wire     string
	message  proto.Message
}

func (d delivery) String() string {
	if d.message == nil {
		return "nothing"
	}
	return printText(d.message)
}

const (
	// barrierID is the watch id of each stream's watcher of barrierKey, far from the ids that the server gives.
	barrierID = 1_000_000
	// drainTimeout bounds the wait for a barrier, and progressPause is the time between two requests for progress,
	// which etcd drops while a watcher catches up (etcd-contract 29).
	drainTimeout  = 20 * time.Second
	progressPause = 15 * time.Millisecond
)

var barrierKey = []byte("/barrier")

// watchStream is one Watch call of one side: it gathers what arrives and checks what must hold on any server.
//
// Invariants checked on arrival, per watcher:
//   - main revisions never fall, and one revision is never split over two responses unless they are fragments;
//   - a response's revision is not below that of its events;
//   - progress never goes back, and after progress at R no event at or below R arrives. This holds for watchers that
//     were there at the last drain: a progress answer computed before a watcher was made may overtake its creation.
type watchStream struct {
	side   string
	client pb.Watch_WatchClient
	// end closes the call; received is closed when nothing arrives any more.
	end      context.CancelFunc
	received chan struct{}

	mutex   sync.Mutex
	changed chan struct{}
	err     error
	acks    []*pb.WatchResponse
	// transcripts holds, per watch id, what was delivered and not yet drained.
	transcripts map[int64][]delivery
	// newest is, per watch id, the main revision of the last event.
	newest map[int64]int64
	// fragmented holds the ids of which a fragment, but not yet the last one, has arrived.
	fragmented map[int64]bool
	// floor is, per watcher that was there at the last drain, the newest progress; others are absent.
	floor map[int64]int64
	// compacted holds the ids that a compaction has cancelled and we have not.
	compacted []int64
	barrier   int64
	progress  int64
}

func openWatchStream(t testing.TB, side string, conn *grpc.ClientConn) *watchStream {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	client, err := pb.NewWatchClient(conn).Watch(ctx)
	if err != nil {
		t.Fatalf("%s: open watch stream: %v", side, err)
	}
	stream := &watchStream{
		side: side, client: client, end: cancel, received: make(chan struct{}), changed: make(chan struct{}, 1),
		transcripts: map[int64][]delivery{}, newest: map[int64]int64{}, fragmented: map[int64]bool{},
		floor: map[int64]int64{},
	}
	go stream.receive(stream.received)
	t.Cleanup(stream.close)
	if _, err := stream.create(&pb.WatchCreateRequest{Key: barrierKey, WatchId: barrierID}); err != nil {
		t.Fatalf("%s: watch the barrier: %v", side, err)
	}
	return stream
}

func (w *watchStream) close() {
	w.end()
	<-w.received
}

// create asks for a watcher and returns the acknowledgement.
func (w *watchStream) create(request *pb.WatchCreateRequest) (*pb.WatchResponse, error) {
	return w.acknowledged(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: request}})
}

// cancel ends a watcher that lives and returns the acknowledgement.
func (w *watchStream) cancel(id int64) (*pb.WatchResponse, error) {
	request := &pb.WatchCancelRequest{WatchId: id}
	return w.acknowledged(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: request}})
}

// ignoredCancel cancels an id that nobody has, which is not answered (etcd-contract 28).
func (w *watchStream) ignoredCancel(id int64) error {
	request := &pb.WatchCancelRequest{WatchId: id}
	return w.client.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: request}})
}

func (w *watchStream) acknowledged(request *pb.WatchRequest) (*pb.WatchResponse, error) {
	if err := w.client.Send(request); err != nil {
		return nil, err
	}
	var ack *pb.WatchResponse
	err := w.await("an acknowledgement", func() bool {
		if len(w.acks) == 0 {
			return false
		}
		ack, w.acks = w.acks[0], w.acks[1:]
		return true
	}, nil)
	return ack, err
}

// drain waits until everything below the barrier's revision has arrived and returns the transcripts since the last
// drain. A stream that holds watchers of the future never reports progress: etcd serves its watchers in the order of
// revisions, the barrier's among them, and of basalt as many events are awaited, by watcher, for there one that waits for a
// previous value holds up no watcher of other shards. Within the barrier's own revision watchers have no order,
// so what else it woke is left for the next drain, or dropped if its watcher is cancelled before.
func (w *watchStream) drain(revision int64, withProgress bool, atLeast map[int64]int) (map[int64][]delivery, error) {
	ask := func() error {
		if !withProgress {
			return nil
		}
		request := &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}
		return w.client.Send(&pb.WatchRequest{RequestUnion: request})
	}
	transcripts := map[int64][]delivery{}
	err := w.await(fmt.Sprintf("the barrier at revision %d", revision), func() bool {
		if w.barrier < revision || (withProgress && w.progress < revision) {
			return false
		}
		for id, count := range atLeast {
			if w.below(id, revision) < count {
				return false
			}
		}
		for id := range w.transcripts {
			transcripts[id] = w.take(id, revision)
		}
		for id := range w.newest {
			w.floor[id] = max(w.floor[id], w.progress)
		}
		return true
	}, ask)
	return transcripts, err
}

// below is how much watcher `id` received below `revision`.
func (w *watchStream) below(id, revision int64) int {
	count := 0
	for _, d := range w.transcripts[id] {
		if d.revision < revision {
			count++
		}
	}
	return count
}

// take removes what watcher `id` received below `revision`.
func (w *watchStream) take(id, revision int64) []delivery {
	var taken []delivery
	w.transcripts[id] = slices.DeleteFunc(w.transcripts[id], func(d delivery) bool {
		if d.revision < revision {
			taken = append(taken, d)
		}
		return d.revision < revision
	})
	return taken
}

// awaitCompacted waits until the server has cancelled watcher `id` because its start is compacted, and then cancels it
// too, as clients do: until then etcd answers no request for progress on the stream (etcd-contract 22).
func (w *watchStream) awaitCompacted(id int64) (*pb.WatchResponse, error) {
	err := w.await(fmt.Sprintf("watcher %d to be cancelled by a compaction", id), func() bool {
		place := slices.Index(w.compacted, id)
		if place >= 0 {
			w.compacted = slices.Delete(w.compacted, place, place+1)
		}
		return place >= 0
	}, nil)
	if err != nil {
		return nil, err
	}
	return w.cancel(id)
}

// await calls `reached` under the mutex after each change until it holds; `nudge`, if any, is called now and then.
func (w *watchStream) await(what string, reached func() bool, nudge func() error) error {
	deadline := time.After(drainTimeout)
	for {
		w.mutex.Lock()
		err, done := w.err, false
		if err == nil {
			done = reached()
		}
		w.mutex.Unlock()
		if err != nil || done {
			return err
		}
		var pause <-chan time.Time
		if nudge != nil {
			if err := nudge(); err != nil {
				return err
			}
			pause = time.After(progressPause)
		}
		select {
		case <-w.changed:
		case <-pause:
		case <-deadline:
			return fmt.Errorf("%s: waited %v for %s", w.side, drainTimeout, what)
		}
	}
}

func (w *watchStream) receive(done chan<- struct{}) {
	defer close(done)
	for {
		response, err := w.client.Recv()
		w.mutex.Lock()
		if err == nil {
			err = w.accept(response)
		}
		if err != nil && w.err == nil {
			w.err = fmt.Errorf("%s: watch stream: %w", w.side, err)
		}
		failed := w.err != nil
		w.mutex.Unlock()
		select {
		case w.changed <- struct{}{}:
		default:
		}
		if failed {
			return
		}
	}
}

func (w *watchStream) accept(response *pb.WatchResponse) error {
	id := response.WatchId
	switch {
	case response.Canceled && response.CompactRevision != 0:
		normalise(nil, response)
		w.transcripts[id] = append(w.transcripts[id], delivery{0, wire(response), response})
		w.compacted = append(w.compacted, id)
	case response.Created || response.Canceled:
		delete(w.floor, id)
		delete(w.newest, id)
		if !response.Canceled {
			w.newest[id] = 0
		} else if !slices.ContainsFunc(w.transcripts[id], func(d delivery) bool { return d.revision == 0 }) {
			delete(w.transcripts, id)
		}
		w.acks = append(w.acks, response)
	case len(response.Events) == 0:
		return w.acceptProgress(response)
	default:
		return w.acceptEvents(response)
	}
	return nil
}

func (w *watchStream) acceptProgress(response *pb.WatchResponse) error {
	revision := response.Header.GetRevision()
	if response.WatchId != -1 {
		return nil
	}
	if revision < w.progress {
		return fmt.Errorf("progress went back from %d to %d", w.progress, revision)
	}
	w.progress = revision
	for id := range w.floor {
		w.floor[id] = revision
	}
	return nil
}

func (w *watchStream) acceptEvents(response *pb.WatchResponse) error {
	id, newest := response.WatchId, w.newest[response.WatchId]
	first := response.Events[0].Kv.ModRevision
	if first == newest && !w.fragmented[id] {
		return fmt.Errorf("watcher %d: revision %d came in two responses", id, first)
	}
	for _, event := range response.Events {
		revision := event.Kv.ModRevision
		if revision < newest {
			return fmt.Errorf("watcher %d: revision %d after %d", id, revision, newest)
		}
		if revision <= w.floor[id] {
			return fmt.Errorf("watcher %d: event at %d after progress at %d", id, revision, w.floor[id])
		}
		newest = revision
		w.transcripts[id] = append(w.transcripts[id], delivery{revision, wire(event), event})
		if id == barrierID {
			w.barrier = revision
		}
	}
	if header := response.Header.GetRevision(); header < newest {
		return fmt.Errorf("watcher %d: response at revision %d has an event at %d", id, header, newest)
	}
	w.newest[id], w.fragmented[id] = newest, response.Fragment
	return nil
}
