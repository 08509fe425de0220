package metrics

import (
	"context"
	"errors"
	"io"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
)

// keys puts, reads, deletes and compares, well and badly.
func (w *worker) keys() {
	for _, key := range strings.Fields("a b c d e") {
		w.call("KV/Put", putOf("/registry/pods/"+key, "value"), nil)
	}
	w.call("KV/Put", &pb.PutRequest{Key: []byte("/registry/pods/a"), Value: []byte("second"), PrevKv: true}, nil)
	w.call("KV/Put", &pb.PutRequest{Key: []byte("/registry/pods/a"), IgnoreValue: true}, nil)
	w.call("KV/Put", putOf("", "no key"), nil)
	w.call("KV/Put", &pb.PutRequest{Key: []byte("x"), Lease: 999}, nil)
	w.call("KV/Put", &pb.PutRequest{Key: []byte("nothing"), IgnoreValue: true}, nil)

	pods, end := []byte("/registry/pods/"), []byte("/registry/pods0")
	for _, request := range []*pb.RangeRequest{
		{Key: []byte("/registry/pods/a")}, {Key: []byte("nothing")}, {Key: pods, RangeEnd: end},
		{Key: pods, RangeEnd: end, Limit: 2}, {Key: pods, RangeEnd: end, CountOnly: true},
		{Key: pods, RangeEnd: end, KeysOnly: true, Serializable: true}, {Key: pods, RangeEnd: end, Revision: 3},
		{Key: pods, RangeEnd: end, Revision: 9999}, {Key: nil},
		{Key: pods, RangeEnd: end, SortTarget: pb.RangeRequest_MOD, SortOrder: pb.RangeRequest_DESCEND},
	} {
		w.call("KV/Range", request, nil)
	}
	w.stream("KV/RangeStream", &pb.RangeRequest{Key: pods, RangeEnd: end})

	for _, txn := range []*pb.TxnRequest{
		{Success: []*pb.RequestOp{opPut("t", "1"), opPut("u", "1"), opRange("t", ""), opDelete("nothing", "")}},
		{Compare: []*pb.Compare{exists("nothing")}, Success: []*pb.RequestOp{opPut("t", "2")}, Failure: []*pb.RequestOp{opRange("t", "v")}},
		{Success: []*pb.RequestOp{opRange("t", ""), opRange("u", ""), opRange("a", "z")}},
		{Success: []*pb.RequestOp{opRange("t", "")}}, {},
		{Success: []*pb.RequestOp{opTxn(&pb.TxnRequest{Success: []*pb.RequestOp{opPut("n", "1"), opRange("n", "")}}), opRange("n", "")}},
		{Compare: []*pb.Compare{exists("t")}, Success: []*pb.RequestOp{opDelete("t", "v")}},
		{Success: []*pb.RequestOp{opPut("t", "1"), opPut("t", "2")}},
		{Success: []*pb.RequestOp{opPut("", "1")}},
		// What the API server sends for an update that finds another revision.
		{Compare: []*pb.Compare{{Key: []byte("t"), Target: pb.Compare_MOD, TargetUnion: &pb.Compare_ModRevision{ModRevision: 999}}},
			Success: []*pb.RequestOp{opPut("t", "3")}, Failure: []*pb.RequestOp{opRange("t", "")}},
	} {
		w.call("KV/Txn", txn, nil)
	}
	for _, request := range []*pb.DeleteRangeRequest{
		{Key: []byte("/registry/pods/b")}, {Key: []byte("nothing")}, {Key: []byte("/registry/pods/c"), RangeEnd: []byte("/registry/pods/e"), PrevKv: true}, {},
	} {
		w.call("KV/DeleteRange", request, nil)
	}
	// Clients that say nothing, or something else, of their version.
	w.callIn(metadata.NewOutgoingContext(w.ctx, metadata.MD{}), "KV/Range", &pb.RangeRequest{Key: []byte("a")}, nil)
	w.callIn(metadata.NewOutgoingContext(w.ctx, metadata.Pairs("client-api-version", "3.5", "hasleader", "true")), "KV/Range", &pb.RangeRequest{Key: []byte("a")}, nil)
}

// compactions drops history, once without waiting and once with, and asks for what is gone.
func (w *worker) compactions() {
	w.call("KV/Compact", &pb.CompactionRequest{Revision: 12, Physical: true}, nil)
	w.call("KV/Compact", &pb.CompactionRequest{Revision: 3}, nil)
	w.call("KV/Compact", &pb.CompactionRequest{Revision: 9999}, nil)
	w.call("KV/Range", &pb.RangeRequest{Key: []byte("a"), Revision: 2}, nil)
	w.call("KV/Txn", &pb.TxnRequest{Success: []*pb.RequestOp{
		{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte("a"), Revision: 2}}},
	}}, nil)
}

// watches has three watchers on one stream, and one of history on another.
func (w *worker) watches() {
	open := func(ctx context.Context) pb.Watch_WatchClient {
		w.t.Helper()
		stream, err := pb.NewWatchClient(w.conn).Watch(ctx)
		if err != nil {
			w.t.Fatal(err)
		}
		return stream
	}
	send := func(stream pb.Watch_WatchClient, request *pb.WatchCreateRequest) {
		w.t.Helper()
		if err := stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: request}}); err != nil {
			w.t.Fatal(err)
		}
	}
	receive := func(stream pb.Watch_WatchClient) *pb.WatchResponse {
		w.t.Helper()
		response, err := stream.Recv()
		if err != nil {
			w.t.Fatal(err)
		}
		return response
	}
	// Answers that come in any number of messages, until so many events are there.
	events := func(stream pb.Watch_WatchClient, count int) {
		w.t.Helper()
		for count > 0 {
			count -= len(receive(stream).Events)
		}
	}
	live := open(w.streams)
	for _, key := range strings.Fields("w1 w2 w3") {
		send(live, &pb.WatchCreateRequest{Key: []byte(key), PrevKv: true})
		receive(live)
	}
	for _, key := range strings.Fields("w1 w2 w3 w1") {
		w.call("KV/Put", putOf(key, "value"), nil)
		events(live, 1)
	}
	w.call("KV/DeleteRange", &pb.DeleteRangeRequest{Key: []byte("w"), RangeEnd: []byte("x")}, nil)
	events(live, 3)
	if err := live.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}}); err != nil {
		w.t.Fatal(err)
	}
	receive(live)
	if err := live.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: 1}}}); err != nil {
		w.t.Fatal(err)
	}
	receive(live)
	ctx, cancel := context.WithCancel(w.ctx)
	past := open(ctx)
	send(past, &pb.WatchCreateRequest{Key: []byte("/registry/"), RangeEnd: []byte("/registry0"), StartRevision: 2})
	receive(past)
	events(past, 10)
	w.awaitStreams(2)
	cancel()
	w.awaitStreams(1)
}

// awaitStreams waits until the server has so many watch streams.
func (w *worker) awaitStreams(count float64) {
	w.t.Helper()
	w.await("another number of watch streams", func() bool {
		return scrape(w.t, w.server, nil)["etcd_debugging_mvcc_watch_stream_total"].series[""].value == count
	})
}

// stream does a call that is answered in many messages, up to its end.
func (w *worker) stream(method string, request proto.Message) {
	w.t.Helper()
	stream, err := w.conn.NewStream(w.ctx, &grpc.StreamDesc{ServerStreams: true}, "/etcdserverpb."+method)
	if err == nil {
		err = stream.SendMsg(request)
	}
	if err == nil {
		err = stream.CloseSend()
	}
	for err == nil {
		err = stream.RecvMsg(&emptypb.Empty{})
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	w.note(method, err)
}

// leases grants, keeps, revokes, and lets one end.
func (w *worker) leases() {
	for _, request := range []*pb.LeaseGrantRequest{{ID: 7, TTL: 100}, {ID: 8, TTL: 3000}, {ID: 7, TTL: 100}, {ID: 9, TTL: 5}, {ID: 10, TTL: 1 << 40}} {
		w.call("Lease/LeaseGrant", request, nil)
	}
	for lease := range int64(3) {
		w.call("KV/Put", &pb.PutRequest{Key: []byte("leased"), Value: []byte("value"), Lease: 7 + lease}, nil)
	}
	w.keepAlive(7, 8, 7, 77)
	w.call("Lease/LeaseTimeToLive", &pb.LeaseTimeToLiveRequest{ID: 7, Keys: true}, nil)
	w.call("Lease/LeaseTimeToLive", &pb.LeaseTimeToLiveRequest{ID: 77}, nil)
	w.call("Lease/LeaseLeases", &pb.LeaseLeasesRequest{}, nil)
	w.call("Lease/LeaseRevoke", &pb.LeaseRevokeRequest{ID: 7}, nil)
	w.call("Lease/LeaseRevoke", &pb.LeaseRevokeRequest{ID: 77}, nil)
	w.await("the end of a lease", func() bool {
		left := scrape(w.t, w.server, nil)["etcd_debugging_server_lease_expired_total"]
		return left.series[""].value >= 1
	})
}

// keepAlive keeps leases on a stream that stays open.
func (w *worker) keepAlive(leases ...int64) {
	w.t.Helper()
	stream, err := pb.NewLeaseClient(w.conn).LeaseKeepAlive(w.streams)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, lease := range leases {
		if err = stream.Send(&pb.LeaseKeepAliveRequest{ID: lease}); err != nil {
			w.t.Fatal(err)
		}
		if _, err = stream.Recv(); err != nil {
			w.t.Fatal(err)
		}
	}
}
