package differential

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"basalt/tests/interop/harness"
)

// callTimeout bounds one call; etcd's own request timeout is 7 s (etcd-contract 38).
const callTimeout = 60 * time.Second

// rangeStream is a RangeRequest to be sent to KV/RangeStream; its chunks are merged into one answer.
type rangeStream struct{ *pb.RangeRequest }

// answer is a message or a gRPC status, never both.
type answer struct {
	message proto.Message
	status  *status.Status
}

func (a answer) wire() string {
	if a.status != nil {
		return a.String()
	}
	return wire(a.message)
}

func (a answer) String() string {
	if a.status != nil {
		return fmt.Sprintf("%v: %s", a.status.Code(), a.status.Message())
	}
	return printText(a.message)
}

// storageVersion is that of etcd 3.7.
const storageVersion = "3.7.0"

// ownMember stands for the id of the member that is asked, and foreignMember for one that is not there.
const (
	ownMember     = 1
	foreignMember = 77
)

// side is one of the two servers.
type side struct {
	name        string
	conn        *grpc.ClientConn
	member      uint64
	kv          pb.KVClient
	lease       pb.LeaseClient
	cluster     pb.ClusterClient
	maintenance pb.MaintenanceClient
	auth        pb.AuthClient
	// tokens of people who showed their passwords.
	tokens  map[string]string
	streams []*watchStream
}

func newSide(t testing.TB, name string, server *harness.Server) *side {
	t.Helper()
	conn := server.Conn(t)
	s := &side{
		name: name, conn: conn, kv: pb.NewKVClient(conn), lease: pb.NewLeaseClient(conn),
		cluster: pb.NewClusterClient(conn), maintenance: pb.NewMaintenanceClient(conn), auth: pb.NewAuthClient(conn),
		tokens: map[string]string{stranger: "abcdefghijklmnop.1"},
	}
	s.member = s.settled(t)
	for range streamCount {
		s.streams = append(s.streams, openWatchStream(t, name, conn))
	}
	return s
}

// settled waits until the server shows its storage version, which etcd does a moment after it is ready only, and returns
// the id of its member.
func (s *side) settled(t testing.TB) uint64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	for {
		status, err := s.maintenance.Status(ctx, &pb.StatusRequest{}, grpc.WaitForReady(true))
		if err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		if status.StorageVersion == storageVersion {
			return status.Header.MemberId
		}
	}
}

func (s *side) close() {
	for _, stream := range s.streams {
		stream.close()
	}
	_ = s.conn.Close() // it may be closed already
}

// call sends one request and returns whatever came of it.
func (s *side) call(request proto.Message) answer {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	var message proto.Message
	var err error
	if of, ok := request.(as); ok {
		message, err = s.dispatchAs(ctx, of)
	} else {
		message, err = s.dispatch(ctx, request)
	}
	if err != nil {
		return answer{status: status.Convert(err)}
	}
	return answer{message: message}
}

// dispatchAs shows a token, and gets one if need be; who is told that it is none gets another one the next time.
func (s *side) dispatchAs(ctx context.Context, request as) (proto.Message, error) {
	token := s.tokens[request.person]
	if token == "" && request.person != nobody {
		login, err := s.auth.Authenticate(ctx, &pb.AuthenticateRequest{Name: request.person, Password: request.person})
		if err != nil {
			return nil, err
		}
		token = login.Token
		s.tokens[request.person] = token
	}
	if token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "token", token)
	}
	message, err := s.dispatch(ctx, request.Message)
	_, disabled := request.Message.(*pb.AuthDisableRequest)
	if status.Code(err) == codes.Unauthenticated && request.person != stranger {
		delete(s.tokens, request.person)
	}
	if disabled && err == nil {
		s.tokens = map[string]string{stranger: s.tokens[stranger]}
	}
	return message, err
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
		return s.alarm(ctx, r)
	case *pb.StatusRequest:
		return s.status(ctx, r)
	case *pb.DefragmentRequest:
		return s.maintenance.Defragment(ctx, r)
	case *pb.MemberListRequest:
		return s.cluster.MemberList(ctx, r)
	case *pb.AuthEnableRequest:
		return s.auth.AuthEnable(ctx, r)
	case *pb.AuthDisableRequest:
		return s.auth.AuthDisable(ctx, r)
	case *pb.AuthStatusRequest:
		return s.auth.AuthStatus(ctx, r)
	case *pb.AuthenticateRequest:
		return s.auth.Authenticate(ctx, r)
	case *pb.AuthUserAddRequest:
		return s.auth.UserAdd(ctx, r)
	case *pb.AuthUserDeleteRequest:
		return s.auth.UserDelete(ctx, r)
	case *pb.AuthUserChangePasswordRequest:
		return s.auth.UserChangePassword(ctx, r)
	case *pb.AuthUserGrantRoleRequest:
		return s.auth.UserGrantRole(ctx, r)
	case *pb.AuthUserRevokeRoleRequest:
		return s.auth.UserRevokeRole(ctx, r)
	case *pb.AuthUserGetRequest:
		return s.auth.UserGet(ctx, r)
	case *pb.AuthUserListRequest:
		return s.auth.UserList(ctx, r)
	case *pb.AuthRoleAddRequest:
		return s.auth.RoleAdd(ctx, r)
	case *pb.AuthRoleDeleteRequest:
		return s.auth.RoleDelete(ctx, r)
	case *pb.AuthRoleGetRequest:
		return s.auth.RoleGet(ctx, r)
	case *pb.AuthRoleListRequest:
		return s.auth.RoleList(ctx, r)
	case *pb.AuthRoleGrantPermissionRequest:
		return s.auth.RoleGrantPermission(ctx, r)
	case *pb.AuthRoleRevokePermissionRequest:
		return s.auth.RoleRevokePermission(ctx, r)
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

// alarm puts this member's id in the place of ownMember, and back.
func (s *side) alarm(ctx context.Context, request *pb.AlarmRequest) (proto.Message, error) {
	request = proto.Clone(request).(*pb.AlarmRequest)
	if request.MemberID == ownMember {
		request.MemberID = s.member
	}
	response, err := s.maintenance.Alarm(ctx, request)
	if err != nil {
		return nil, err
	}
	for _, alarm := range response.Alarms {
		if alarm.MemberID == s.member {
			alarm.MemberID = ownMember
		}
	}
	slices.SortFunc(response.Alarms, func(a, b *pb.AlarmMember) int {
		return cmp.Or(cmp.Compare(a.MemberID, b.MemberID), cmp.Compare(a.Alarm, b.Alarm))
	})
	return response, nil
}

// status writes "own" for this member's id in the errors.
func (s *side) status(ctx context.Context, request *pb.StatusRequest) (proto.Message, error) {
	response, err := s.maintenance.Status(ctx, request)
	if err != nil {
		return nil, err
	}
	for n, text := range response.Errors {
		response.Errors[n] = strings.Replace(text, fmt.Sprintf("memberID:%d ", s.member), "memberID:own ", 1)
	}
	slices.Sort(response.Errors)
	return response, nil
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
