package differential

import (
	"math"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// unknownLease was never granted.
const unknownLease = 666

// ttlMax is the longest that may be asked for (etcd-contract 33).
const ttlMax = 9_000_000_000

// liveLease is one that was granted, or none.
func (g *Generator) liveLease() int64 {
	if len(g.leases) == 0 || g.chance(1, 3) {
		return 0
	}
	return pick(g.random, g.leases)
}

// anyLease may also be unknown.
func (g *Generator) anyLease() int64 {
	if g.chance(1, 8) {
		return pick(g.random, []int64{unknownLease, -1, math.MaxInt64, math.MinInt64})
	}
	return g.liveLease()
}

func (g *Generator) leaseStep() Step {
	switch g.random.IntN(13) {
	case 0, 1, 2:
		return call(g.grant(leaseTTL + g.random.Int64N(5)))
	case 3:
		// Raised to the minimum of a few seconds, so it goes at once.
		grant := g.grant(pick(g.random, []int64{0, -1, 1, math.MinInt64}))
		g.then(func() Step { return call(&pb.LeaseRevokeRequest{ID: grant.ID}) })
		return call(grant)
	case 4:
		return call(g.grant(pick(g.random, []int64{ttlMax, ttlMax + 1, math.MaxInt64})))
	case 5:
		return call(&pb.LeaseGrantRequest{ID: g.liveLeaseOr(unknownLease), TTL: ttlMax + 1})
	case 6:
		if id := g.liveLease(); id != 0 {
			return call(&pb.LeaseGrantRequest{ID: id, TTL: leaseTTL + 1})
		}
		return call(&pb.LeaseLeasesRequest{})
	case 7, 8:
		return call(g.revoke())
	case 9, 10:
		return call(&pb.LeaseTimeToLiveRequest{ID: g.anyLease(), Keys: g.chance(2, 3)})
	case 11:
		return call(&pb.LeaseKeepAliveRequest{ID: g.anyLease()})
	default:
		return call(&pb.LeaseLeasesRequest{})
	}
}

func (g *Generator) liveLeaseOr(id int64) int64 {
	if live := g.liveLease(); live != 0 {
		return live
	}
	return id
}

func (g *Generator) grant(ttl int64) *pb.LeaseGrantRequest {
	g.nextLease++
	id := g.nextLease
	switch g.random.IntN(30) {
	case 0, 1, 2, 3:
		id = -id
	case 4:
		id = math.MaxInt64 - id
	case 5:
		id = math.MinInt64 + id
	}
	return &pb.LeaseGrantRequest{ID: id, TTL: ttl}
}

// revoke takes one that lives, one that was revoked before, or an unknown one. Revoked leases stay in the list, as a
// source of errors.
func (g *Generator) revoke() *pb.LeaseRevokeRequest {
	return &pb.LeaseRevokeRequest{ID: g.anyLease()}
}
