package differential

import (
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

const (
	// streamCount streams are open on each side. The last one is for watchers of the future only.
	streamCount  = 4
	futureStream = streamCount - 1
	// watchersMax per stream; beyond that one is cancelled first.
	watchersMax = 12
)

// watchPlan is what the generator knows of the watchers, by stream.
type watchPlan struct {
	live [streamCount][]int64
}

// created notes the answer to a creation.
func (p *watchPlan) created(stream int, ack *pb.WatchResponse) {
	if ack.Created && !ack.Canceled {
		p.live[stream] = append(p.live[stream], ack.WatchId)
	}
}

// cancelled notes that a watcher is gone.
func (p *watchPlan) cancelled(stream int, id int64) {
	p.live[stream] = slices.DeleteFunc(p.live[stream], func(live int64) bool { return live == id })
}

func (g *Generator) watchStep() Step {
	stream := g.random.IntN(streamCount)
	live := g.watches.live[stream]
	if len(live) >= watchersMax || (len(live) > 0 && g.chance(1, 4)) {
		id := pick(g.random, live)
		return Step{drain: true, stream: stream, cancel: &id}
	}
	if g.chance(1, 12) {
		id := int64(555_555)
		return Step{drain: true, stream: stream, ignoredCancel: &id}
	}
	create := g.watchCreate(stream)
	return Step{
		drain: true, stream: stream, create: create,
		compacted: create.StartRevision > 0 && create.StartRevision < g.compacted,
	}
}

func (g *Generator) watchCreate(stream int) *pb.WatchCreateRequest {
	create := &pb.WatchCreateRequest{
		PrevKv: g.chance(1, 2), ProgressNotify: g.chance(1, 3), Fragment: g.chance(1, 4), StartRevision: g.start(stream),
	}
	create.Key, create.RangeEnd = g.interval()
	if g.chance(1, 3) {
		create.Key, create.RangeEnd = []byte{0}, []byte{0}
	}
	for _, filter := range []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NOPUT, pb.WatchCreateRequest_NODELETE} {
		if g.chance(1, 6) {
			create.Filters = append(create.Filters, filter)
		}
	}
	switch g.random.IntN(16) {
	case 0:
		create.WatchId = 100 + g.random.Int64N(50)
	case 1:
		create.WatchId = -5 - g.random.Int64N(50)
	case 2:
		if live := g.watches.live[stream]; len(live) > 0 {
			create.WatchId = pick(g.random, live)
		}
	case 3:
		create.WatchId = barrierID
	}
	return create
}

// start is a revision to watch from. The drain before the step puts the barrier, so the head is one higher then.
func (g *Generator) start(stream int) int64 {
	if stream == futureStream {
		return pick(g.random, []int64{0, g.head + 2, g.head + 5 + g.random.Int64N(40)})
	}
	switch g.random.IntN(10) {
	case 0, 1, 2:
		return 0
	case 3:
		return -1
	case 4:
		return g.compacted - 1
	case 5:
		return g.compacted
	case 6:
		return 1
	default:
		return max(1, g.readable())
	}
}
