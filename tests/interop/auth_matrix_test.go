package interop

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"basalt/tests/interop/harness"
)

// people are users with the keys that they may read and write; root may everything, and nobody shows no token.
var people = []struct {
	name        string
	permissions []*authpb.Permission
}{
	{"without", nil},
	{"partial", []*authpb.Permission{{PermType: authpb.Permission_READWRITE, Key: []byte("k/1")}}},
	{"reader", []*authpb.Permission{{PermType: authpb.Permission_READ, Key: []byte("k/"), RangeEnd: []byte("k0")}}},
	{"writer", []*authpb.Permission{{PermType: authpb.Permission_WRITE, Key: []byte("k/"), RangeEnd: []byte("k0")}}},
	{"exact", []*authpb.Permission{{PermType: authpb.Permission_READWRITE, Key: []byte("k/"), RangeEnd: []byte("k0")}}},
	{"joined", []*authpb.Permission{
		{PermType: authpb.Permission_READWRITE, Key: []byte("k/"), RangeEnd: []byte("k/5")},
		{PermType: authpb.Permission_READWRITE, Key: []byte("k/5"), RangeEnd: []byte("k0")},
	}},
	{"covering", []*authpb.Permission{{PermType: authpb.Permission_READWRITE, Key: []byte("a"), RangeEnd: []byte{0}}}},
}

// Leases of the matrix: one holds k/1, one k/1 and other/1, one nothing.
const (
	leaseOfOne, leaseOfTwo, leaseOfNone = 11, 12, 13
)

// populate gives a server the people of the matrix, keys and leases, and turns authentication on; it gives their tokens.
func populate(t *testing.T, ctx context.Context, s services) map[string]string {
	t.Helper()
	do := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	add := func(name string) {
		do(s.auth.UserAdd(ctx, &pb.AuthUserAddRequest{Name: name, Password: name}))
	}
	add("root")
	do(s.auth.UserGrantRole(ctx, &pb.AuthUserGrantRoleRequest{User: "root", Role: "root"}))
	for _, lease := range []int64{leaseOfOne, leaseOfTwo, leaseOfNone} {
		do(s.lease.LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: lease, TTL: 10_000}))
	}
	for key, lease := range map[string]int64{"k/1": leaseOfOne, "k/2": 0, "other/1": leaseOfTwo, "k/3": leaseOfTwo} {
		do(s.kv.Put(ctx, &pb.PutRequest{Key: []byte(key), Value: []byte("v"), Lease: lease}))
	}
	for _, person := range people {
		add(person.name)
		if person.permissions == nil {
			continue
		}
		do(s.auth.RoleAdd(ctx, &pb.AuthRoleAddRequest{Name: person.name}))
		for _, permission := range person.permissions {
			do(s.auth.RoleGrantPermission(ctx, &pb.AuthRoleGrantPermissionRequest{Name: person.name, Perm: permission}))
		}
		do(s.auth.UserGrantRole(ctx, &pb.AuthUserGrantRoleRequest{User: person.name, Role: person.name}))
	}
	do(s.auth.AuthEnable(ctx, &pb.AuthEnableRequest{}))
	tokens := map[string]string{"nobody": "", "stranger": "abcdefghijklmnop.1", "nonsense": "?"}
	for _, name := range append([]string{"root"}, names()...) {
		login, err := s.auth.Authenticate(ctx, &pb.AuthenticateRequest{Name: name, Password: name})
		if err != nil {
			t.Fatal(err)
		}
		tokens[name] = login.Token
	}
	return tokens
}

func names() (names []string) {
	for _, person := range people {
		names = append(names, person.name)
	}
	return names
}

type matrixCall struct {
	name string
	call func(context.Context, services) error
}

// rangeCases are what is asked for of keys.
var rangeCases = map[string][2]string{
	"k/1": {"k/1", ""}, "k/9": {"k/9", ""}, "k/1..k/2": {"k/1", "k/2"}, "k/..k0": {"k/", "k0"}, "k/4..k/6": {"k/4", "k/6"},
	"k/..": {"k/", "\x00"}, "all": {"\x00", "\x00"}, "other/1": {"other/1", ""}, "k/..k1": {"k/", "k1"}, "none": {"k/5", "k/4"},
}

// nest puts operations into a transaction in either branch, plain or nested.
func nest(ops ...*pb.RequestOp) map[string]*pb.TxnRequest {
	inner := &pb.TxnRequest{Success: ops}
	return map[string]*pb.TxnRequest{
		"taken":     {Success: ops},
		"not taken": {Failure: ops},
		"nested":    {Failure: []*pb.RequestOp{{Request: &pb.RequestOp_RequestTxn{RequestTxn: inner}}}},
	}
}

// matrixCalls are all RPCs that harm nothing others of the matrix need; what they change, they change for all alike.
func matrixCalls() (calls []matrixCall) {
	add := func(name string, call func(context.Context, services) error) {
		calls = append(calls, matrixCall{name, call})
	}
	for name, keys := range rangeCases {
		key, end := []byte(keys[0]), []byte(keys[1])
		read, remove := &pb.RangeRequest{Key: key, RangeEnd: end}, &pb.DeleteRangeRequest{Key: append([]byte("k/x"), key...)}
		add("Range "+name, get(read))
		add("Range serializable "+name, get(&pb.RangeRequest{Key: key, RangeEnd: end, Serializable: true}))
		add("RangeStream "+name, func(ctx context.Context, s services) error {
			stream, err := s.kv.RangeStream(ctx, read)
			for err == nil {
				_, err = stream.Recv()
			}
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		})
		add("Watch "+name, func(ctx context.Context, s services) error {
			return watchRefusal(ctx, s, &pb.WatchCreateRequest{Key: key, RangeEnd: end})
		})
		if name != "none" {
			add("DeleteRange at a future compare "+name, txn(&pb.TxnRequest{Compare: []*pb.Compare{{
				Key: key, RangeEnd: end, Target: pb.Compare_VERSION, Result: pb.Compare_LESS, TargetUnion: &pb.Compare_Version{},
			}}}))
		}
		for place, request := range nest(&pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: read}}) {
			add("Txn range "+name+" "+place, txn(request))
		}
		for place, request := range nest(&pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: remove}}) {
			add("Txn delete "+name+" "+place, txn(request))
		}
		if end == nil || len(end) == 0 {
			for _, request := range []*pb.PutRequest{
				{Key: key}, {Key: key, PrevKv: true}, {Key: key, Lease: leaseOfOne}, {Key: key, Lease: 99},
				{Key: key, IgnoreLease: true}, {Key: key, IgnoreLease: true, Lease: leaseOfTwo},
			} {
				// Whatever it did, the lease of the key is as before.
				request.IgnoreLease = request.Lease == 0
				what := fmt.Sprintf("%s lease %d prev %v", name, request.Lease, request.PrevKv)
				if request.Lease == leaseOfOne && name != "k/1" {
					continue
				}
				add("Put "+what, put(request))
				for place, request := range nest(&pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: request}}) {
					add("Txn put "+what+" "+place, txn(request))
				}
			}
		}
	}
	for _, keys := range [][2]string{{"k/7", ""}, {"k/7", "k/8"}, {"other/7", ""}, {"k/7", "l"}} {
		for _, previous := range []bool{false, true} {
			request := &pb.DeleteRangeRequest{Key: []byte(keys[0]), RangeEnd: []byte(keys[1]), PrevKv: previous}
			add(fmt.Sprint("DeleteRange ", keys, previous), func(ctx context.Context, s services) error {
				_, err := s.kv.DeleteRange(ctx, request)
				return err
			})
		}
	}
	add("Txn empty", txn(&pb.TxnRequest{}))
	add("Range without a key", get(&pb.RangeRequest{}))
	add("Put without a key", put(&pb.PutRequest{}))
	add("Compact", compact(1))
	for _, lease := range []int64{leaseOfOne, leaseOfTwo, leaseOfNone, 99} {
		add(fmt.Sprint("LeaseTimeToLive ", lease), func(ctx context.Context, s services) error {
			_, err := s.lease.LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: lease})
			return err
		})
		add(fmt.Sprint("LeaseTimeToLive with keys ", lease), func(ctx context.Context, s services) error {
			_, err := s.lease.LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: lease, Keys: true})
			return err
		})
		add(fmt.Sprint("LeaseKeepAlive ", lease), func(ctx context.Context, s services) error {
			stream, err := s.lease.LeaseKeepAlive(ctx)
			if err != nil {
				return err
			}
			if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: lease}); err != nil {
				return err
			}
			_, err = stream.Recv()
			return err
		})
	}
	add("LeaseLeases", func(ctx context.Context, s services) error {
		_, err := s.lease.LeaseLeases(ctx, &pb.LeaseLeasesRequest{})
		return err
	})
	add("LeaseGrant and LeaseRevoke", func(ctx context.Context, s services) error {
		granted, err := s.lease.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: 100})
		if err != nil {
			return err
		}
		_, err = s.lease.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: granted.ID})
		return err
	})
	for _, lease := range []int64{leaseOfTwo, 99} {
		add(fmt.Sprint("LeaseRevoke ", lease), func(ctx context.Context, s services) error {
			if lease == leaseOfTwo && mayEverything(ctx) {
				return nil // it is needed by others
			}
			_, err := s.lease.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: lease})
			return err
		})
	}
	return append(calls, matrixAdministration()...)
}

type everythingKey struct{}

// mayEverything tells whether a call is made by somebody who may write all keys.
func mayEverything(ctx context.Context) bool { return ctx.Value(everythingKey{}) != nil }

func matrixAdministration() (calls []matrixCall) {
	add := func(name string, call func(context.Context, services) (any, error)) {
		calls = append(calls, matrixCall{name, func(ctx context.Context, s services) error {
			_, err := call(ctx, s)
			return err
		}})
	}
	add("MemberList", func(ctx context.Context, s services) (any, error) {
		return s.cluster.MemberList(ctx, &pb.MemberListRequest{Linearizable: true})
	})
	add("MemberRemove", func(ctx context.Context, s services) (any, error) {
		return s.cluster.MemberRemove(ctx, &pb.MemberRemoveRequest{ID: 1})
	})
	add("MemberUpdate", func(ctx context.Context, s services) (any, error) {
		return s.cluster.MemberUpdate(ctx, &pb.MemberUpdateRequest{ID: 1, PeerURLs: []string{"http://127.0.0.1:1"}})
	})
	add("MemberPromote", func(ctx context.Context, s services) (any, error) {
		return s.cluster.MemberPromote(ctx, &pb.MemberPromoteRequest{ID: 1})
	})
	add("Alarm get", func(ctx context.Context, s services) (any, error) {
		return s.maintenance.Alarm(ctx, &pb.AlarmRequest{})
	})
	add("Alarm disarm", func(ctx context.Context, s services) (any, error) {
		return s.maintenance.Alarm(ctx, &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, Alarm: pb.AlarmType_NOSPACE, MemberID: 7})
	})
	add("Status", func(ctx context.Context, s services) (any, error) {
		return s.maintenance.Status(ctx, &pb.StatusRequest{})
	})
	add("Defragment", func(ctx context.Context, s services) (any, error) {
		return s.maintenance.Defragment(ctx, &pb.DefragmentRequest{})
	})
	add("Hash", func(ctx context.Context, s services) (any, error) {
		return s.maintenance.Hash(ctx, &pb.HashRequest{})
	})
	add("HashKV", func(ctx context.Context, s services) (any, error) {
		return s.maintenance.HashKV(ctx, &pb.HashKVRequest{})
	})
	add("MoveLeader", func(ctx context.Context, s services) (any, error) {
		return s.maintenance.MoveLeader(ctx, &pb.MoveLeaderRequest{TargetID: 1})
	})
	add("Snapshot", func(ctx context.Context, s services) (any, error) {
		stream, err := s.maintenance.Snapshot(ctx, &pb.SnapshotRequest{})
		if err != nil {
			return nil, err
		}
		return stream.Recv()
	})
	add("AuthStatus", func(ctx context.Context, s services) (any, error) {
		return s.auth.AuthStatus(ctx, &pb.AuthStatusRequest{})
	})
	add("AuthEnable", func(ctx context.Context, s services) (any, error) {
		return s.auth.AuthEnable(ctx, &pb.AuthEnableRequest{})
	})
	add("Authenticate", func(ctx context.Context, s services) (any, error) {
		return s.auth.Authenticate(ctx, &pb.AuthenticateRequest{Name: "reader", Password: "no"})
	})
	add("UserList", func(ctx context.Context, s services) (any, error) {
		return s.auth.UserList(ctx, &pb.AuthUserListRequest{})
	})
	add("RoleList", func(ctx context.Context, s services) (any, error) {
		return s.auth.RoleList(ctx, &pb.AuthRoleListRequest{})
	})
	for _, name := range []string{"reader", "root", "nothing"} {
		add("UserGet "+name, func(ctx context.Context, s services) (any, error) {
			return s.auth.UserGet(ctx, &pb.AuthUserGetRequest{Name: name})
		})
		add("RoleGet "+name, func(ctx context.Context, s services) (any, error) {
			return s.auth.RoleGet(ctx, &pb.AuthRoleGetRequest{Role: name})
		})
		add("UserGrantRole "+name, func(ctx context.Context, s services) (any, error) {
			return s.auth.UserGrantRole(ctx, &pb.AuthUserGrantRoleRequest{User: name, Role: "nothing"})
		})
		add("UserRevokeRole "+name, func(ctx context.Context, s services) (any, error) {
			return s.auth.UserRevokeRole(ctx, &pb.AuthUserRevokeRoleRequest{Name: name, Role: "nothing"})
		})
	}
	add("UserAdd", func(ctx context.Context, s services) (any, error) {
		return s.auth.UserAdd(ctx, &pb.AuthUserAddRequest{Name: "reader", Password: "x"})
	})
	add("UserDelete", func(ctx context.Context, s services) (any, error) {
		return s.auth.UserDelete(ctx, &pb.AuthUserDeleteRequest{Name: "root"})
	})
	add("UserChangePassword", func(ctx context.Context, s services) (any, error) {
		return s.auth.UserChangePassword(ctx, &pb.AuthUserChangePasswordRequest{Name: "nothing", Password: "x"})
	})
	add("RoleAdd", func(ctx context.Context, s services) (any, error) {
		return s.auth.RoleAdd(ctx, &pb.AuthRoleAddRequest{Name: "reader"})
	})
	add("RoleDelete", func(ctx context.Context, s services) (any, error) {
		return s.auth.RoleDelete(ctx, &pb.AuthRoleDeleteRequest{Role: "root"})
	})
	add("RoleGrantPermission", func(ctx context.Context, s services) (any, error) {
		return s.auth.RoleGrantPermission(ctx, &pb.AuthRoleGrantPermissionRequest{Name: "reader"})
	})
	add("RoleRevokePermission", func(ctx context.Context, s services) (any, error) {
		return s.auth.RoleRevokePermission(ctx, &pb.AuthRoleRevokePermissionRequest{Role: "reader", Key: []byte("nothing")})
	})
	return calls
}

// watchRefusal is what a watch is told instead of beginning.
func watchRefusal(ctx context.Context, s services, request *pb.WatchCreateRequest) error {
	stream, err := s.watch.Watch(ctx)
	if err != nil {
		return err
	}
	create := &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: request}}
	if err := stream.Send(create); err != nil {
		return err
	}
	response, err := stream.Recv()
	if err != nil || !response.Canceled {
		return err
	}
	return fmt.Errorf("id %d created %v: %s", response.WatchId, response.Created, response.CancelReason)
}

// TestWhoMayDoWhat asks the program under test and a genuine etcd the same, as everybody, with authentication on, and with
// NOSPACE armed: what etcd refuses we refuse in the same words, and what it allows we allow (etcd-contract 26, 34, 49).
func TestWhoMayDoWhat(t *testing.T) {
	if harness.UnderTest(t) != harness.Basalt {
		t.Skip("genuine etcd would be compared with itself")
	}
	ctx := harness.Context(t, 5*time.Minute)
	kinds := []harness.Kind{harness.Etcd, harness.Basalt}
	services, tokens := map[harness.Kind]services{}, map[harness.Kind]map[string]string{}
	for _, kind := range kinds {
		server := harness.Start(t, harness.Options{Kind: kind, Args: []string{"--bcrypt-cost=4"}})
		services[kind] = servicesOf(server.Conn(t))
		tokens[kind] = populate(t, ctx, services[kind])
	}
	count := 0
	compareAll := func(calls []matrixCall) {
		for _, call := range calls {
			for person := range tokens[harness.Etcd] {
				told := map[harness.Kind]string{}
				for _, kind := range kinds {
					as, cancel := context.WithTimeout(ctx, 20*time.Second)
					if token := tokens[kind][person]; token != "" {
						as = metadata.AppendToOutgoingContext(as, "token", token)
					}
					if person == "root" || person == "covering" {
						as = context.WithValue(as, everythingKey{}, true)
					}
					err := call.call(as, services[kind])
					cancel()
					told[kind] = fmt.Sprintf("%v %s", status.Code(err), status.Convert(err).Message())
				}
				count++
				if told[harness.Etcd] != told[harness.Basalt] {
					t.Errorf("%s as %s: etcd says %q, basalt %q", call.name, person, told[harness.Etcd], told[harness.Basalt])
				}
			}
		}
	}
	compareAll(matrixCalls())
	for _, kind := range kinds {
		root := metadata.AppendToOutgoingContext(ctx, "token", tokens[kind]["root"])
		alarm := &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, Alarm: pb.AlarmType_NOSPACE, MemberID: 7}
		if _, err := services[kind].maintenance.Alarm(root, alarm); err != nil {
			t.Fatal(err)
		}
	}
	compareAll(matrixCalls()[:200])
	if count < 3000 {
		t.Errorf("only %d answers were compared", count)
	}
	for _, kind := range kinds {
		expectStatus(t, "without a token", get(&pb.RangeRequest{Key: []byte("k/1")})(ctx, services[kind]), codes.InvalidArgument,
			"etcdserver: user name is empty")
	}
}
