package interop

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"basalt/tests/interop/harness"
)

// samplesOf gives what a member's page shows now.
func samplesOf(t *testing.T, member *harness.Server) map[string]float64 {
	t.Helper()
	samples, _ := parseMetrics(t, metricsOf(t, member))
	return samples
}

// awaitSample waits until a sample is as wanted.
func awaitSample(t *testing.T, member *harness.Server, name string, fits func(float64) bool) {
	t.Helper()
	var last string
	for deadline := time.Now().Add(40 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		value, ok := samplesOf(t, member)[name]
		if ok && fits(value) {
			return
		}
		last = fmt.Sprint(value, ok)
	}
	t.Errorf("%s of %s stays at %s", name, member.Endpoint(), last)
}

func isAtLeast(least float64) func(float64) bool {
	return func(value float64) bool { return value >= least }
}
func isExactly(wanted float64) func(float64) bool {
	return func(value float64) bool { return value == wanted }
}

// TestMetricsOfMembers moves each family that speaks of other members for the reason that it is there for. Names and labels are
// etcd's: it runs against both.
func TestMetricsOfMembers(t *testing.T) {
	t.Parallel()
	kind := harness.UnderTest(t)
	members := harness.StartMembers(t, kind, 3, "--snapshot-count", "100", "--snapshot-catchup-entries", "50")
	leader := leaderOf(t, members)
	follower := members.Without(leader)[0]
	other := members.Without(leader).Without(follower)[0]
	id := func(member *harness.Server) string { return fmt.Sprintf("%x", idOf(t, member)) }
	own, followers, others := id(leader), id(follower), id(other)
	kv := pb.NewKVClient(leader.Conn(t))
	put := func() {
		t.Helper()
		if _, err := kv.Put(harness.Context(t, 10*time.Second), &pb.PutRequest{Key: []byte("/registry/a"), Value: []byte("value")}); err != nil {
			t.Fatal(err)
		}
	}
	put()

	for _, member := range members {
		leads := 0.0
		if member == leader {
			leads = 1
		}
		awaitSample(t, member, "etcd_server_is_leader", isExactly(leads))
		awaitSample(t, member, "etcd_server_has_leader", isExactly(1))
		awaitSample(t, member, "etcd_server_leader_changes_seen_total", isAtLeast(1))
		awaitSample(t, member, "etcd_server_is_learner", isExactly(0))
		for _, remote := range []string{own, followers, others} {
			awaitSample(t, member, fmt.Sprintf(`etcd_network_known_peers{Local="%s",Remote="%s"}`, id(member), remote), isExactly(1))
		}
	}
	active := fmt.Sprintf(`etcd_network_active_peers{Local="%s",Remote="%s"}`, own, others)
	lost := fmt.Sprintf(`etcd_network_disconnected_peers_total{Local="%s",Remote="%s"}`, own, others)
	awaitSample(t, leader, active, isExactly(1))
	before := samplesOf(t, leader)
	put()
	grows := func(member *harness.Server, name string, before map[string]float64) {
		t.Helper()
		awaitSample(t, member, name, func(value float64) bool { return value > before[name] })
	}
	grows(leader, fmt.Sprintf(`etcd_network_peer_sent_bytes_total{To="%s"}`, followers), before)
	grows(leader, fmt.Sprintf(`etcd_network_peer_received_bytes_total{From="%s"}`, followers), before)
	awaitSample(t, follower, "etcd_server_proposals_committed_total", isAtLeast(before["etcd_server_proposals_committed_total"]))

	// A lease shows on whoever is asked.
	if kind == harness.Basalt {
		if _, err := pb.NewLeaseClient(leader.Conn(t)).LeaseGrant(harness.Context(t, 10*time.Second), &pb.LeaseGrantRequest{TTL: 600}); err != nil {
			t.Fatal(err)
		}
		for _, member := range members {
			awaitSample(t, member, "basalt_lease_count", isExactly(1))
			awaitSample(t, member, fmt.Sprintf(`basalt_peer_clock_difference_seconds{To="%s"}`, id(members.Without(member)[0])), func(value float64) bool { return value > -0.5 && value < 0.5 })
		}
		awaitSample(t, leader, fmt.Sprintf(`basalt_member_lag_entries{member="%s"}`, others), isExactly(0))
	}
	awaitSample(t, leader, fmt.Sprintf(`etcd_network_peer_round_trip_time_seconds_count{To="%s"}`, followers), isAtLeast(1))

	// One is away, by more than any log keeps, and is brought the state.
	other.Kill()
	awaitSample(t, leader, active, isExactly(0))
	awaitSample(t, leader, lost, isAtLeast(1))
	for range 600 {
		put()
	}
	grows(leader, fmt.Sprintf(`etcd_network_peer_sent_failures_total{To="%s"}`, others), before)
	if kind == harness.Basalt {
		awaitSample(t, leader, fmt.Sprintf(`basalt_member_lag_entries{member="%s"}`, others), isAtLeast(100))
		if lag := samplesOf(t, follower)[fmt.Sprintf(`basalt_member_lag_entries{member="%s"}`, others)]; lag != 0 {
			t.Errorf("a follower shows a lag of %v", lag)
		}
	}
	other.Restart()
	awaitSample(t, leader, active, isExactly(1))
	awaitSample(t, leader, fmt.Sprintf(`etcd_network_snapshot_send_success{To="%s"}`, others), isAtLeast(1))
	awaitSample(t, leader, fmt.Sprintf(`etcd_network_snapshot_send_inflights_total{To="%s"}`, others), isExactly(0))
	awaitSample(t, leader, fmt.Sprintf(`etcd_network_snapshot_send_total_duration_seconds_count{To="%s"}`, others), isAtLeast(1))
	awaitSample(t, other, fmt.Sprintf(`etcd_network_snapshot_receive_success{From="%s"}`, own), isAtLeast(1))
	awaitSample(t, other, fmt.Sprintf(`etcd_network_snapshot_receive_inflights_total{From="%s"}`, own), isExactly(0))
	awaitSample(t, other, "etcd_server_snapshot_apply_in_progress_total", isExactly(0))
	if kind == harness.Basalt {
		awaitSample(t, leader, fmt.Sprintf(`basalt_member_lag_entries{member="%s"}`, others), isExactly(0))
	}

	// A learner that is refused, then promoted.
	spare := harness.Spare(t, kind, "spare", "--snapshot-count", "100", "--snapshot-catchup-entries", "50")
	learner := addMember(t, leader, spare, true)
	promoteOnce := func() error {
		_, err := clusterOf(t, leader).MemberPromote(harness.Context(t, 10*time.Second), &pb.MemberPromoteRequest{ID: learner})
		return err
	}
	if promoteOnce() == nil {
		t.Error("a learner that does not run was promoted")
	}
	refused := 0.0
	for name, value := range samplesOf(t, leader) {
		if strings.HasPrefix(name, "etcd_server_learner_promote_failures{") {
			refused += value
		}
	}
	if refused < 1 {
		t.Error("a refused promotion is not counted")
	}
	spare.Join(members)
	awaitSample(t, spare, "etcd_server_is_learner", isExactly(1))
	promote(t, leader, learner)
	awaitSample(t, spare, "etcd_server_is_learner", isExactly(0))
	awaitSample(t, leader, "etcd_server_learner_promote_successes", isExactly(1))

	// Another leads.
	changes := samplesOf(t, follower)["etcd_server_leader_changes_seen_total"]
	if _, err := pb.NewMaintenanceClient(leader.Conn(t)).MoveLeader(harness.Context(t, 10*time.Second), &pb.MoveLeaderRequest{TargetID: idOf(t, follower)}); err != nil {
		t.Fatal(err)
	}
	awaitSample(t, follower, "etcd_server_leader_changes_seen_total", isAtLeast(changes+1))
	awaitSample(t, follower, "etcd_server_is_leader", isExactly(1))
	awaitSample(t, leader, "etcd_server_is_leader", isExactly(0))

	// Two of four leave nobody a quorum: reads time out.
	rest := slices.Concat(members.Without(follower).Without(leader), harness.Members{spare})
	for _, member := range rest {
		member.Pause()
	}
	read := samplesOf(t, follower)
	_, err := pb.NewKVClient(follower.Conn(t)).Range(harness.Context(t, 30*time.Second), &pb.RangeRequest{Key: []byte("a")})
	if err == nil {
		t.Error("a linearizable read without a quorum succeeded")
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		now := samplesOf(t, follower)
		slow, failed := "etcd_server_slow_read_indexes_total", "etcd_server_read_indexes_failed_total"
		if now[slow]+now[failed] > read[slow]+read[failed] {
			break
		}
		if time.Now().After(deadline) {
			t.Error("a read without a quorum is not counted")
			break
		}
	}
	_, err = pb.NewKVClient(follower.Conn(t)).Put(harness.Context(t, 30*time.Second), &pb.PutRequest{Key: []byte("a")})
	if err == nil {
		t.Error("a put without a quorum succeeded")
	}
	grows(follower, "etcd_server_proposals_failed_total", read)
	awaitSample(t, follower, "etcd_server_has_leader", isExactly(0))
	for _, member := range rest {
		member.Resume()
	}
	putUntilTaken(t, follower, "/registry/after", "value")
}

// TestLateHeartbeats stops a leader where it stands for longer than its heartbeats may take, and not long enough to lose the
// lead: it counts that when it goes on.
func TestLateHeartbeats(t *testing.T) {
	members := harness.StartMembers(t, harness.UnderTest(t), 3, "--election-timeout=10000")
	leader := leaderOf(t, members)
	leader.Pause()
	time.Sleep(time.Second)
	leader.Resume()
	awaitSample(t, leader, "etcd_server_heartbeat_send_failures_total", isAtLeast(1))
	awaitSample(t, leader, "etcd_server_is_leader", isExactly(1))
}
