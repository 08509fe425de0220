package interop

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	epb "go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	lpb "go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
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
	return slices.Concat(calls, matrixSessions(), matrixAdministration())
}

// everythingKey and rootKey are of contexts of calls by somebody who may write all keys, and by root.
type (
	everythingKey struct{}
	rootKey       struct{}
)

// mayEverything tells whether a call is made by somebody who may write all keys.
func mayEverything(ctx context.Context) bool { return ctx.Value(everythingKey{}) != nil }

// matrixSessions are the calls of locks and elections, whose names are keys.
func matrixSessions() (calls []matrixCall) {
	add := func(name string, call func(context.Context, services) error) {
		calls = append(calls, matrixCall{name, call})
	}
	for _, key := range []string{"k/lock", "other/lock"} {
		name := []byte(key)
		add("Lock and Unlock "+key, func(ctx context.Context, s services) error {
			held, err := s.lock.Lock(ctx, &lpb.LockRequest{Name: name})
			if err != nil {
				return err
			}
			_, err = s.lock.Unlock(ctx, &lpb.UnlockRequest{Key: held.Key})
			return err
		})
		add("Unlock what nobody holds "+key, func(ctx context.Context, s services) error {
			_, err := s.lock.Unlock(ctx, &lpb.UnlockRequest{Key: append(name, "/1"...)})
			return err
		})
		leader := &epb.LeaderKey{Name: name, Key: append([]byte(key), "/1"...), Rev: 1, Lease: leaseOfNone}
		add("Campaign and Resign "+key, func(ctx context.Context, s services) error {
			won, err := s.election.Campaign(ctx, &epb.CampaignRequest{Name: name, Lease: leaseOfNone, Value: []byte("v")})
			if err != nil {
				return err
			}
			_, err = s.election.Resign(ctx, &epb.ResignRequest{Leader: won.Leader})
			return err
		})
		add("Proclaim "+key, func(ctx context.Context, s services) error {
			_, err := s.election.Proclaim(ctx, &epb.ProclaimRequest{Leader: leader, Value: []byte("w")})
			return err
		})
		add("Resign "+key, func(ctx context.Context, s services) error {
			_, err := s.election.Resign(ctx, &epb.ResignRequest{Leader: leader})
			return err
		})
		add("Leader "+key, func(ctx context.Context, s services) error {
			_, err := s.election.Leader(ctx, &epb.LeaderRequest{Name: name})
			return err
		})
		add("Observe "+key, func(ctx context.Context, s services) error {
			// Who may, waits for the first leader. Of who may not etcd ends the stream without a word.
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			stream, err := s.election.Observe(ctx, &epb.LeaderRequest{Name: name})
			if err != nil {
				return err
			}
			ended := make(chan struct{})
			go func() {
				_, _ = stream.Recv()
				close(ended)
			}()
			select {
			case <-ended:
				return errors.New("ended")
			case <-time.After(time.Second):
				return errors.New("waits")
			}
		})
	}
	add("Health", func(ctx context.Context, s services) error {
		_, err := s.health.Check(ctx, &grpc_health_v1.HealthCheckRequest{})
		return err
	})
	return calls
}

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
	add("MemberAdd", func(ctx context.Context, s services) (any, error) {
		url := "http://127.0.0.1:1"
		if ctx.Value(rootKey{}) != nil {
			url = "no URL" // of which etcd tells everybody before it looks at who asks
		}
		return s.cluster.MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: []string{url}})
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
		return s.maintenance.Alarm(ctx, &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, Alarm: pb.AlarmType_NOSPACE, MemberID: 8})
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
	for _, action := range []pb.DowngradeRequest_DowngradeAction{pb.DowngradeRequest_VALIDATE, pb.DowngradeRequest_CANCEL} {
		add("Downgrade "+action.String(), func(ctx context.Context, s services) (any, error) {
			return s.maintenance.Downgrade(ctx, &pb.DowngradeRequest{Action: action, Version: "3.6.0"})
		})
	}
	add("AuthDisable", func(ctx context.Context, s services) (any, error) {
		if ctx.Value(rootKey{}) != nil {
			return nil, nil // it would end the matrix
		}
		return s.auth.AuthDisable(ctx, &pb.AuthDisableRequest{})
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

// plainly are the calls of the matrix without those that say the same within a transaction once more, or take their time.
func plainly(calls []matrixCall) []matrixCall {
	return slices.DeleteFunc(calls, func(call matrixCall) bool {
		return strings.HasSuffix(call.name, " nested") || strings.HasSuffix(call.name, " not taken") || strings.HasPrefix(call.name, "Observe ")
	})
}

// matrixPaths are what is asked for over HTTP, with a body or, without one, with GET.
var matrixPaths = map[string]string{
	"/health": "", "/version": "", "/metrics": "", "/livez": "", "/readyz": "", "/debug/vars": "", "/nothing": "",
	"/v3/kv/range": `{"key":"ay8x"}`, "/v3/kv/put": `{"key":"ay8x","ignore_lease":true}`, "/v3/kv/deleterange": `{"key":"ay83"}`,
	"/v3/kv/txn": `{"success":[{"request_range":{"key":"ay8x"}}]}`, "/v3/kv/compaction": `{"revision":1}`,
	"/v3/lease/grant": `{"TTL":100}`, "/v3/lease/revoke": `{"ID":99}`, "/v3/lease/timetolive": `{"ID":11,"keys":true}`,
	"/v3/lease/leases": `{}`, "/v3/cluster/member/list": `{}`,
	"/v3/cluster/member/remove": `{"ID":1}`, "/v3/cluster/member/update": `{"ID":1,"peerURLs":["http://127.0.0.1:1"]}`,
	"/v3/cluster/member/promote": `{"ID":1}`, "/v3/maintenance/alarm": `{}`, "/v3/maintenance/status": `{}`,
	"/v3/maintenance/defragment": `{}`, "/v3/maintenance/hash": `{}`, "/v3/maintenance/hashkv": `{}`,
	"/v3/maintenance/transfer-leadership": `{"targetID":1}`, "/v3/maintenance/downgrade": `{"action":"CANCEL"}`,
	"/v3/auth/status": `{}`, "/v3/auth/enable": `{}`, "/v3/auth/user/list": `{}`, "/v3/auth/user/get": `{"name":"reader"}`,
	"/v3/auth/user/add": `{"name":"reader","password":"x"}`, "/v3/auth/user/delete": `{"name":"root"}`,
	"/v3/auth/user/changepw": `{"name":"nothing","password":"x"}`, "/v3/auth/user/grant": `{"user":"reader","role":"nothing"}`,
	"/v3/auth/user/revoke": `{"name":"reader","role":"nothing"}`, "/v3/auth/role/list": `{}`, "/v3/auth/role/get": `{"role":"reader"}`,
	"/v3/auth/role/add": `{"name":"reader"}`, "/v3/auth/role/delete": `{"role":"root"}`,
	"/v3/auth/role/grant": `{"name":"reader"}`, "/v3/auth/role/revoke": `{"role":"reader","key":"eA=="}`,
	"/v3/election/leader": `{"name":"ay9sb2Nr"}`, "/v3/lock/unlock": `{"key":"ay9sb2NrLzE="}`,
}

// askOverHTTP gives the status of an answer, and what an error says.
func askOverHTTP(ctx context.Context, server *harness.Server, path, body, token string) (string, error) {
	method := http.MethodGet
	if body != "" {
		method = http.MethodPost
	}
	request, err := http.NewRequestWithContext(ctx, method, server.Endpoint()+path, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	if token != "" {
		request.Header.Set("Authorization", token)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if response.StatusCode == http.StatusOK {
		text = nil
	}
	// Go puts a space into its JSON or not, by chance.
	var compact bytes.Buffer
	if json.Compact(&compact, text) == nil {
		text = compact.Bytes()
	}
	return fmt.Sprintf("%d %s", response.StatusCode, text), err
}

// TestWhoMayDoWhat asks the program under test and a genuine etcd the same, as everybody: with authentication on, also while
// NOSPACE and CORRUPT are armed, over HTTP, and with authentication off again. What etcd refuses we refuse in the same words,
// and what it allows we allow (etcd-contract 26, 34, 49).
func TestWhoMayDoWhat(t *testing.T) {
	t.Parallel()
	if harness.UnderTest(t) != harness.Basalt {
		t.Skip("genuine etcd would be compared with itself")
	}
	ctx := harness.Context(t, 5*time.Minute)
	kinds := []harness.Kind{harness.Etcd, harness.Basalt}
	servers, services, tokens := map[harness.Kind]*harness.Server{}, map[harness.Kind]services{}, map[harness.Kind]map[string]string{}
	for _, kind := range kinds {
		server := harness.Start(t, harness.Options{Kind: kind, Args: []string{"--bcrypt-cost=4"}})
		servers[kind], services[kind] = server, servicesOf(server.Conn(t))
		tokens[kind] = populate(t, ctx, services[kind])
	}
	count := 0
	compareAll := func(when string, calls []matrixCall) {
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
					if person == "root" {
						as = context.WithValue(as, rootKey{}, true)
					}
					err := call.call(as, services[kind])
					cancel()
					told[kind] = fmt.Sprintf("%v %s", status.Code(err), status.Convert(err).Message())
				}
				count++
				if told[harness.Etcd] != told[harness.Basalt] {
					t.Errorf("%s, %s as %s: etcd says %q, basalt %q", when, call.name, person, told[harness.Etcd], told[harness.Basalt])
				}
			}
		}
	}
	asRoot := func(what string, call func(context.Context, harness.Kind) error) {
		for _, kind := range kinds {
			if err := call(metadata.AppendToOutgoingContext(ctx, "token", tokens[kind]["root"]), kind); err != nil {
				t.Fatalf("%s of %v: %v", what, kind, err)
			}
		}
	}
	alarm := func(action pb.AlarmRequest_AlarmAction, alarm pb.AlarmType) {
		asRoot(action.String(), func(root context.Context, kind harness.Kind) error {
			_, err := services[kind].maintenance.Alarm(root, &pb.AlarmRequest{Action: action, Alarm: alarm, MemberID: 7})
			return err
		})
	}
	compareAll("with authentication", matrixCalls())
	for _, kind := range []pb.AlarmType{pb.AlarmType_NOSPACE, pb.AlarmType_CORRUPT} {
		alarm(pb.AlarmRequest_ACTIVATE, kind)
		compareAll("with "+kind.String(), plainly(matrixCalls()))
		alarm(pb.AlarmRequest_DEACTIVATE, kind)
	}
	for path, body := range matrixPaths {
		for person := range tokens[harness.Etcd] {
			told := map[harness.Kind]string{}
			for _, kind := range kinds {
				answer, err := askOverHTTP(ctx, servers[kind], path, body, tokens[kind][person])
				if err != nil {
					t.Fatalf("%s as %s: %v", path, person, err)
				}
				told[kind] = answer
			}
			count++
			if told[harness.Etcd] != told[harness.Basalt] {
				t.Errorf("%s as %s: etcd says %q, basalt %q", path, person, told[harness.Etcd], told[harness.Basalt])
			}
		}
	}
	if count < 7000 {
		t.Errorf("only %d answers were compared", count)
	}
	for _, kind := range kinds {
		expectStatus(t, "without a token", get(&pb.RangeRequest{Key: []byte("k/1")})(ctx, services[kind]), codes.InvalidArgument,
			"etcdserver: user name is empty")
	}
	asRoot("AuthDisable", func(root context.Context, kind harness.Kind) error {
		_, err := services[kind].auth.AuthDisable(root, &pb.AuthDisableRequest{})
		return err
	})
	compareAll("without authentication", slices.DeleteFunc(plainly(matrixCalls()), func(call matrixCall) bool {
		return call.name == "AuthEnable" || call.name == "MemberAdd"
	}))
}
