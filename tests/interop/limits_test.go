package interop

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	epb "go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	lpb "go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"basalt/tests/interop/harness"
)

// services are raw stubs: etcd's own client would turn refusals into errors of its own.
type services struct {
	kv          pb.KVClient
	watch       pb.WatchClient
	lease       pb.LeaseClient
	cluster     pb.ClusterClient
	maintenance pb.MaintenanceClient
	auth        pb.AuthClient
	lock        lpb.LockClient
	election    epb.ElectionClient
	health      grpc_health_v1.HealthClient
}

func servicesOf(conn *grpc.ClientConn) services {
	return services{
		pb.NewKVClient(conn), pb.NewWatchClient(conn), pb.NewLeaseClient(conn), pb.NewClusterClient(conn),
		pb.NewMaintenanceClient(conn), pb.NewAuthClient(conn),
		lpb.NewLockClient(conn), epb.NewElectionClient(conn), grpc_health_v1.NewHealthClient(conn),
	}
}

// refusal is a call and the status that it must end with.
type refusal struct {
	name string
	code codes.Code
	text string
	call func(context.Context, services) error
}

func expectRefusals(t *testing.T, ctx context.Context, s services, refusals []refusal) {
	t.Helper()
	for _, r := range refusals {
		expectStatus(t, r.name, r.call(ctx, s), r.code, r.text)
	}
}

func expectStatus(t *testing.T, name string, err error, code codes.Code, text string) {
	t.Helper()
	if got := status.Convert(err); got.Code() != code || got.Message() != text {
		t.Errorf("%s: %v %q, want %v %q", name, got.Code(), got.Message(), code, text)
	}
}

func put(request *pb.PutRequest) func(context.Context, services) error {
	return func(ctx context.Context, s services) error {
		_, err := s.kv.Put(ctx, request)
		return err
	}
}

func get(request *pb.RangeRequest) func(context.Context, services) error {
	return func(ctx context.Context, s services) error {
		_, err := s.kv.Range(ctx, request)
		return err
	}
}

func txn(request *pb.TxnRequest) func(context.Context, services) error {
	return func(ctx context.Context, s services) error {
		_, err := s.kv.Txn(ctx, request)
		return err
	}
}

func compact(revision int64) func(context.Context, services) error {
	return func(ctx context.Context, s services) error {
		_, err := s.kv.Compact(ctx, &pb.CompactionRequest{Revision: revision})
		return err
	}
}

func grant(id, ttl int64) func(context.Context, services) error {
	return func(ctx context.Context, s services) error {
		_, err := s.lease.LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: id, TTL: ttl})
		return err
	}
}

func puts(count int) []*pb.RequestOp {
	operations := make([]*pb.RequestOp, 0, count)
	for n := range count {
		operations = append(operations, opPut(fmt.Sprintf("many/%d", n)))
	}
	return operations
}

func opPut(key string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(key)}}}
}

func opTxn(request *pb.TxnRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: request}}
}

// nested is `depth` transactions within each other, with a put in the innermost.
func nested(depth int) *pb.TxnRequest {
	request := &pb.TxnRequest{Success: []*pb.RequestOp{opPut("nested")}}
	for range depth {
		request = &pb.TxnRequest{Success: []*pb.RequestOp{opTxn(request)}}
	}
	return request
}

// TestErrorTable walks the part of etcd-contract 3.0 that one node can give whose authentication is off. The store is at
// revision 3 then, compacted at 2.
func TestErrorTable(t *testing.T) {
	server := harness.StartUnderTest(t)
	s, ctx := servicesOf(server.Conn(t)), harness.Context(t, time.Minute)
	for _, prepare := range []func(context.Context, services) error{
		put(&pb.PutRequest{Key: []byte("k"), Value: []byte("1")}), put(&pb.PutRequest{Key: []byte("k"), Value: []byte("2")}),
		compact(2), grant(1000, 1000),
	} {
		if err := prepare(ctx, s); err != nil {
			t.Fatal(err)
		}
	}
	k := []byte("k")
	big := bytes.Repeat([]byte{'x'}, 1<<20+1<<19)
	huge := bytes.Repeat([]byte{'x'}, 2_200_000)
	expectRefusals(t, ctx, s, []refusal{
		{"put without a key", codes.InvalidArgument, "etcdserver: key is not provided", put(&pb.PutRequest{})},
		{"range without a key", codes.InvalidArgument, "etcdserver: key is not provided", get(&pb.RangeRequest{})},
		{"compare without a key", codes.InvalidArgument, "etcdserver: key is not provided",
			txn(&pb.TxnRequest{Compare: []*pb.Compare{{}}})},
		{"empty operation", codes.InvalidArgument, "etcdserver: key not found",
			txn(&pb.TxnRequest{Success: []*pb.RequestOp{{}}})},
		{"ignore_value of nothing", codes.InvalidArgument, "etcdserver: key not found",
			put(&pb.PutRequest{Key: []byte("absent"), IgnoreValue: true})},
		{"ignore_value and a value", codes.InvalidArgument, "etcdserver: value is provided",
			put(&pb.PutRequest{Key: k, Value: k, IgnoreValue: true})},
		{"ignore_lease and a lease", codes.InvalidArgument, "etcdserver: lease is provided",
			put(&pb.PutRequest{Key: k, Lease: 1000, IgnoreLease: true})},
		// etcd-contract 5.
		{"129 operations", codes.InvalidArgument, "etcdserver: too many operations in txn request",
			txn(&pb.TxnRequest{Success: puts(129)})},
		{"129 operations not taken", codes.InvalidArgument, "etcdserver: too many operations in txn request",
			txn(&pb.TxnRequest{Failure: puts(129)})},
		{"nested budget", codes.InvalidArgument, "etcdserver: too many operations in txn request",
			txn(&pb.TxnRequest{Success: append(puts(100), opTxn(&pb.TxnRequest{Success: puts(29)}))})},
		{"nested too deep", codes.InvalidArgument, "etcdserver: too many operations in txn request", txn(nested(200))},
		{"duplicate key", codes.InvalidArgument, "etcdserver: duplicate key given in txn request",
			txn(&pb.TxnRequest{Success: []*pb.RequestOp{opPut("twice"), opPut("twice")}})},
		{"duplicate key in the branch not taken", codes.InvalidArgument, "etcdserver: duplicate key given in txn request",
			txn(&pb.TxnRequest{Failure: []*pb.RequestOp{opPut("twice"), opPut("twice")}})},
		{"duplicate key in a nested txn", codes.InvalidArgument, "etcdserver: duplicate key given in txn request",
			txn(&pb.TxnRequest{Success: []*pb.RequestOp{
				opPut("twice"), opTxn(&pb.TxnRequest{Failure: []*pb.RequestOp{opPut("twice")}}),
			}})},
		{"unknown sort order", codes.InvalidArgument, "etcdserver: invalid sort option",
			get(&pb.RangeRequest{Key: k, SortOrder: 3})},
		{"unknown sort target", codes.InvalidArgument, "etcdserver: invalid sort option",
			get(&pb.RangeRequest{Key: k, SortTarget: 5})},
		// etcd-contract 40.
		{"request of 1.5 MiB", codes.InvalidArgument, "etcdserver: request is too large", put(&pb.PutRequest{Key: k, Value: big})},
		{"message above 2 MiB", codes.ResourceExhausted, "grpc: received message larger than max (2200008 vs. 2097152)",
			put(&pb.PutRequest{Key: k, Value: huge})},
		{"compacted", codes.OutOfRange, "etcdserver: mvcc: required revision has been compacted",
			get(&pb.RangeRequest{Key: k, Revision: 1})},
		{"compact again", codes.OutOfRange, "etcdserver: mvcc: required revision has been compacted", compact(2)},
		{"future", codes.OutOfRange, "etcdserver: mvcc: required revision is a future revision",
			get(&pb.RangeRequest{Key: k, Revision: 4})},
		{"compact the future", codes.OutOfRange, "etcdserver: mvcc: required revision is a future revision", compact(4)},
		{"future hash", codes.OutOfRange, "etcdserver: mvcc: required revision is a future revision",
			func(ctx context.Context, s services) error {
				_, err := s.maintenance.HashKV(ctx, &pb.HashKVRequest{Revision: 4})
				return err
			}},
		{"lease of centuries", codes.OutOfRange, "etcdserver: too large lease TTL", grant(0, 9_000_000_001)},
		{"lease twice", codes.FailedPrecondition, "etcdserver: lease already exists", grant(1000, 1000)},
		{"put with an unknown lease", codes.NotFound, "etcdserver: requested lease not found",
			put(&pb.PutRequest{Key: k, Lease: 7})},
		{"move the lead to nobody", codes.FailedPrecondition, "etcdserver: bad leader transferee",
			func(ctx context.Context, s services) error {
				_, err := s.maintenance.MoveLeader(ctx, &pb.MoveLeaderRequest{TargetID: 1})
				return err
			}},
		{"revoke an unknown lease", codes.NotFound, "etcdserver: requested lease not found",
			func(ctx context.Context, s services) error {
				_, err := s.lease.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: 7})
				return err
			}},
	})
	expectRefusals(t, ctx, s, memberRefusals(server))
	expectRefusals(t, ctx, s, authRefusals())
	expectRefusals(t, ctx, s, downgradeRefusals())
	if got := everything(t, server); got.Header.Revision != 3 {
		t.Errorf("refused requests have moved the revision to %d", got.Header.Revision)
	}
}

func memberRefusals(server *harness.Server) []refusal {
	remove := func(id uint64) func(context.Context, services) error {
		return func(ctx context.Context, s services) error {
			_, err := s.cluster.MemberRemove(ctx, &pb.MemberRemoveRequest{ID: id})
			return err
		}
	}
	add := func(url string) func(context.Context, services) error {
		return func(ctx context.Context, s services) error {
			_, err := s.cluster.MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: []string{url}})
			return err
		}
	}
	return []refusal{
		{"remove an unknown member", codes.NotFound, "etcdserver: member not found", remove(1)},
		{"member with a bad URL", codes.InvalidArgument, "etcdserver: given member URLs are invalid", add("not a url")},
		{"member with a known URL", codes.FailedPrecondition, "etcdserver: Peer URLs already exists", add(server.PeerURL())},
		{"promote an unknown member", codes.NotFound, "etcdserver: member not found",
			func(ctx context.Context, s services) error {
				_, err := s.cluster.MemberPromote(ctx, &pb.MemberPromoteRequest{ID: 1})
				return err
			}},
		{"promote a voter", codes.FailedPrecondition, "etcdserver: can only promote a learner member",
			func(ctx context.Context, s services) error {
				list, err := s.cluster.MemberList(ctx, &pb.MemberListRequest{})
				if err != nil {
					return err
				}
				_, err = s.cluster.MemberPromote(ctx, &pb.MemberPromoteRequest{ID: list.Members[0].ID})
				return err
			}},
	}
}

func downgradeRefusals() []refusal {
	downgrade := func(version string) func(context.Context, services) error {
		return func(ctx context.Context, s services) error {
			_, err := s.maintenance.Downgrade(ctx, &pb.DowngradeRequest{Version: version})
			return err
		}
	}
	return []refusal{
		{"downgrade to nonsense", codes.InvalidArgument, "etcdserver: wrong downgrade target version format", downgrade("x")},
		{"downgrade by two", codes.InvalidArgument, "etcdserver: invalid downgrade target version", downgrade("3.5.0")},
	}
}

// TestLimitsThatStillPass is the other side of the limits: what just fits must be served.
func TestLimitsThatStillPass(t *testing.T) {
	server := harness.StartUnderTest(t)
	s, ctx := servicesOf(server.Conn(t)), harness.Context(t, time.Minute)
	calls := map[string]func(context.Context, services) error{
		"128 operations":   txn(&pb.TxnRequest{Success: puts(128), Failure: puts(128)}),
		"nested 40 deep":   txn(nested(40)),
		"value of 1.5 MB":  put(&pb.PutRequest{Key: []byte("big"), Value: bytes.Repeat([]byte{'x'}, 1_500_000)}),
		"key of 1 MB":      put(&pb.PutRequest{Key: bytes.Repeat([]byte{'k'}, 1_000_000)}),
		"longest lease":    grant(0, 9_000_000_000),
		"empty txn":        txn(&pb.TxnRequest{}),
		"end before start": get(&pb.RangeRequest{Key: []byte("b"), RangeEnd: []byte("a")}),
	}
	for name, call := range calls {
		if err := call(ctx, s); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Deeper than protobuf libraries follow by themselves (docs/decisions/0010).
	for _, depth := range []int{48, 49, 50, 51, 100} {
		expectStatus(t, fmt.Sprintf("nested %d deep", depth), txn(nested(depth))(ctx, s), codes.OK, "")
	}
}

// TestLeaseIDs lets the server choose: a positive number that was not there before (etcd-contract 33).
func TestLeaseIDs(t *testing.T) {
	server := harness.StartUnderTest(t)
	s, ctx := servicesOf(server.Conn(t)), harness.Context(t, time.Minute)
	seen := map[int64]bool{}
	for range 50 {
		granted, err := s.lease.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: 100})
		if err != nil {
			t.Fatal(err)
		}
		if granted.ID <= 0 || seen[granted.ID] || granted.TTL != 100 {
			t.Fatalf("granted %v, %d before", granted, len(seen))
		}
		seen[granted.ID] = true
	}
}

// TestWatchFragments reads a long past of large events in parts no larger than the limit (etcd-contract 31). etcd cuts
// one response into fragments. A named difference: basalt answers with several whole responses, none above the limit, as
// the events are of several revisions.
func TestWatchFragments(t *testing.T) {
	const events, valueBytes, fragmentBytesMax = 6, 1_000_000, 1<<20 + 1<<19 + 1<<19
	server := harness.StartUnderTest(t)
	s, ctx := servicesOf(server.Conn(t)), harness.Context(t, time.Minute)
	for n := range events {
		if err := put(&pb.PutRequest{Key: fmt.Append(nil, n), Value: bytes.Repeat([]byte{'v'}, valueBytes)})(ctx, s); err != nil {
			t.Fatal(err)
		}
	}
	stream, err := s.watch.Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	create := &pb.WatchCreateRequest{Key: []byte{0}, RangeEnd: []byte{0}, StartRevision: 1, Fragment: true}
	if err := stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}); err != nil {
		t.Fatal(err)
	}
	if created, err := stream.Recv(); err != nil || !created.Created {
		t.Fatalf("creation: %v, %v", created, err)
	}
	fragments, got, cuts := 0, 0, server.Kind == harness.Etcd
	for got < events {
		response, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		size := 0
		for _, event := range response.Events {
			size += len(event.Kv.Value)
		}
		if size > fragmentBytesMax {
			t.Errorf("a response of %d bytes", size)
		}
		if response.Fragment {
			fragments++
		}
		for _, event := range response.Events {
			if key := fmt.Sprint(got); string(event.Kv.Key) != key {
				t.Errorf("event of key %q, want %q", event.Kv.Key, key)
			}
			got++
		}
		if response.Fragment != (cuts && got < events) {
			t.Errorf("after %d of %d events fragment is %v", got, events, response.Fragment)
		}
	}
	if cuts != (fragments > 0) {
		t.Errorf("%d fragments", fragments)
	}
}
