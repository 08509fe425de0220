package metrics

import (
	"fmt"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	epb "go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	lpb "go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/emptypb"
)

// upkeep calls each method of the Maintenance service; gives the page while an alarm is armed.
func (w *worker) upkeep(names map[string]string) (during page) {
	w.call("Maintenance/Status", &pb.StatusRequest{}, nil)
	w.call("Maintenance/Hash", &pb.HashRequest{}, nil)
	w.call("Maintenance/HashKV", &pb.HashKVRequest{}, nil)
	w.call("Maintenance/HashKV", &pb.HashKVRequest{Revision: 9999}, nil)
	w.stream("Maintenance/Snapshot", &pb.SnapshotRequest{})
	w.call("Maintenance/Defragment", &pb.DefragmentRequest{}, nil)
	w.call("Maintenance/MoveLeader", &pb.MoveLeaderRequest{TargetID: 12345}, nil)
	member := &pb.StatusResponse{}
	w.call("Maintenance/Status", &pb.StatusRequest{}, member)
	for _, action := range []pb.AlarmRequest_AlarmAction{pb.AlarmRequest_GET, pb.AlarmRequest_ACTIVATE, pb.AlarmRequest_GET} {
		w.call("Maintenance/Alarm", &pb.AlarmRequest{Action: action, MemberID: member.Header.MemberId, Alarm: pb.AlarmType_NOSPACE}, nil)
	}
	w.call("KV/Put", putOf("full", "value"), nil)
	w.call("Lease/LeaseGrant", &pb.LeaseGrantRequest{ID: 70, TTL: 100}, nil)
	w.get("/health")
	w.awaitStreams(1)
	during = scrape(w.t, w.server, names)
	w.call("Maintenance/Alarm", &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, MemberID: member.Header.MemberId, Alarm: pb.AlarmType_NOSPACE}, nil)
	return during
}

// members asks for the members and changes them to what they are.
func (w *worker) members(names map[string]string) {
	members := &pb.MemberListResponse{}
	w.call("Cluster/MemberList", &pb.MemberListRequest{Linearizable: true}, members)
	w.call("Cluster/MemberList", &pb.MemberListRequest{}, nil)
	own := members.Members[0]
	w.call("Cluster/MemberUpdate", &pb.MemberUpdateRequest{ID: own.ID, PeerURLs: own.PeerURLs}, nil)
	w.call("Cluster/MemberUpdate", &pb.MemberUpdateRequest{ID: 12345, PeerURLs: []string{"http://127.0.0.1:1"}}, nil)
	w.call("Cluster/MemberPromote", &pb.MemberPromoteRequest{ID: own.ID}, nil)
	w.call("Cluster/MemberPromote", &pb.MemberPromoteRequest{ID: 12345}, nil)
	w.call("Cluster/MemberRemove", &pb.MemberRemoveRequest{ID: 12345}, nil)
	learner := &pb.MemberAddResponse{}
	w.call("Cluster/MemberAdd", &pb.MemberAddRequest{PeerURLs: []string{"http://127.0.0.2:1"}, IsLearner: true}, learner)
	names[fmt.Sprintf("%x", learner.GetMember().GetID())] = "learner"
	w.call("Cluster/MemberPromote", &pb.MemberPromoteRequest{ID: learner.GetMember().GetID()}, nil)
	w.call("Cluster/MemberRemove", &pb.MemberRemoveRequest{ID: learner.GetMember().GetID()}, nil)
}

// users turns authentication on and off again.
func (w *worker) users() {
	w.call("Auth/AuthStatus", &pb.AuthStatusRequest{}, nil)
	for _, name := range []string{"root", "reader"} {
		// The second time is refused.
		for range 2 {
			w.call("Auth/UserAdd", &pb.AuthUserAddRequest{Name: name, Password: "pass"}, nil)
			w.call("Auth/RoleAdd", &pb.AuthRoleAddRequest{Name: name}, nil)
		}
		w.call("Auth/UserGrantRole", &pb.AuthUserGrantRoleRequest{User: name, Role: name}, nil)
	}
	w.call("Auth/RoleGrantPermission", &pb.AuthRoleGrantPermissionRequest{Name: "reader", Perm: &authpb.Permission{PermType: authpb.READ, Key: []byte("a"), RangeEnd: []byte("b")}}, nil)
	w.call("Auth/UserGet", &pb.AuthUserGetRequest{Name: "reader"}, nil)
	w.call("Auth/UserList", &pb.AuthUserListRequest{}, nil)
	w.call("Auth/RoleGet", &pb.AuthRoleGetRequest{Role: "reader"}, nil)
	w.call("Auth/RoleList", &pb.AuthRoleListRequest{}, nil)
	w.call("Auth/UserChangePassword", &pb.AuthUserChangePasswordRequest{Name: "reader", Password: "other"}, nil)
	w.call("Auth/AuthEnable", &pb.AuthEnableRequest{}, nil)
	w.call("Auth/Authenticate", &pb.AuthenticateRequest{Name: "root", Password: "wrong"}, nil)
	root, reader := &pb.AuthenticateResponse{}, &pb.AuthenticateResponse{}
	w.call("Auth/Authenticate", &pb.AuthenticateRequest{Name: "root", Password: "pass"}, root)
	w.call("Auth/Authenticate", &pb.AuthenticateRequest{Name: "reader", Password: "other"}, reader)
	w.call("KV/Range", &pb.RangeRequest{Key: []byte("a")}, nil)
	w.callIn(metadata.AppendToOutgoingContext(w.ctx, "token", reader.Token), "KV/Range", &pb.RangeRequest{Key: []byte("a")}, nil)
	w.callIn(metadata.AppendToOutgoingContext(w.ctx, "token", reader.Token), "KV/Put", putOf("a", "1"), nil)
	w.callIn(metadata.AppendToOutgoingContext(w.ctx, "token", "nonsense"), "KV/Range", &pb.RangeRequest{Key: []byte("a")}, nil)
	w.callIn(metadata.AppendToOutgoingContext(w.ctx, "token", root.Token), "Auth/AuthDisable", &pb.AuthDisableRequest{}, nil)
	w.call("Auth/RoleRevokePermission", &pb.AuthRoleRevokePermissionRequest{Role: "reader", Key: []byte("a"), RangeEnd: []byte("b")}, nil)
	w.call("Auth/UserRevokeRole", &pb.AuthUserRevokeRoleRequest{Name: "reader", Role: "reader"}, nil)
	w.call("Auth/UserDelete", &pb.AuthUserDeleteRequest{Name: "reader"}, nil)
	w.call("Auth/RoleDelete", &pb.AuthRoleDeleteRequest{Role: "reader"}, nil)
	w.call("Auth/RoleDelete", &pb.AuthRoleDeleteRequest{Role: "reader"}, nil)
}

// locks calls the services that etcd adds to its server after its metrics.
func (w *worker) locks() {
	w.call("Lease/LeaseGrant", &pb.LeaseGrantRequest{ID: 80, TTL: 1000}, nil)
	lock, led := &lpb.LockResponse{}, &epb.CampaignResponse{}
	w.call("/v3lockpb.Lock/Lock", &lpb.LockRequest{Name: []byte("lock"), Lease: 80}, lock)
	w.call("/v3lockpb.Lock/Unlock", &lpb.UnlockRequest{Key: lock.Key}, nil)
	w.call("/v3electionpb.Election/Campaign", &epb.CampaignRequest{Name: []byte("elect"), Lease: 80, Value: []byte("me")}, led)
	w.call("/v3electionpb.Election/Proclaim", &epb.ProclaimRequest{Leader: led.Leader, Value: []byte("still")}, nil)
	w.call("/v3electionpb.Election/Leader", &epb.LeaderRequest{Name: []byte("elect")}, nil)
	w.call("/v3electionpb.Election/Resign", &epb.ResignRequest{Leader: led.Leader}, nil)
	w.call("/v3electionpb.Election/Leader", &epb.LeaderRequest{Name: []byte("elect")}, nil)
}

// pages asks for health in every way, and for what nobody knows.
func (w *worker) pages() {
	for _, path := range []string{"/health", "/health?serializable=true", "/livez", "/readyz", "/readyz/data_corruption", "/version", "/livez?exclude=nothing"} {
		w.get(path)
	}
	w.call("/grpc.health.v1.Health/Check", &grpc_health_v1.HealthCheckRequest{}, nil)
	w.call("/grpc.health.v1.Health/Check", &grpc_health_v1.HealthCheckRequest{Service: "nothing"}, nil)
	w.call("KV/Nothing", &emptypb.Empty{}, nil)
	w.call("/nobody.Knows/This", &emptypb.Empty{}, nil)
	// Bytes that are no message of this kind.
	w.call("KV/Range", &grpc_health_v1.HealthCheckRequest{Service: "a"}, nil)
}
