package differential

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"basalt/tests/interop/harness"
)

// callTimeout bounds one call; etcd's own request timeout is 7 s (etcd-contract 38).
const callTimeout = 30 * time.Second

// rangeStream is a RangeRequest to be sent to KV/RangeStream; its chunks are merged into one answer.
type rangeStream struct{ *pb.RangeRequest }

// answer is a message or a gRPC status, never both.
type answer struct {
	message proto.Message
	status  *status.Status
}

// side is one of the two servers.
type side struct {
	name        string
	kv          pb.KVClient
	lease       pb.LeaseClient
	cluster     pb.ClusterClient
	maintenance pb.MaintenanceClient
	streams     []*watchStream
}

func newSide(t *testing.T, name string, server *harness.Server) *side {
	t.Helper()
	conn := server.Conn(t)
	s := &side{
		name: name, kv: pb.NewKVClient(conn), lease: pb.NewLeaseClient(conn),
		cluster: pb.NewClusterClient(conn), maintenance: pb.NewMaintenanceClient(conn),
	}
	for range streamCount {
		s.streams = append(s.streams, openWatchStream(t, name, conn))
	}
	return s
}

// call sends one request and returns whatever came of it.
func (s *side) call(request proto.Message) answer {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	message, err := s.dispatch(ctx, request)
	if err != nil {
		return answer{status: status.Convert(err)}
	}
	return answer{message: message}
}

func (s *side) dispatch(ctx context.Context, request proto.Message) (proto.Message, error) {
	switch r := request.(type) {
	case rangeStream:
		return s.rangeStream(ctx, r.RangeRequest)
	case *pb.RangeRequest:
		return s.kv.Range(ctx, r)
	case *pb.PutRequest:
		return s.kv.Put(ctx, r)
	case *pb.DeleteRangeRequest:
		return s.kv.DeleteRange(ctx, r)
	case *pb.TxnRequest:
		return s.kv.Txn(ctx, r)
	case *pb.CompactionRequest:
		return s.kv.Compact(ctx, r)
	case *pb.LeaseGrantRequest:
		return s.lease.LeaseGrant(ctx, r)
	case *pb.LeaseRevokeRequest:
		return s.lease.LeaseRevoke(ctx, r)
	case *pb.LeaseKeepAliveRequest:
		return s.keepAlive(ctx, r)
	case *pb.LeaseTimeToLiveRequest:
		return s.lease.LeaseTimeToLive(ctx, r)
	case *pb.LeaseLeasesRequest:
		return s.lease.LeaseLeases(ctx, r)
	case *pb.HashKVRequest:
		return s.maintenance.HashKV(ctx, r)
	case *pb.AlarmRequest:
		return s.maintenance.Alarm(ctx, r)
	case *pb.StatusRequest:
		return s.maintenance.Status(ctx, r)
	case *pb.DefragmentRequest:
		return s.maintenance.Defragment(ctx, r)
	case *pb.MemberListRequest:
		return s.cluster.MemberList(ctx, r)
	default:
		return nil, fmt.Errorf("the runner does not know how to send %T", request)
	}
}

func (s *side) rangeStream(ctx context.Context, request *pb.RangeRequest) (proto.Message, error) {
	stream, err := s.kv.RangeStream(ctx, request)
	if err != nil {
		return nil, err
	}
	merged := &pb.RangeResponse{}
	for {
		chunk, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return merged, nil
		}
		if err != nil {
			return nil, err
		}
		proto.Merge(merged, chunk.RangeResponse)
	}
}

func (s *side) keepAlive(ctx context.Context, request *pb.LeaseKeepAliveRequest) (proto.Message, error) {
	stream, err := s.lease.LeaseKeepAlive(ctx, grpc.WaitForReady(true))
	if err != nil {
		return nil, err
	}
	if err := stream.Send(request); err != nil {
		return nil, err
	}
	if err := stream.CloseSend(); err != nil {
		return nil, err
	}
	return stream.Recv()
}
