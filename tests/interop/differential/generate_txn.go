package differential

import (
	"math"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

const (
	// txnOpsMax is etcd's --max-txn-ops (etcd-contract 5).
	txnOpsMax = 128
	// txnDepthMax is as deep as the generator nests.
	txnDepthMax = 3
)

func (g *Generator) txn(depth int) *pb.TxnRequest {
	if depth == 0 && g.chance(1, 60) {
		return g.wideTxn()
	}
	txn := &pb.TxnRequest{}
	for range g.random.IntN(3) {
		txn.Compare = append(txn.Compare, g.compare())
	}
	if depth == 0 && g.chance(1, 4) {
		g.optimistic(txn)
		return txn
	}
	for range g.random.IntN(5) {
		txn.Success = append(txn.Success, g.operation(depth))
	}
	for range g.random.IntN(4) {
		txn.Failure = append(txn.Failure, g.operation(depth))
	}
	return txn
}

// optimistic makes it one of the shapes that Kubernetes sends (etcd-contract 57).
func (g *Generator) optimistic(txn *pb.TxnRequest) {
	key, revision := g.key(), int64(0)
	if g.chance(1, 2) {
		revision = g.readable()
	}
	txn.Compare = []*pb.Compare{{
		Target: pb.Compare_MOD, Key: key, TargetUnion: &pb.Compare_ModRevision{ModRevision: revision},
	}}
	if g.chance(3, 4) {
		txn.Success = []*pb.RequestOp{putOp(&pb.PutRequest{Key: key, Value: g.value(), Lease: g.liveLease()})}
	} else {
		txn.Success = []*pb.RequestOp{deleteOp(&pb.DeleteRangeRequest{Key: key})}
	}
	txn.Failure = []*pb.RequestOp{rangeOp(&pb.RangeRequest{Key: key})}
}

// wideTxn has as many operations as allowed, or one too many.
func (g *Generator) wideTxn() *pb.TxnRequest {
	txn := &pb.TxnRequest{}
	for n := range txnOpsMax + g.random.IntN(2) {
		txn.Success = append(txn.Success, putOp(&pb.PutRequest{Key: []byte{'w', byte(n)}, Value: g.value()}))
	}
	return txn
}

// readOnlyTxn is one that etcd answers without its log (etcd-contract 9).
func (g *Generator) readOnlyTxn() *pb.TxnRequest {
	txn := &pb.TxnRequest{}
	for range g.random.IntN(3) {
		txn.Compare = append(txn.Compare, g.compare())
	}
	for range 1 + g.random.IntN(3) {
		txn.Success = append(txn.Success, rangeOp(g.rangeRequest()))
		txn.Failure = append(txn.Failure, rangeOp(g.rangeRequest()))
	}
	return txn
}

func (g *Generator) operation(depth int) *pb.RequestOp {
	switch roll := g.random.IntN(100); {
	case roll < 45:
		put := g.put()
		if len(put.Value) > 4<<10 {
			put.Value = nil
		}
		return putOp(put)
	case roll < 60:
		return deleteOp(g.deleteRange())
	case roll < 85 || depth == txnDepthMax:
		return rangeOp(g.rangeRequest())
	case roll < 99:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: g.txn(depth + 1)}}
	default:
		return &pb.RequestOp{}
	}
}

// compare covers all targets and results, ranges, and numbers that no enum knows.
func (g *Generator) compare() *pb.Compare {
	compare := &pb.Compare{Result: pb.Compare_CompareResult(g.random.IntN(4))}
	compare.Key, compare.RangeEnd = g.interval()
	if g.chance(1, 2) {
		compare.RangeEnd = nil
	}
	if g.chance(1, 40) {
		compare.Result = pb.Compare_CompareResult(pick(g.random, []int32{9, -1, math.MaxInt32}))
	}
	switch g.random.IntN(5) {
	case 0:
		compare.Target, compare.TargetUnion = pb.Compare_VERSION, &pb.Compare_Version{Version: g.random.Int64N(5) - 1}
	case 1:
		compare.Target = pb.Compare_CREATE
		compare.TargetUnion = &pb.Compare_CreateRevision{CreateRevision: g.readable()}
	case 2:
		compare.Target, compare.TargetUnion = pb.Compare_MOD, &pb.Compare_ModRevision{ModRevision: g.revision()}
	case 3:
		compare.Target, compare.TargetUnion = pb.Compare_VALUE, &pb.Compare_Value{Value: g.value()}
	case 4:
		compare.Target, compare.TargetUnion = pb.Compare_LEASE, &pb.Compare_Lease{Lease: g.liveLease()}
	}
	if g.chance(1, 40) {
		compare.Target = 9
	}
	switch g.random.IntN(60) {
	case 0:
		compare.TargetUnion = nil
	case 1:
		compare.TargetUnion = &pb.Compare_Value{Value: g.value()}
	case 2:
		compare.TargetUnion = &pb.Compare_ModRevision{ModRevision: g.revision()}
	}
	return compare
}

func putOp(put *pb.PutRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: put}}
}

func deleteOp(request *pb.DeleteRangeRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: request}}
}

func rangeOp(request *pb.RangeRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: request}}
}
