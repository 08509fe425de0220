package differential

import (
	"bytes"
	"math"
	"math/rand/v2"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
)

const (
	// drainEvery is the number of steps after which the runner drains at the latest.
	drainEvery = 40
	// leaseTTL is so long that no lease expires during a run.
	leaseTTL = 100_000
	// tooLargeBytes exceeds etcd's request limit of 1.5 MiB but not gRPC's of 2 MiB; tooLargeMessageBytes exceeds both.
	tooLargeBytes        = 1_600_000
	tooLargeMessageBytes = 2_200_000
)

// Generator chooses the next step from its seed and from what is known of the stores.
type Generator struct {
	*world
	random *rand.Rand
	keys   [][]byte
	// queue makes the steps that must follow the last one; each is made when its turn comes, from what is known then.
	queue     []func() Step
	steps     int
	nextLease int64
	// asSomebody is set while a request of somebody is made.
	asSomebody bool
}

// newGenerator starts a run on empty stores.
func newGenerator(seed uint64, world *world) *Generator {
	return &Generator{world: world, random: rand.New(rand.NewPCG(seed, 0)), keys: keyPool(), nextLease: 7_000}
}

func (g *Generator) chance(numerator, denominator int) bool {
	return g.random.IntN(denominator) < numerator
}

func (g *Generator) then(step func() Step) { g.queue = append(g.queue, step) }

func drainStep() Step { return Step{drain: true} }

// Next is the next step.
func (g *Generator) Next() Step {
	if len(g.queue) > 0 {
		step := g.queue[0]
		g.queue = g.queue[1:]
		return step()
	}
	g.steps++
	if g.steps%drainEvery == 0 {
		return drainStep()
	}
	switch roll := g.random.IntN(1000); {
	case roll < 10:
		return g.watchSession()
	case roll < 20:
		g.then(func() Step { return call(g.compaction()) })
		return drainStep()
	case roll < 22:
		return g.alarmSession()
	case roll < 24:
		return g.authSession()
	case roll < 28:
		return call(g.management())
	case roll < 110:
		return g.burst()
	case roll < 130:
		return call(g.maintenance())
	default:
		return g.keyStep()
	}
}

// keyStep is a call that concerns keys or leases.
func (g *Generator) keyStep() Step {
	switch roll := g.random.IntN(100); {
	case roll < 33:
		return call(g.put())
	case roll < 45:
		return call(g.deleteRange())
	case roll < 70:
		return call(g.txn(0))
	case roll < 82:
		return g.leaseStep()
	default:
		return call(g.read())
	}
}

// burst is as many reads as an API server sends at a time.
func (g *Generator) burst() Step {
	var step Step
	for range 4 + g.random.IntN(20) {
		step.calls = append(step.calls, g.read())
	}
	return step
}

func (g *Generator) read() proto.Message {
	switch roll := g.random.IntN(100); {
	case roll < 58:
		return g.rangeRequest()
	case roll < 78:
		return rangeStream{g.streamable()}
	case roll < 86:
		return g.hashKV()
	case roll < 91:
		return &pb.LeaseTimeToLiveRequest{ID: g.anyLease(), Keys: g.chance(2, 3)}
	case roll < 93:
		return &pb.LeaseLeasesRequest{}
	case roll < 95:
		return &pb.StatusRequest{}
	case roll < 96:
		return &pb.MemberListRequest{Linearizable: g.chance(1, 2)}
	default:
		return g.readOnlyTxn()
	}
}

// alarmSession arms an alarm, does what there is to do, and disarms all.
func (g *Generator) alarmSession() Step {
	armed := []*pb.AlarmRequest{{Action: pb.AlarmRequest_ACTIVATE, MemberID: ownMember, Alarm: pb.AlarmType_NOSPACE}}
	if g.chance(1, 3) {
		armed[0].Alarm = pb.AlarmType_CORRUPT
	}
	if g.chance(1, 4) {
		armed = append(armed, &pb.AlarmRequest{
			Action: pb.AlarmRequest_ACTIVATE, MemberID: foreignMember, Alarm: pb.AlarmType_NOSPACE,
		})
	}
	for _, request := range armed {
		g.then(func() Step { return call(request) })
	}
	if g.chance(1, 3) {
		g.then(func() Step { return call(g.compaction()) })
	}
	for range 5 + g.random.IntN(20) {
		g.then(func() Step {
			if g.chance(1, 6) {
				return call(g.maintenance())
			}
			return g.keyStep()
		})
	}
	// Nobody's alarm: nothing happens.
	g.then(func() Step { return call(&pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, Alarm: armed[0].Alarm}) })
	for _, request := range armed {
		disarm := &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, MemberID: request.MemberID, Alarm: request.Alarm}
		g.then(func() Step { return call(disarm) })
	}
	g.then(func() Step { return call(&pb.AlarmRequest{}) })
	return drainStep()
}

// revision is mostly 0 or one that can be read, sometimes a compacted, future or negative one.
func (g *Generator) revision() int64 {
	switch g.random.IntN(22) {
	case 20:
		return math.MaxInt64
	case 21:
		return math.MinInt64
	case 0:
		return g.compacted - 1
	case 1:
		return g.head + 1 + g.random.Int64N(3)
	case 2:
		return -1
	case 3:
		return g.compacted
	case 4, 5, 6, 7, 8:
		return g.readable()
	default:
		return 0
	}
}

func (g *Generator) readable() int64 { return g.compacted + g.random.Int64N(g.head-g.compacted+1) }

func (g *Generator) put() *pb.PutRequest {
	put := &pb.PutRequest{Key: g.key(), Value: g.value(), PrevKv: g.chance(1, 3)}
	switch g.random.IntN(20) {
	case 0:
		put.IgnoreValue = true
		if !g.chance(1, 4) {
			put.Value = nil
		}
	case 1:
		put.IgnoreLease = true
		if g.chance(1, 4) {
			put.Lease = g.anyLease()
		}
	case 2, 3, 4:
		put.Lease = g.anyLease()
	case 5:
		if g.chance(1, 8) {
			put.Value = bytes.Repeat([]byte{'x'}, pick(g.random, []int{tooLargeBytes, tooLargeMessageBytes}))
		}
	}
	return put
}

func (g *Generator) deleteRange() *pb.DeleteRangeRequest {
	request := &pb.DeleteRangeRequest{PrevKv: g.chance(1, 2)}
	request.Key, request.RangeEnd = g.interval()
	if len(request.RangeEnd) > 0 && g.chance(3, 4) {
		// Large deletes are rare, or the store would stay empty.
		request.Key, request.RangeEnd = g.key(), nil
	}
	return request
}

func (g *Generator) rangeRequest() *pb.RangeRequest {
	request := g.streamable()
	if g.chance(1, 2) {
		request.SortOrder = pb.RangeRequest_SortOrder(g.random.IntN(3))
		request.SortTarget = pb.RangeRequest_SortTarget(g.random.IntN(5))
	}
	if g.chance(1, 60) {
		request.SortOrder = 7
	}
	if g.chance(1, 60) {
		request.SortTarget = -3
	}
	for _, filter := range []*int64{
		&request.MinModRevision, &request.MaxModRevision, &request.MinCreateRevision, &request.MaxCreateRevision,
	} {
		if g.chance(1, 10) {
			*filter = g.revision()
		}
	}
	return request
}

// streamable is a range that RangeStream serves, but for a few with orders and filters that it must refuse. A
// sort_target without an order is not among them: there etcd repeats keys (etcd-contract 18).
func (g *Generator) streamable() *pb.RangeRequest {
	request := &pb.RangeRequest{
		Revision: g.revision(), Serializable: g.chance(1, 4), KeysOnly: g.chance(1, 8), CountOnly: g.chance(1, 10),
	}
	request.Key, request.RangeEnd = g.interval()
	if g.chance(2, 5) {
		request.Limit = 1 + g.random.Int64N(12)
	}
	if g.chance(1, 40) {
		request.Limit = pick(g.random, []int64{-1, math.MinInt64, math.MaxInt64})
	}
	switch g.random.IntN(40) {
	case 0:
		request.SortOrder = pb.RangeRequest_DESCEND
	case 1:
		request.SortOrder, request.SortTarget = pb.RangeRequest_ASCEND, pb.RangeRequest_MOD
	case 2:
		request.MinModRevision = 1
	case 3:
		request.SortOrder = pb.RangeRequest_ASCEND
	}
	return request
}

// compaction leaves some history most of the time; the hash after it is taken at the head.
func (g *Generator) compaction() *pb.CompactionRequest {
	request := &pb.CompactionRequest{Physical: g.chance(1, 2)}
	switch g.random.IntN(13) {
	case 0:
		request.Revision = g.compacted
	case 5:
		request.Revision = pick(g.random, []int64{math.MaxInt64, math.MinInt64})
	case 1:
		request.Revision = g.head + 1 + g.random.Int64N(2)
	case 2:
		request.Revision, request.Physical = g.head, true
	case 3:
		request.Revision = 0
	case 4:
		request.Revision = -1
	default:
		request.Revision = g.readable()
		if request.Revision < g.head {
			g.then(func() Step { return call(&pb.HashKVRequest{Revision: g.head}) })
		}
	}
	return request
}

// hashKV is of a revision of which both give a hash or the same refusal.
func (g *Generator) hashKV() *pb.HashKVRequest {
	request := &pb.HashKVRequest{}
	switch g.random.IntN(9) {
	case 0:
		request.Revision = g.head + 1
	case 1:
		request.Revision = g.compacted
	case 2, 3, 4:
		request.Revision = g.readable()
	case 5:
		request.Revision = pick(g.random, []int64{-1, math.MinInt64, math.MaxInt64})
	}
	if !g.hasAnswer(request) {
		request.Revision = -1
	}
	return request
}

func (g *Generator) maintenance() proto.Message {
	switch g.random.IntN(6) {
	case 0:
		return &pb.StatusRequest{}
	case 1:
		return &pb.MemberListRequest{Linearizable: g.chance(1, 2)}
	case 2:
		return &pb.DefragmentRequest{}
	case 3:
		return &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, Alarm: pb.AlarmType(g.random.IntN(3)), MemberID: foreignMember + 1}
	default:
		return &pb.AlarmRequest{Alarm: pb.AlarmType(g.random.IntN(3)), MemberID: uint64(g.random.IntN(2))}
	}
}
