package metrics

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"basalt/tests/interop/harness"
)

// worker does one thing after the other on a server and notes how each ended.
type worker struct {
	t      *testing.T
	server *harness.Server
	conn   *grpc.ClientConn
	ctx    context.Context
	// ended has a line for each step.
	ended []string
	// streams are those that stay open; closing ends them.
	streams context.Context
	closing context.CancelFunc
}

// newWorker waits before its first call until the server has settled: etcd sets the cluster's version by a proposal of
// its own some time after it serves.
func newWorker(t *testing.T, server *harness.Server) *worker {
	ctx := metadata.AppendToOutgoingContext(harness.Context(t, 3*time.Minute), "client-api-version", "3.7")
	w := &worker{t: t, server: server, conn: server.Conn(t), ctx: ctx}
	w.streams, w.closing = context.WithCancel(ctx)
	t.Cleanup(w.closing)
	w.await("the cluster's version", func() bool {
		for _, is := range scrape(t, server, nil)["etcd_cluster_version"].series {
			if is.value == 1 {
				return true
			}
		}
		return false
	})
	return w
}

// name gives the id of the member a name that does not differ from run to run.
func (w *worker) name(names map[string]string) {
	w.t.Helper()
	status := &pb.StatusResponse{}
	w.call("Maintenance/Status", &pb.StatusRequest{}, status)
	names[fmt.Sprintf("%x", status.Header.MemberId)] = "own"
}

// settled gives the page once what ended on the client's side has ended on the server's too.
func (w *worker) settled(names map[string]string) page {
	w.t.Helper()
	var last page
	w.await("the end of all calls", func() bool {
		last = scrape(w.t, w.server, names)
		open := 0.0
		for _, is := range last["grpc_server_started_total"].series {
			open += is.value
		}
		for _, is := range last["grpc_server_handled_total"].series {
			open -= is.value
		}
		return open == 0
	})
	return last
}

// call does one unary call; an answer that nobody wants may be nil.
func (w *worker) call(method string, request, answer proto.Message) {
	w.t.Helper()
	w.callIn(w.ctx, method, request, answer)
}

func (w *worker) callIn(ctx context.Context, method string, request, answer proto.Message) {
	w.t.Helper()
	if answer == nil {
		answer = &emptypb.Empty{}
	}
	if !strings.HasPrefix(method, "/") {
		method = "/etcdserverpb." + method
	}
	err := w.conn.Invoke(ctx, method, request, answer)
	w.note(method, err)
}

// try does a call of which nobody wants to know how it ends.
func (w *worker) try(method string, request proto.Message) {
	_ = w.conn.Invoke(w.ctx, "/etcdserverpb."+method, request, &emptypb.Empty{})
}

// watchForever keeps a watch open, which nobody reads.
func (w *worker) watchForever() {
	w.t.Helper()
	stream, err := pb.NewWatchClient(w.conn).Watch(w.streams)
	if err != nil {
		w.t.Fatal(err)
	}
	create := &pb.WatchCreateRequest{Key: []byte("/quiet")}
	if err := stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}); err != nil {
		w.t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		w.t.Fatal(err)
	}
}

// note writes down how a step ended.
func (w *worker) note(what string, err error) {
	w.ended = append(w.ended, fmt.Sprintf("%d %s: %v", len(w.ended), what, status.Code(err)))
}

// get asks a page for its status.
func (w *worker) get(path string) {
	w.t.Helper()
	request, err := http.NewRequestWithContext(w.ctx, http.MethodGet, w.server.Endpoint()+path, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		w.t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, response.Body)
	response.Body.Close()
	w.ended = append(w.ended, fmt.Sprintf("%d GET %s: %d", len(w.ended), path, response.StatusCode))
}

// await waits until something is so.
func (w *worker) await(what string, is func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(60 * time.Second); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("%s at %s never came", what, w.server.Endpoint())
		}
	}
}

func putOf(key, value string) *pb.PutRequest {
	return &pb.PutRequest{Key: []byte(key), Value: []byte(value)}
}

func rangeOf(key, end string) *pb.RangeRequest {
	return &pb.RangeRequest{Key: []byte(key), RangeEnd: []byte(end)}
}

func leaseOf(id int64) *pb.LeaseGrantRequest { return &pb.LeaseGrantRequest{ID: id, TTL: 1000} }

func promotionOf(id uint64) *pb.MemberPromoteRequest { return &pb.MemberPromoteRequest{ID: id} }

func opPut(key, value string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: putOf(key, value)}}
}

func opRange(key, end string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte(key), RangeEnd: []byte(end)}}}
}

func opDelete(key, end string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte(key), RangeEnd: []byte(end)}}}
}

func opTxn(txn *pb.TxnRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: txn}}
}

// exists compares whether a key is there.
func exists(key string) *pb.Compare {
	return &pb.Compare{
		Key: []byte(key), Target: pb.Compare_VERSION, Result: pb.Compare_GREATER,
		TargetUnion: &pb.Compare_Version{Version: 0},
	}
}
