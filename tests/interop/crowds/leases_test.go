package crowds

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"basalt/tests/interop/harness"
)

// TestLeasesThatEndTogether renews many leases at one moment, so that they end at one moment, while one lease is kept and
// puts go on: all of the many go with their keys, each in a revision of its own, the one stays, and no put fails.
func TestLeasesThatEndTogether(t *testing.T) {
	// Granting and renewing must not take as long as the leases live.
	leases, ttl := size(5_000, 100_000), int64(size(20, 90))
	server, ctx := harness.StartUnderTest(t), harness.Context(t, 10*time.Minute)
	conns := connections(t, server, 8)
	kv, leaseClient := pb.NewKVClient(conns[0]), pb.NewLeaseClient(conns[0])

	grant := func(i int) error {
		conn := conns[i%len(conns)]
		if _, err := pb.NewLeaseClient(conn).LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: int64(i + 1), TTL: ttl}); err != nil {
			return err
		}
		_, err := pb.NewKVClient(conn).Put(ctx, &pb.PutRequest{Key: fmt.Appendf(nil, "leased/%d", i), Lease: int64(i + 1)})
		return err
	}
	parallel(t, 64, leases, grant)
	kept := int64(leases + 1)
	if err := grant(leases); err != nil {
		t.Fatal(err)
	}
	renewAll(t, ctx, conns[1], leases)
	stop := keep(t, ctx, conns[2], kept)

	var puts atomic.Int64
	done, failed := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-done:
				failed <- nil
				return
			default:
			}
			if _, err := pb.NewKVClient(conns[3]).Put(ctx, &pb.PutRequest{Key: []byte("meanwhile")}); err != nil {
				failed <- err
				return
			}
			puts.Add(1)
		}
	}()
	count := func() *pb.RangeResponse {
		answer, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte("leased/"), RangeEnd: []byte("leased0"), CountOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		return answer
	}
	for count().Count > 1 {
		time.Sleep(50 * time.Millisecond)
	}
	close(done)
	if err := <-failed; err != nil {
		t.Fatalf("a put while leases ended: %v", err)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}

	answer, err := kv.Range(ctx, &pb.RangeRequest{Key: fmt.Appendf(nil, "leased/%d", leases)})
	if err != nil || answer.Count != 1 {
		t.Errorf("the key of the lease that was kept: %v, %v", answer, err)
	}
	left, err := leaseClient.LeaseLeases(ctx, &pb.LeaseLeasesRequest{})
	if err != nil || len(left.Leases) != 1 || left.Leases[0].ID != kept {
		t.Errorf("leases left: %v, %v", left, err)
	}
	// Store at 1; each lease wrote its key and then deleted it, but for the one that was kept.
	want := 1 + int64(leases+1) + int64(leases) + puts.Load()
	if revision := count().Header.Revision; revision != want {
		t.Errorf("revision %d, want %d: each end of a lease is one revision", revision, want)
	}
	t.Logf("%d leases ended, %d puts meanwhile", leases, puts.Load())
}

// renewAll renews leases 1 to `leases` on one stream, without waiting between.
func renewAll(t *testing.T, ctx context.Context, conn *grpc.ClientConn, leases int) {
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := pb.NewLeaseClient(conn).LeaseKeepAlive(ctx)
	if err != nil {
		t.Fatal(err)
	}
	sent := make(chan error, 1)
	go func() {
		for id := 1; id <= leases; id++ {
			if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: int64(id)}); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	for range leases {
		answer, err := stream.Recv()
		if err != nil || answer.TTL <= 0 {
			t.Fatalf("keepalive: %v, %v; granting took longer than the leases live?", answer, err)
		}
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
}

// keep renews a lease every second until the returned function is called, which says whether it always could.
func keep(t *testing.T, ctx context.Context, conn *grpc.ClientConn, id int64) func() error {
	t.Helper()
	stream, err := pb.NewLeaseClient(conn).LeaseKeepAlive(ctx)
	if err != nil {
		t.Fatal(err)
	}
	done, ended := make(chan struct{}), make(chan error, 1)
	renew := func() error {
		if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: id}); err != nil {
			return err
		}
		if answer, err := stream.Recv(); err != nil || answer.TTL <= 0 {
			return fmt.Errorf("the lease that was kept: %v, %w", answer, err)
		}
		return nil
	}
	go func() {
		ticker := time.NewTicker(time.Second)
		defer ticker.Stop()
		for {
			if err := renew(); err != nil {
				ended <- err
				return
			}
			select {
			case <-done:
				ended <- nil
				return
			case <-ticker.C:
			}
		}
	}()
	return func() error {
		close(done)
		return <-ended
	}
}

// keepHot grants a lease and keeps it until the returned function is called, which says whether it always could.
func keepHot(t *testing.T, ctx context.Context, conn *grpc.ClientConn) func() error {
	t.Helper()
	lease, err := pb.NewLeaseClient(conn).LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: 10})
	if err != nil {
		t.Fatal(err)
	}
	return keep(t, ctx, conn, lease.ID)
}
