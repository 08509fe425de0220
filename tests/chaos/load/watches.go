package load

import (
	"context"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	mvccpb "go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc/metadata"

	"basalt/tests/chaos/history"
	"basalt/tests/chaos/rig"
)

const (
	// watchPause is between two tries to resume.
	watchPause = 100 * time.Millisecond
	// progressPause is between two questions how far a watch is.
	progressPause = 500 * time.Millisecond
	// silenceMax is how long the watcher of everything believes a member that says nothing.
	silenceMax = 3 * time.Second
)

// watcher is one client that resumes wherever it was told up to.
type watcher struct {
	load   *Load
	watch  *history.Watch
	member int // whose client it is; -1 goes to whichever answers
	next   int64
	bound  atomic.Int64 // all up to here was told
	slow   atomic.Int64 // the longest from first news to this one, of whoever measures it
}

// watch starts one behind the record's first revision.
func (l *Load) watch(name string, member int, key, end string, previous bool) *watcher {
	started := &watcher{
		load: l, member: member, next: l.record.First + 1,
		watch: &history.Watch{Name: name, Key: key, End: end, Previous: previous},
	}
	started.bound.Store(l.record.First)
	l.watchers.Add(1)
	go func() {
		defer l.watchers.Done()
		started.run()
	}()
	return started
}

func (w *watcher) run() {
	for turn := 0; w.load.ctx.Err() == nil; turn++ {
		member := w.load.member(w.member)
		if w.member < 0 {
			members := w.load.cluster.Members()
			member = members[turn%len(members)]
		}
		if member != nil {
			w.segment(member)
		} else {
			w.member = w.load.cluster.Members()[0].Number // it was replaced, and its clients go elsewhere
		}
		select {
		case <-w.load.ctx.Done():
		case <-time.After(watchPause):
		}
	}
}

// segment is one stream until it breaks.
func (w *watcher) segment(member *rig.Member) {
	ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(w.load.ctx, "hasleader", "true"))
	defer cancel()
	stream, err := pb.NewWatchClient(member.Conn()).Watch(ctx)
	if err != nil {
		return
	}
	err = stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{
		Key: []byte(w.watch.Key), RangeEnd: []byte(w.watch.End), StartRevision: w.next, PrevKv: w.watch.Previous, ProgressNotify: true,
	}}})
	if err != nil {
		return
	}
	answers := make(chan *pb.WatchResponse)
	go func() {
		defer close(answers)
		for {
			answer, err := stream.Recv()
			if err != nil {
				return
			}
			select {
			case answers <- answer:
			case <-ctx.Done():
				return
			}
		}
	}()
	segment := history.Segment{Member: member.Number, Start: w.next}
	defer func() {
		if len(segment.Responses) > 0 || segment.CompactRevision > 0 {
			w.load.mutex.Lock()
			w.watch.Segments = append(w.watch.Segments, segment)
			w.load.mutex.Unlock()
		}
	}()
	ask := time.NewTicker(progressPause)
	defer ask.Stop()
	lastNews := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case answer, open := <-answers:
			if !open || w.take(&segment, answer) {
				return
			}
			lastNews = time.Now()
		case <-ask.C:
			if w.member < 0 && time.Since(lastNews) > silenceMax {
				return
			}
			// Its failure shows at the other end.
			_ = stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}})
		}
	}
}

// take writes an answer down; true ends the segment.
func (w *watcher) take(segment *history.Segment, answer *pb.WatchResponse) (ended bool) {
	if answer.Canceled || answer.CompactRevision > 0 {
		if segment.CompactRevision = answer.CompactRevision; answer.CompactRevision > 0 {
			w.next = answer.CompactRevision
		}
		return true
	}
	if answer.Created {
		return false
	}
	heard := history.Response{At: w.load.Now(), Revision: answer.Header.Revision, Progress: len(answer.Events) == 0}
	for _, event := range answer.Events {
		told := history.Event{Delete: event.Type == mvccpb.Event_DELETE, KV: keyValue(event.Kv)}
		if event.PrevKv != nil {
			previous := keyValue(event.PrevKv)
			told.Previous = &previous
		}
		heard.Events = append(heard.Events, told)
		w.next = max(w.next, told.KV.Mod+1)
	}
	if heard.Progress {
		w.next = max(w.next, heard.Revision+1)
	}
	segment.Responses = append(segment.Responses, heard)
	w.bound.Store(w.next - 1)
	if w == w.load.recorder {
		w.load.mutex.Lock()
		for _, event := range heard.Events {
			w.load.record.Events = append(w.load.record.Events, history.Told{At: heard.At, Event: event})
		}
		w.load.mutex.Unlock()
		raise(&w.load.heard, w.next-1)
		w.load.know(w.next - 1)
	}
	return false
}
