package differential

import (
	"bytes"
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

// Generator chooses the next step from its seed and from what it has seen in the answers so far.
type Generator struct {
	random *rand.Rand
	keys   [][]byte
	// queue holds steps that must follow the last one.
	queue []Step
	steps int

	head      int64
	compacted int64
	// compactedZero says that Compact(0) has succeeded, after which HashKV(0) is a bug of etcd's (etcd-contract 52).
	compactedZero bool
	// unhashed holds the revisions of compactions that ran in the background: the hash of such a revision changes at
	// the moment when its compaction ends (etcd-contract 52).
	unhashed  map[int64]bool
	leases    []int64
	nextLease int64
	watches   watchPlan
}

// NewGenerator starts a run on empty stores.
func NewGenerator(seed uint64) *Generator {
	return &Generator{
		random: rand.New(rand.NewPCG(seed, 0)), keys: keyPool(), head: 1, nextLease: 7_000, unhashed: map[int64]bool{},
	}
}

func (g *Generator) chance(numerator, denominator int) bool {
	return g.random.IntN(denominator) < numerator
}

// Next is the next step.
func (g *Generator) Next() Step {
	if len(g.queue) > 0 {
		step := g.queue[0]
		g.queue = g.queue[1:]
		return step
	}
	g.steps++
	if g.steps%drainEvery == 0 {
		return Step{drain: true}
	}
	switch roll := g.random.IntN(1000); {
	case roll < 250:
		return Step{call: g.put()}
	case roll < 450:
		return Step{call: g.rangeRequest()}
	case roll < 520:
		return Step{call: rangeStream{g.streamable()}}
	case roll < 610:
		return Step{call: g.deleteRange()}
	case roll < 800:
		return Step{call: g.txn(0)}
	case roll < 812:
		return Step{drain: true, call: g.compaction()}
	case roll < 850:
		return Step{call: g.hashKV()}
	case roll < 925:
		return g.leaseStep()
	case roll < 985:
		return g.watchStep()
	default:
		return Step{call: g.maintenance()}
	}
}

// Observe takes note of a left answer; the right one was equal.
func (g *Generator) Observe(request, response proto.Message) {
	if response, ok := response.(interface{ GetHeader() *pb.ResponseHeader }); ok {
		g.head = max(g.head, response.GetHeader().GetRevision())
	}
	switch request := request.(type) {
	case *pb.CompactionRequest:
		g.compacted = max(g.compacted, request.Revision)
		g.compactedZero = g.compactedZero || request.Revision == 0
		if !request.Physical {
			g.unhashed[request.Revision] = true
		}
	case *pb.LeaseGrantRequest:
		if request.TTL == leaseTTL {
			g.leases = append(g.leases, request.ID)
		}
	}
}

// revision is mostly 0 or one that can be read, sometimes a compacted, future or negative one.
func (g *Generator) revision() int64 {
	switch g.random.IntN(20) {
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
	if g.chance(1, 50) {
		request.Limit = -1
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

// compaction leaves some history most of the time. The drain before it puts the barrier, so that the head is one
// higher then; the hash after it is taken there, never at a compact revision.
func (g *Generator) compaction() *pb.CompactionRequest {
	request := &pb.CompactionRequest{Physical: g.chance(1, 2)}
	switch g.random.IntN(12) {
	case 0:
		request.Revision = g.compacted
	case 1:
		request.Revision = g.head + 2
	case 2:
		request.Revision, request.Physical = g.head+1, true
	case 3:
		request.Revision = 0
	case 4:
		request.Revision = -1
	default:
		request.Revision = g.readable()
		g.queue = append(g.queue, Step{call: &pb.HashKVRequest{Revision: g.head + 1}})
	}
	return request
}

func (g *Generator) hashKV() *pb.HashKVRequest {
	revision := int64(0)
	switch g.random.IntN(8) {
	case 0:
		revision = g.head + 1
	case 1:
		revision = g.compacted
	case 2, 3, 4:
		revision = g.readable()
	case 5:
		revision = -1
	}
	if g.unhashed[revision] || (revision == 0 && g.compactedZero) {
		revision = -1
	}
	return &pb.HashKVRequest{Revision: revision}
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
		return &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, Alarm: pb.AlarmType_NOSPACE}
	default:
		return &pb.AlarmRequest{}
	}
}
