package interop

import (
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	epb "go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"basalt/tests/interop/harness"
)

// TestStreamsThatWantALeaderEndWithoutOne: etcd-contract 39. Whoever asked for a leader hears that there is none any more, whatever
// the stream is of, and goes elsewhere.
func TestStreamsThatWantALeaderEndWithoutOne(t *testing.T) {
	members := harness.StartMembers(t, harness.UnderTest(t), 3)
	left := members.Without(leaderOf(t, members))[0]
	conn, ctx := left.Conn(t), metadata.AppendToOutgoingContext(harness.Context(t, 2*time.Minute), "hasleader", "true")
	leases, election := pb.NewLeaseClient(conn), epb.NewElectionClient(conn)
	lease := must(leases.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: 600}))(t)
	must(election.Campaign(ctx, &epb.CampaignRequest{Name: []byte("e"), Lease: lease.ID, Value: []byte("v")}))(t)

	watch := must(pb.NewWatchClient(conn).Watch(ctx))(t)
	create := &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: []byte("a")}}
	if err := watch.Send(&pb.WatchRequest{RequestUnion: create}); err != nil {
		t.Fatal(err)
	}
	keepalive := must(leases.LeaseKeepAlive(ctx))(t)
	if err := keepalive.Send(&pb.LeaseKeepAliveRequest{ID: lease.ID}); err != nil {
		t.Fatal(err)
	}
	observe := must(election.Observe(ctx, &epb.LeaderRequest{Name: []byte("e")}))(t)
	streams := map[string]func() error{
		"watch":     func() error { return second(watch.Recv()) },
		"keepalive": func() error { return second(keepalive.Recv()) },
		"observe":   func() error { return second(observe.Recv()) },
	}
	for name, next := range streams {
		if err := next(); err != nil {
			t.Fatalf("%s, while there is a leader: %v", name, err)
		}
	}
	for _, member := range members.Without(left) {
		member.Kill()
	}
	for name, next := range streams {
		if err := next(); status.Code(err) != codes.Unavailable || status.Convert(err).Message() != "etcdserver: no leader" {
			t.Errorf("%s, without a leader: %v", name, err)
		}
	}
}

// TestALeaseOutlivesItsLeader: a keepalive, and a question for a lease, that find no leader wait for the next one. A client that heard
// of it would give its session up.
func TestALeaseOutlivesItsLeader(t *testing.T) {
	members := harness.StartMembers(t, harness.UnderTest(t), 3)
	leader := leaderOf(t, members)
	leases, ctx := pb.NewLeaseClient(members.Without(leader)[0].Conn(t)), harness.Context(t, 2*time.Minute)
	lease := must(leases.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: 600}))(t)
	keepalive := must(leases.LeaseKeepAlive(ctx))(t)
	renewed := func(when string) {
		if err := keepalive.Send(&pb.LeaseKeepAliveRequest{ID: lease.ID}); err != nil {
			t.Fatal(err)
		}
		if answer, err := keepalive.Recv(); err != nil || answer.TTL != 600 {
			t.Fatalf("a keepalive %s: %v, %v", when, answer, err)
		}
	}
	renewed("while there is a leader")
	leader.Kill()
	asked := make(chan error)
	go func() { asked <- second(leases.LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: lease.ID})) }()
	renewed("when it is lost")
	if err := <-asked; err != nil {
		t.Errorf("how long it lives: %v", err)
	}
}

// TestWithoutALeader: what a member says that knows of none, after the time that a request may take.
func TestWithoutALeader(t *testing.T) {
	t.Parallel()
	members := harness.StartMembers(t, harness.UnderTest(t), 3)
	left := members.Without(leaderOf(t, members))[0]
	conn, ctx := left.Conn(t), harness.Context(t, 2*time.Minute)
	kv, leases, maintenance, users := pb.NewKVClient(conn), pb.NewLeaseClient(conn), pb.NewMaintenanceClient(conn), pb.NewAuthClient(conn)
	health := healthpb.NewHealthClient(conn)
	lease := must(leases.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: 600}))(t)
	for _, member := range members.Without(left) {
		member.Kill()
	}
	for must(maintenance.Status(ctx, &pb.StatusRequest{}))(t).Leader != 0 {
		time.Sleep(100 * time.Millisecond)
	}
	keepalive := must(leases.LeaseKeepAlive(ctx))(t)
	if err := keepalive.Send(&pb.LeaseKeepAliveRequest{ID: lease.ID}); err != nil {
		t.Fatal(err)
	}
	const late, leaderless = "DeadlineExceeded: context deadline exceeded", "Unavailable: etcdserver: no leader"
	var answered sync.WaitGroup
	for name, c := range map[string]struct {
		call func() error
		says string
	}{
		"put":          {func() error { return second(kv.Put(ctx, &pb.PutRequest{Key: []byte("a")})) }, late},
		"grant":        {func() error { return second(leases.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: 9})) }, late},
		"alarms":       {func() error { return second(maintenance.Alarm(ctx, &pb.AlarmRequest{})) }, late},
		"user list":    {func() error { return second(users.UserList(ctx, &pb.AuthUserListRequest{})) }, late},
		"auth status":  {func() error { return second(users.AuthStatus(ctx, &pb.AuthStatusRequest{})) }, late},
		"get":          {func() error { return second(kv.Range(ctx, &pb.RangeRequest{Key: []byte("a")})) }, "Unavailable: etcdserver: request timed out"},
		"time to live": {func() error { return second(leases.LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: lease.ID})) }, leaderless},
		"keepalive":    {func() error { return second(keepalive.Recv()) }, leaderless},
	} {
		answered.Go(func() {
			status := status.Convert(c.call())
			if said := status.Code().String() + ": " + status.Message(); said != c.says {
				t.Errorf("%s: %s, and not %s", name, said, c.says)
			}
		})
	}
	answered.Wait()
	serving, unknown := healthpb.HealthCheckResponse_SERVING, healthpb.HealthCheckResponse_SERVICE_UNKNOWN
	if told := must(health.Check(ctx, &healthpb.HealthCheckRequest{}))(t).Status; told != serving {
		t.Errorf("its health is %v", told)
	}
	for service, is := range map[string]healthpb.HealthCheckResponse_ServingStatus{"": serving, "etcdserverpb.KV": unknown} {
		watch := must(health.Watch(ctx, &healthpb.HealthCheckRequest{Service: service}))(t)
		if told := must(watch.Recv())(t).Status; told != is {
			t.Errorf("the health of %q is %v", service, told)
		}
	}
}

func second[T any](_ T, err error) error { return err }
