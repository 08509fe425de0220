package interop

import (
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	epb "go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"google.golang.org/grpc/codes"
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

func second[T any](_ T, err error) error { return err }
