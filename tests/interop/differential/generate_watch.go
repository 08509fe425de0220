package differential

import (
	"math"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

const (
	// streamCount streams are open on each side. The last one is for watchers of the future only.
	streamCount  = 4
	futureStream = streamCount - 1
	// watchersMax per stream; beyond that one is cancelled.
	watchersMax = 10
	// unknownWatcher is an id that no watcher has.
	unknownWatcher = 555_555
)

// watchSession cancels some watchers and makes others, with one drain before all of it.
func (g *Generator) watchSession() Step {
	for stream := range streamCount {
		if g.chance(1, 4) {
			g.then(func() Step { return g.watchCancel(stream) })
		}
	}
	for range 2 + g.random.IntN(6) {
		stream := g.random.IntN(streamCount)
		g.then(func() Step {
			if len(g.live[stream]) >= watchersMax {
				return g.watchCancel(stream)
			}
			return Step{stream: stream, create: g.watchCreate(stream)}
		})
	}
	return drainStep()
}

// watchCancel cancels a watcher that lives, or one that is not there.
func (g *Generator) watchCancel(stream int) Step {
	id := int64(unknownWatcher)
	if live := g.live[stream]; len(live) > 0 && g.chance(11, 12) {
		id = pick(g.random, live)
	}
	return Step{stream: stream, cancel: &id}
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
		if live := g.live[stream]; len(live) > 0 {
			create.WatchId = pick(g.random, live)
		}
	case 3:
		create.WatchId = barrierID
	}
	return create
}

// start is a revision to watch from.
func (g *Generator) start(stream int) int64 {
	if stream == futureStream {
		return pick(g.random, []int64{0, g.head + 1, g.head + 5 + g.random.Int64N(40), math.MaxInt64})
	}
	switch g.random.IntN(10) {
	case 0, 1, 2:
		return 0
	case 3:
		return pick(g.random, []int64{-1, math.MinInt64})
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
