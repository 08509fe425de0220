package differential

import (
	"bytes"
	"fmt"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
)

const (
	quotaBytes = 8 << 20
	// fillBytes is one value; fillsMax of them are far above the quota.
	fillBytes = 100_000
	fillsMax  = 1_000
)

// TestSameAnswersWithoutSpace fills a small quota on both sides. The instant at which each refuses is its own; what is
// refused and served from then on, and the way out, are equal (etcd-contract 42). Revisions count from that instant.
func TestSameAnswersWithoutSpace(t *testing.T) {
	for shards := range shardMaps {
		t.Run(fmt.Sprint("shards", shards), func(t *testing.T) {
			t.Parallel()
			pair := startPair(t, shards, fmt.Sprint("--quota-backend-bytes=", quotaBytes))
			defer pair.close()
			both := newRunner(pair)
			for n := range 10 {
				for _, key := range []string{"/registry/events/k", "a/k", "k"} {
					must(t, both.Do(call(&pb.PutRequest{Key: fmt.Append(nil, key, n), Value: []byte("kept")})))
				}
			}
			must(t, both.Do(call(&pb.LeaseGrantRequest{ID: 5, TTL: leaseTTL})))
			var bases [2]int64
			for n, side := range pair.sides {
				bases[n] = side.fill(t)
			}
			withoutSpace(t, both, bases)
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// fill puts until the quota refuses, and returns the revision then: etcd may refuse a put and store it, where the quota is passed
// between the call and apply.
func (s *side) fill(t *testing.T) int64 {
	t.Helper()
	for n := range fillsMax {
		put := &pb.PutRequest{Key: fmt.Appendf(nil, "/fill/%d", n), Value: bytes.Repeat([]byte{byte(n)}, fillBytes)}
		got := s.call(put)
		if got.status == nil {
			continue
		}
		if got.status.Code() != codes.ResourceExhausted || got.status.Message() != "etcdserver: mvcc: database space exceeded" {
			t.Fatalf("%s: put %d: %v", s.name, n, got)
		}
		return headerOf(s.call(&pb.RangeRequest{Key: []byte("k")}).message).GetRevision()
	}
	t.Fatalf("%s: %d bytes fit into a quota of %d", s.name, fillsMax*fillBytes, quotaBytes)
	return 0
}

func withoutSpace(t *testing.T, both *Runner, bases [2]int64) {
	t.Helper()
	small := &pb.PutRequest{Key: []byte("small"), Value: []byte("x")}
	get := func(key string) *pb.RequestOp { return rangeOp(&pb.RangeRequest{Key: []byte(key)}) }
	drop := func(key string) *pb.RequestOp { return deleteOp(&pb.DeleteRangeRequest{Key: []byte(key)}) }
	disarm := func(member uint64) proto.Message {
		return &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, MemberID: member, Alarm: pb.AlarmType_NOSPACE}
	}
	ask := func(request proto.Message) { askRelative(t, both, bases, request) }
	refused := func() {
		ask(small)
		ask(&pb.LeaseGrantRequest{ID: 6, TTL: leaseTTL})
		ask(&pb.TxnRequest{Success: []*pb.RequestOp{get("k1")}, Failure: []*pb.RequestOp{putOp(small)}})
		ask(&pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestTxn{
			RequestTxn: &pb.TxnRequest{Failure: []*pb.RequestOp{putOp(small)}},
		}}}})
		ask(&pb.PutRequest{Key: []byte("k1"), IgnoreValue: true})
	}
	refused()
	ask(&pb.AlarmRequest{})
	ask(&pb.StatusRequest{})
	ask(&pb.RangeRequest{Key: []byte("k"), RangeEnd: []byte("l")})
	ask(&pb.TxnRequest{Success: []*pb.RequestOp{get("k1"), drop("k1"), get("k1")}})
	ask(&pb.DeleteRangeRequest{Key: []byte("/registry/"), RangeEnd: []byte("/registry0"), PrevKv: true})
	ask(&pb.LeaseRevokeRequest{ID: 5})
	ask(&pb.LeaseKeepAliveRequest{ID: 5})
	ask(&pb.HashKVRequest{Revision: 10})
	// How many there are is each side's own.
	for _, side := range both.pair.sides {
		deleted := side.call(&pb.DeleteRangeRequest{Key: []byte("/fill/"), RangeEnd: []byte("/fill0")})
		if deleted.status != nil {
			t.Fatalf("%s: delete: %v", side.name, deleted)
		}
		compaction := &pb.CompactionRequest{Revision: headerOf(deleted.message).Revision, Physical: true}
		if compacted := side.call(compaction); compacted.status != nil {
			t.Fatalf("%s: compact: %v", side.name, compacted)
		}
	}
	ask(&pb.DefragmentRequest{})
	refused()
	ask(disarm(0))
	refused()
	ask(disarm(ownMember))
	ask(&pb.AlarmRequest{})
	ask(&pb.StatusRequest{})
	ask(small)
	ask(&pb.LeaseGrantRequest{ID: 6, TTL: leaseTTL})
	ask(&pb.RangeRequest{Key: []byte("k"), RangeEnd: []byte("l")})
}

// askRelative compares answers with the revisions of headers counted from `bases`.
func askRelative(t *testing.T, both *Runner, bases [2]int64, request proto.Message) {
	t.Helper()
	var texts [2]string
	for n, side := range both.pair.sides {
		got := side.call(request)
		if got.message != nil {
			normalise(request, got.message)
			if header := headerOf(got.message); header != nil {
				header.Revision -= bases[n]
			}
			if txn, ok := got.message.(*pb.TxnResponse); ok {
				relateOperations(txn, bases[n])
			}
		}
		texts[n] = got.String()
	}
	if texts[0] != texts[1] {
		t.Errorf("%T %s:\n%s: %s\n%s: %s", request, printText(request), both.pair.sides[0].name, texts[0], both.pair.sides[1].name, texts[1])
	}
}

func relateOperations(txn *pb.TxnResponse, base int64) {
	for _, operation := range txn.Responses {
		switch answer := operation.Response.(type) {
		case *pb.ResponseOp_ResponseRange:
			answer.ResponseRange.Header.Revision -= base
		case *pb.ResponseOp_ResponseDeleteRange:
			answer.ResponseDeleteRange.Header.Revision -= base
		}
	}
}
