package load

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"basalt/tests/chaos/history"
	"basalt/tests/chaos/rig"
)

// own grants one lease after the other, puts a key under each, renews it for a while and abandons or revokes it.
func (l *Load) own(ctx context.Context, random *rand.Rand) {
	l.calls.Add(1)
	go func() {
		defer l.calls.Done()
		for ctx.Err() == nil {
			// A lease may be renewed through another member than granted.
			members := l.cluster.Members()
			home, other := members[random.IntN(len(members))], members[random.IntN(len(members))]
			l.oneLease(ctx, home, other, random)
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
		}
	}()
}

func (l *Load) oneLease(ctx context.Context, home, other *rig.Member, random *rand.Rand) {
	lease := &history.Lease{ID: random.Int64N(1<<62) + 1, Granted: l.Now()}
	lease.Key = fmt.Sprintf("l/%s-%d", l.id, lease.ID)
	ttl, renewals, revoke := 2+random.Int64N(3), random.IntN(10), random.IntN(4) == 0
	once, cancel := context.WithTimeout(ctx, l.options.CallTimeout)
	granted, err := pb.NewLeaseClient(home.Conn()).LeaseGrant(once, &pb.LeaseGrantRequest{ID: lease.ID, TTL: ttl})
	cancel()
	if err != nil {
		return
	}
	lease.TTL = granted.TTL
	l.mutex.Lock()
	l.record.Leases = append(l.record.Leases, lease)
	l.mutex.Unlock()
	change := l.put(lease.Key)
	change.LeaseID = lease.ID
	once, cancel = context.WithTimeout(ctx, l.options.CallTimeout)
	put := l.Write(once, home, nil, change)
	cancel()
	l.mutex.Lock()
	lease.Attached = put.Outcome == history.Acknowledged
	l.mutex.Unlock()
	for range renewals {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Duration(lease.TTL) * time.Second / 3):
		}
		if !l.renew(ctx, other, lease) {
			return
		}
	}
	if revoke {
		l.mutex.Lock()
		lease.Revoked = l.Now()
		l.mutex.Unlock()
		once, cancel := context.WithTimeout(ctx, l.options.CallTimeout)
		_, _ = pb.NewLeaseClient(home.Conn()).LeaseRevoke(once, &pb.LeaseRevokeRequest{ID: lease.ID}) // unanswered, it ends by itself
		cancel()
	}
}

// renew sends one keepalive; false if the lease is gone. One without an answer may come too late or not at all: the owner goes on, and
// the lease may end.
func (l *Load) renew(ctx context.Context, through *rig.Member, lease *history.Lease) bool {
	once, cancel := context.WithTimeout(ctx, time.Duration(lease.TTL)*time.Second/2)
	defer cancel()
	renewal := history.Renewal{Send: l.Now()}
	stream, err := pb.NewLeaseClient(through.Conn()).LeaseKeepAlive(once)
	if err != nil {
		return true
	}
	if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: lease.ID}); err != nil {
		return true
	}
	answer, err := stream.Recv()
	if err != nil {
		return true
	}
	renewal.Answer, renewal.TTL = l.Now(), answer.TTL
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if answer.TTL <= 0 {
		lease.Lost = renewal.Answer
		return false
	}
	lease.Renewals = append(lease.Renewals, renewal)
	return true
}

// Lease grants one of at least `ttl` seconds with a key below "m/", which nobody renews.
func (l *Load) Lease(ctx context.Context, member *rig.Member, number, ttl int64) error {
	once, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	lease := &history.Lease{ID: 1<<61 + number, Key: fmt.Sprintf("m/%s-%d", l.id, number), Granted: l.Now()}
	granted, err := pb.NewLeaseClient(member.Conn()).LeaseGrant(once, &pb.LeaseGrantRequest{ID: lease.ID, TTL: ttl})
	if err != nil {
		return err
	}
	lease.TTL = granted.TTL
	l.mutex.Lock()
	l.record.Leases = append(l.record.Leases, lease)
	l.mutex.Unlock()
	change := l.put(lease.Key)
	change.LeaseID = lease.ID
	if put := l.Write(once, member, nil, change); put.Outcome != history.Acknowledged {
		return fmt.Errorf("a put under a lease: %s", put.Error)
	}
	return nil
}
