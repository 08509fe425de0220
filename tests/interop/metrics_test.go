package interop

import (
	"bufio"
	"slices"
	"strconv"
	"strings"
	"testing"

	"basalt/tests/interop/harness"
)

// dashboardMetrics are what etcd's dashboards and alerts read on one node (etcd-contract, section 8).
var dashboardMetrics = strings.Fields(`
	etcd_server_has_leader etcd_server_leader_changes_seen_total etcd_server_proposals_failed_total
	etcd_server_proposals_pending etcd_server_proposals_committed_total etcd_server_proposals_applied_total
	etcd_server_quota_backend_bytes etcd_mvcc_db_total_size_in_bytes etcd_mvcc_db_total_size_in_use_in_bytes
	etcd_disk_wal_fsync_duration_seconds etcd_disk_backend_commit_duration_seconds
	etcd_network_client_grpc_sent_bytes_total etcd_network_client_grpc_received_bytes_total
	grpc_server_started_total grpc_server_handled_total process_resident_memory_bytes`)

// basicMetrics is the list of etcd's own test of metrics (etcd-contract, section 8), less what only Go's runtime and its
// prometheus handler have, and what only a proxy or a cluster of several members counts.
var basicMetrics = strings.Fields(`
	etcd_cluster_version etcd_debugging_auth_revision etcd_debugging_lease_granted_total
	etcd_debugging_lease_renewed_total etcd_debugging_lease_revoked_total etcd_debugging_lease_ttl_total
	etcd_debugging_mvcc_compact_revision etcd_debugging_mvcc_current_revision
	etcd_debugging_mvcc_db_compaction_keys_total etcd_debugging_mvcc_db_compaction_last
	etcd_debugging_mvcc_events_total etcd_debugging_mvcc_keys_total etcd_debugging_mvcc_pending_events_total
	etcd_debugging_mvcc_slow_watcher_total etcd_debugging_mvcc_total_put_size_in_bytes
	etcd_debugging_mvcc_watch_stream_total etcd_debugging_mvcc_watcher_total
	etcd_debugging_server_lease_expired_total etcd_disk_backend_defrag_duration_seconds
	etcd_disk_backend_snapshot_duration_seconds etcd_disk_defrag_inflight etcd_disk_wal_write_bytes_total
	etcd_mvcc_db_open_read_transactions etcd_mvcc_delete_total etcd_mvcc_hash_duration_seconds
	etcd_mvcc_hash_rev_duration_seconds etcd_mvcc_put_total etcd_mvcc_range_total etcd_mvcc_txn_total
	etcd_network_known_peers etcd_server_apply_duration_seconds etcd_server_client_requests_total
	etcd_server_health_failures etcd_server_health_success etcd_server_heartbeat_send_failures_total etcd_server_id
	etcd_server_is_leader etcd_server_is_learner etcd_server_learner_promote_successes
	etcd_server_read_indexes_failed_total etcd_server_slow_apply_total etcd_server_slow_read_indexes_total
	etcd_server_snapshot_apply_in_progress_total etcd_server_version etcd_snap_db_fsync_duration_seconds
	etcd_snap_db_save_total_duration_seconds etcd_snap_fsync_duration_seconds grpc_server_msg_received_total
	grpc_server_msg_sent_total os_fd_limit os_fd_used`)

func TestMetrics(t *testing.T) {
	server := harness.StartUnderTest(t)
	server.Etcdctl("put", "a", "1")
	server.Etcdctl("get", "a")
	server.Etcdctl("del", "a")
	_, text := httpGet(t, newClient(nil, false), server.Endpoint()+"/metrics")
	samples, families := parseMetrics(t, text)
	for _, name := range slices.Concat(dashboardMetrics, basicMetrics) {
		if !families[name] {
			t.Errorf("no %s", name)
		}
	}
	for series, want := range map[string]float64{
		`etcd_server_has_leader`: 1, `etcd_server_is_leader`: 1, `etcd_server_quota_backend_bytes`: 2 << 30,
		`etcd_mvcc_put_total`: 1, `etcd_mvcc_delete_total`: 1, `etcd_debugging_mvcc_current_revision`: 3,
		`etcd_cluster_version{cluster_version="3.7"}`: 1, `etcd_server_version{server_version="3.7.3"}`: 1,
		`etcd_server_apply_duration_seconds_count{op="Put",success="true",version="v3"}`:                                                   1,
		`etcd_server_client_requests_total{client_api_version="3.7",type="unary"}`:                                                         3,
		`grpc_server_handled_total{grpc_code="OK",grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"}`:                     1,
		`grpc_server_handled_total{grpc_code="Unavailable",grpc_method="Watch",grpc_service="etcdserverpb.Watch",grpc_type="bidi_stream"}`: 0,
	} {
		if got, ok := samples[series]; !ok || got != want {
			t.Errorf("%s is %v (there: %v), want %v", series, got, ok, want)
		}
	}
}

// parseMetrics returns the value of every series, and the names of all families that have a type or a sample. Programs
// write large numbers in different forms.
func parseMetrics(t *testing.T, text string) (samples map[string]float64, families map[string]bool) {
	t.Helper()
	samples, families = map[string]float64{}, map[string]bool{}
	scanner := bufio.NewScanner(strings.NewReader(text))
	for scanner.Scan() {
		line := scanner.Text()
		if rest, ok := strings.CutPrefix(line, "# TYPE "); ok {
			families[strings.Fields(rest)[0]] = true
		} else if !strings.HasPrefix(line, "#") {
			space := max(0, strings.LastIndexByte(line, ' '))
			value, err := strconv.ParseFloat(line[min(space+1, len(line)):], 64)
			if err != nil {
				t.Errorf("no number in %q", line)
			}
			samples[line[:space]] = value
			families[line[:max(0, strings.IndexAny(line, "{ "))]] = true
		}
	}
	return samples, families
}
