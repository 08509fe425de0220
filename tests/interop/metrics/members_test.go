package metrics

import (
	"fmt"
	"slices"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"basalt/tests/interop/harness"
)

// roles of three members: who leads at first, who does afterwards, and the third.
var roles = []string{"first", "second", "third"}

// threeMembers works on a cluster through two of its members, and has another lead.
func threeMembers(t *testing.T, kind harness.Kind) []observed {
	t.Helper()
	members := harness.StartMembers(t, kind, len(roles))
	workers, names := byRole(t, members)
	var before []page
	for _, w := range workers {
		before = append(before, scrape(t, w.server, names))
	}
	first, second := workers[0], workers[1]
	first.keys()
	first.leases()
	first.watches()
	first.compactions()
	second.call("KV/Put", putOf("through", "another"), nil)
	second.call("KV/Range", &pb.RangeRequest{Key: []byte("through")}, nil)
	second.call("Lease/LeaseGrant", &pb.LeaseGrantRequest{ID: 21, TTL: 1000}, nil)
	second.keepAlive(21)
	target := &pb.StatusResponse{}
	second.call("Maintenance/Status", &pb.StatusRequest{}, target)
	first.call("Maintenance/MoveLeader", &pb.MoveLeaderRequest{TargetID: target.Header.MemberId}, nil)
	second.await("the lead of another", func() bool { return scrape(t, second.server, nil)["etcd_server_is_leader"].series[""].value == 1 })
	second.call("KV/Put", putOf("after", "another leads"), nil)
	first.closing()
	first.awaitStreams(0)
	second.closing()
	var all []observed
	for n, w := range workers {
		// Everybody has applied everything.
		revision := &pb.RangeResponse{}
		w.call("KV/Range", &pb.RangeRequest{Key: []byte("after")}, revision)
		after := w.settled(names)
		w.get("/health")
		all = append(all, observed{before: before[n], after: after, last: w.settled(names), ended: w.ended})
	}
	return all
}

// byRole gives workers on the members, the leader's first, and what stands for their ids in labels.
func byRole(t *testing.T, members harness.Members) ([]*worker, map[string]string) {
	t.Helper()
	var workers []*worker
	for _, member := range members {
		workers = append(workers, newWorker(t, member))
	}
	leads := func(w *worker) bool { return scrape(t, w.server, nil)["etcd_server_is_leader"].series[""].value == 1 }
	workers[0].await("a leader", func() bool { return slices.ContainsFunc(workers, leads) })
	slices.SortStableFunc(workers, func(a, b *worker) int {
		if leads(a) == leads(b) {
			return 0
		} else if leads(a) {
			return -1
		}
		return 1
	})
	names := map[string]string{}
	for n, w := range workers {
		status := &pb.StatusResponse{}
		if err := w.conn.Invoke(w.ctx, "/etcdserverpb.Maintenance/Status", &pb.StatusRequest{}, status); err != nil {
			t.Fatal(err)
		}
		names[fmt.Sprintf("%x", status.Header.MemberId)] = roles[n]
	}
	// Both have asked each other how far they are, and know of all three.
	for _, w := range workers {
		w.await("round trips", func() bool {
			return len(scrape(t, w.server, nil)["etcd_network_peer_round_trip_time_seconds"].series) == len(roles)-1
		})
	}
	return workers, names
}
