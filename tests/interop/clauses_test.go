package interop

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"basalt/tests/interop/harness"
)

// The clauses of the contract that are best shown by a few calls, one test each. All hold for genuine etcd too.

func newStore(t *testing.T, args ...string) (*harness.Server, services, context.Context) {
	t.Helper()
	server := harness.StartUnderTest(t, args...)
	return server, servicesOf(server.Conn(t)), harness.Context(t, time.Minute)
}

// must ends the test at an error.
func must[T any](answer T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
}

func putValue(t *testing.T, ctx context.Context, s services, key, value string) int64 {
	t.Helper()
	return must(s.kv.Put(ctx, &pb.PutRequest{Key: []byte(key), Value: []byte(value)}))(t).Header.Revision
}

func opGet(key string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte(key)}}}
}

func opDelete(key string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte(key)}}}
}

// keysIn are the keys of a range, with blanks between them.
func keysIn(t *testing.T, ctx context.Context, s services, key, end string) string {
	t.Helper()
	response := must(s.kv.Range(ctx, &pb.RangeRequest{Key: []byte(key), RangeEnd: []byte(end)}))(t)
	var keys []string
	for _, kv := range response.Kvs {
		keys = append(keys, fmt.Sprintf("%q", kv.Key))
	}
	return strings.Join(keys, " ")
}

// TestWhatTakesNoRevision: etcd-contract 2.
func TestWhatTakesNoRevision(t *testing.T) {
	_, s, ctx := newStore(t)
	revision := putValue(t, ctx, s, "a", "1")
	absent := &pb.Compare{Target: pb.Compare_VERSION, Key: []byte("b"), TargetUnion: &pb.Compare_Version{Version: 9}}
	for name, header := range map[string]*pb.ResponseHeader{
		"delete of nothing": must(s.kv.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: []byte("b")}))(t).Header,
		"grant":             must(s.lease.LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: 9, TTL: 100}))(t).Header,
		"revoke":            must(s.lease.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: 9}))(t).Header,
		"failed compare":    must(s.kv.Txn(ctx, &pb.TxnRequest{Compare: []*pb.Compare{absent}, Success: []*pb.RequestOp{opPut("b")}}))(t).Header,
		"read-only txn":     must(s.kv.Txn(ctx, &pb.TxnRequest{Success: []*pb.RequestOp{opGet("a")}}))(t).Header,
	} {
		if header.Revision != revision {
			t.Errorf("%s: revision %d, want %d", name, header.Revision, revision)
		}
	}
	if next := putValue(t, ctx, s, "a", "2"); next != revision+1 {
		t.Errorf("the next put got revision %d after %d", next, revision)
	}
}

// TestComparesSeeTheStateBefore: etcd-contract 7, also in a nested transaction.
func TestComparesSeeTheStateBefore(t *testing.T) {
	_, s, ctx := newStore(t)
	inner := &pb.TxnRequest{
		Compare: []*pb.Compare{{Target: pb.Compare_VERSION, Key: []byte("a"), TargetUnion: &pb.Compare_Version{Version: 0}}},
		Success: []*pb.RequestOp{opPut("old")}, Failure: []*pb.RequestOp{opPut("new")},
	}
	response := must(s.kv.Txn(ctx, &pb.TxnRequest{Success: []*pb.RequestOp{opPut("a"), opTxn(inner)}}))(t)
	if !response.Responses[1].GetResponseTxn().Succeeded {
		t.Error("the nested compare has seen the outer put")
	}
	expectText(t, "keys", keysIn(t, ctx, s, "a", "z"), `"a" "old"`)
}

// TestReadsInsideATransaction: etcd-contract 10.
func TestReadsInsideATransaction(t *testing.T) {
	_, s, ctx := newStore(t)
	response := must(s.kv.Txn(ctx, &pb.TxnRequest{Success: []*pb.RequestOp{
		opPut("a"), opGet("a"), opTxn(&pb.TxnRequest{Success: []*pb.RequestOp{opGet("a")}}), opDelete("b"),
	}}))(t)
	read := response.Responses[1].GetResponseRange()
	if len(read.Kvs) != 1 || read.Kvs[0].ModRevision != 2 {
		t.Errorf("the read inside has seen %v", read)
	}
	for n, header := range []*pb.ResponseHeader{response.Responses[0].GetResponsePut().Header, read.Header} {
		if header.Revision != 2 || header.ClusterId != 0 || header.MemberId != 0 || header.RaftTerm != 0 {
			t.Errorf("header %d inside: %v", n, header)
		}
	}
	nested := response.Responses[2].GetResponseTxn()
	if nested.Header == nil || nested.Header.Revision != 0 || len(nested.Responses[0].GetResponseRange().Kvs) != 1 {
		t.Errorf("nested: %v", nested)
	}
	leased := &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("c"), Lease: 7}}}
	expectStatus(t, "unknown lease", txn(&pb.TxnRequest{Success: []*pb.RequestOp{opPut("d"), leased}})(ctx, s),
		codes.NotFound, "etcdserver: requested lease not found")
	expectText(t, "keys", keysIn(t, ctx, s, "a", "z"), `"a"`)
}

// TestCompactionOfRevisions: etcd-contract 13. A tombstone at the compact revision is still told.
func TestCompactionOfRevisions(t *testing.T) {
	_, s, ctx := newStore(t)
	putValue(t, ctx, s, "a", "1")
	putValue(t, ctx, s, "a", "2")
	must(s.kv.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: []byte("a")}))(t)
	putValue(t, ctx, s, "b", "1")
	const compacted, future = "etcdserver: mvcc: required revision has been compacted", "etcdserver: mvcc: required revision is a future revision"
	for _, step := range []struct {
		revision int64
		code     codes.Code
		text     string
	}{{0, codes.OK, ""}, {0, codes.OutOfRange, compacted}, {6, codes.OutOfRange, future}, {4, codes.OK, ""}, {4, codes.OutOfRange, compacted}} {
		_, err := s.kv.Compact(ctx, &pb.CompactionRequest{Revision: step.revision, Physical: true})
		expectStatus(t, fmt.Sprint("compact ", step.revision), err, step.code, step.text)
	}
	stream := must(s.watch.Watch(ctx))(t)
	create := &pb.WatchCreateRequest{Key: []byte("a"), StartRevision: 4}
	if err := stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}); err != nil {
		t.Fatal(err)
	}
	must(stream.Recv())(t)
	told := must(stream.Recv())(t)
	if len(told.Events) != 1 || told.Events[0].Type != mvccpb.Event_DELETE || told.Events[0].Kv.ModRevision != 4 {
		t.Errorf("from the compact revision on: %v", told)
	}
}

// TestEndsOfRanges: etcd-contract 17.
func TestEndsOfRanges(t *testing.T) {
	_, s, ctx := newStore(t)
	for _, key := range []string{"\x00", "a", "a\x00", "b", "\xff\xff"} {
		putValue(t, ctx, s, key, "")
	}
	for _, c := range []struct{ key, end, want string }{
		{"\x00", "\x00", `"\x00" "a" "a\x00" "b" "\xff\xff"`}, {"a\x00", "\x00", `"a\x00" "b" "\xff\xff"`},
		{"a", "a\x00", `"a"`}, {"b", "a", ""}, {"a", "a", ""}, {"a", "", `"a"`},
	} {
		expectText(t, fmt.Sprintf("%q to %q", c.key, c.end), keysIn(t, ctx, s, c.key, c.end), c.want)
	}
	for name, call := range map[string]func(context.Context, services) error{
		"put": put(&pb.PutRequest{}), "range": get(&pb.RangeRequest{}), "compare": txn(&pb.TxnRequest{Compare: []*pb.Compare{{}}}),
	} {
		expectStatus(t, name, call(ctx, s), codes.InvalidArgument, "etcdserver: key is not provided")
	}
}

// TestLeasesThatAreGone: etcd-contract 35 and 36.
func TestLeasesThatAreGone(t *testing.T) {
	_, s, ctx := newStore(t)
	must(s.lease.LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: 7, TTL: 100}))(t)
	must(s.lease.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: 7}))(t)
	stream := must(s.lease.LeaseKeepAlive(ctx))(t)
	for _, id := range []int64{7, 8} {
		if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: id}); err != nil {
			t.Fatal(err)
		}
		if alive := must(stream.Recv())(t); alive.ID != id || alive.TTL != 0 {
			t.Errorf("keepalive of %d: %v", id, alive)
		}
		left := must(s.lease.LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: id, Keys: true}))(t)
		if left.ID != id || left.TTL != -1 || left.GrantedTTL != 0 || len(left.Keys) != 0 {
			t.Errorf("time to live of %d: %v", id, left)
		}
	}
}

// TestCallsThatWantALeader: etcd-contract 39, on a node that leads.
func TestCallsThatWantALeader(t *testing.T) {
	_, s, ctx := newStore(t)
	ctx = metadata.AppendToOutgoingContext(ctx, "hasleader", "true")
	putValue(t, ctx, s, "a", "1")
	stream := must(s.watch.Watch(ctx))(t)
	create := &pb.WatchCreateRequest{Key: []byte("a"), StartRevision: 2}
	if err := stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}); err != nil {
		t.Fatal(err)
	}
	must(stream.Recv())(t)
	if told := must(stream.Recv())(t); len(told.Events) != 1 {
		t.Errorf("told %v", told)
	}
}

// TestHeaders: etcd-contract 44.
func TestHeaders(t *testing.T) {
	_, s, ctx := newStore(t)
	revision := putValue(t, ctx, s, "a", "1")
	members := must(s.cluster.MemberList(ctx, &pb.MemberListRequest{}))(t)
	for name, header := range map[string]*pb.ResponseHeader{
		"range":   must(s.kv.Range(ctx, &pb.RangeRequest{Key: []byte("a")}))(t).Header,
		"status":  must(s.maintenance.Status(ctx, &pb.StatusRequest{}))(t).Header,
		"alarm":   must(s.maintenance.Alarm(ctx, &pb.AlarmRequest{}))(t).Header,
		"hash":    must(s.maintenance.HashKV(ctx, &pb.HashKVRequest{}))(t).Header,
		"leases":  must(s.lease.LeaseLeases(ctx, &pb.LeaseLeasesRequest{}))(t).Header,
		"members": members.Header,
	} {
		want := revision
		if name == "members" {
			want = 0
		}
		if header.ClusterId == 0 || header.MemberId != members.Members[0].ID || header.RaftTerm == 0 || header.Revision != want {
			t.Errorf("header of %s: %v", name, header)
		}
	}
	if answer := must(s.maintenance.Defragment(ctx, &pb.DefragmentRequest{}))(t); answer.Header != nil {
		t.Errorf("defragment: %v", answer)
	}
}

// TestSnapshotStream: etcd-contract 51.
func TestSnapshotStream(t *testing.T) {
	const chunkBytes = 32 << 10
	_, s, ctx := newStore(t)
	for n := range 20 {
		putValue(t, ctx, s, fmt.Sprint(n), strings.Repeat("x", 10_000))
	}
	stream := must(s.maintenance.Snapshot(ctx, &pb.SnapshotRequest{}))(t)
	hash, bytes := sha256.New(), uint64(0)
	var last *pb.SnapshotResponse
	for {
		chunk, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if last != nil {
			hash.Write(last.Blob)
			bytes += uint64(len(last.Blob))
			if len(last.Blob) > chunkBytes || last.Version != "3.7.0" {
				t.Errorf("a chunk of %d bytes, version %q", len(last.Blob), last.Version)
			}
		}
		last = chunk
	}
	if bytes%512 != 0 || !slices.Equal(last.Blob, hash.Sum(nil)) || last.RemainingBytes != 0 {
		t.Errorf("%d bytes, then %x with %d remaining, the sum is %x", bytes, last.Blob, last.RemainingBytes, hash.Sum(nil))
	}
}

// TestErrorsInStatus: etcd-contract 54.
func TestErrorsInStatus(t *testing.T) {
	_, s, ctx := newStore(t)
	healthy := must(s.maintenance.Status(ctx, &pb.StatusRequest{}))(t)
	if len(healthy.Errors) != 0 || healthy.DbSizeQuota != 2<<30 || healthy.StorageVersion != "3.7.0" || healthy.DowngradeInfo == nil {
		t.Errorf("status: %v", healthy)
	}
	id := healthy.Header.MemberId
	must(s.maintenance.Alarm(ctx, &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: id, Alarm: pb.AlarmType_NOSPACE}))(t)
	armed := must(s.maintenance.Status(ctx, &pb.StatusRequest{}))(t)
	if want := fmt.Sprintf("memberID:%d  alarm:NOSPACE", id); len(armed.Errors) != 1 || strings.TrimSpace(armed.Errors[0]) != want {
		t.Errorf("errors are %q, want %q", armed.Errors, want)
	}
}

// TestRangeStreamSortedWithoutOrder: a target without an order sorts a stream as it does a Range (etcd-contract 15, 18). In etcd
// that holds within a message, of ten keys at first.
func TestRangeStreamSortedWithoutOrder(t *testing.T) {
	server, s, ctx := newStore(t)
	keys := 9
	if server.Kind == harness.Basalt {
		keys = 40
	}
	for n := range keys {
		putValue(t, ctx, s, fmt.Sprintf("k%02d", n), fmt.Sprintf("%02d", n*7%keys))
	}
	for _, request := range []*pb.RangeRequest{
		{SortTarget: pb.RangeRequest_VALUE}, {SortTarget: pb.RangeRequest_MOD}, {SortTarget: pb.RangeRequest_CREATE},
		{SortTarget: pb.RangeRequest_VALUE, KeysOnly: true},
		{SortTarget: pb.RangeRequest_VALUE, CountOnly: true}, {SortTarget: pb.RangeRequest_VERSION, Revision: 4},
	} {
		request.Key, request.RangeEnd = []byte("k"), []byte("l")
		if server.Kind == harness.Basalt {
			// etcd counts keys twice then.
			request.Limit = 5
		}
		want := must(s.kv.Range(ctx, request))(t)
		stream, merged := must(s.kv.RangeStream(ctx, request))(t), &pb.RangeResponse{}
		for {
			chunk, err := stream.Recv()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			proto.Merge(merged, chunk.RangeResponse)
		}
		if !proto.Equal(want, merged) {
			t.Errorf("%v: %v, want %v", request, merged, want)
		}
	}
}

// TestWhatTheAPIServerLooksFor: etcd-contract 56.
func TestWhatTheAPIServerLooksFor(t *testing.T) {
	_, s, ctx := newStore(t)
	if version := must(s.maintenance.Status(ctx, &pb.StatusRequest{}))(t).Version; version != "3.7.3" {
		t.Errorf("version %q", version)
	}
	revision := putValue(t, ctx, s, "a", "1")
	stream := must(s.kv.RangeStream(ctx, &pb.RangeRequest{Key: []byte("a")}))(t)
	if chunk := must(stream.Recv())(t); len(chunk.RangeResponse.Kvs) != 1 {
		t.Errorf("range stream: %v", chunk)
	}
	watch := must(s.watch.Watch(ctx))(t)
	// One after the other: in etcd progress may overtake an acknowledgement.
	var answer *pb.WatchResponse
	for _, request := range []*pb.WatchRequest{
		{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: []byte("a")}}},
		{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}},
	} {
		if err := watch.Send(request); err != nil {
			t.Fatal(err)
		}
		answer = must(watch.Recv())(t)
	}
	if answer.WatchId != -1 || answer.Header.Revision != revision {
		t.Errorf("progress: %v", answer)
	}
}
