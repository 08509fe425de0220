//! The table of families: one line a name.

use prometheus::{GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use super::client_requests::ClientRequests;
use super::family::{Doubling, family};
use super::grpc_calls::GrpcCalls;
use super::operations::{OperationSeconds, OutcomeSeconds};
use super::process::ProcessMetrics;
use super::recent::Recent;
use super::vestiges;
use crate::config::MetricsDetail;

/// 1 ms to 8 s: what etcd takes for anything that a disk does.
const DISK: Doubling = Doubling(0.001, 14);
/// 10 ms to 164 s.
const HASH: Doubling = Doubling(0.01, 15);
/// 100 ms to 51 s.
const SNAPSHOT: Doubling = Doubling(0.1, 10);
/// 0.1 ms to 52 s.
const APPLY: Doubling = Doubling(0.0001, 20);

macro_rules! families {
    ($($field:ident: $kind:ty = $name:literal $shape:expr, $help:literal;)*) => {
        /// Every family of this process; the fields are the handles.
        ///
        /// Handles are shared when cloned. A gauge that [`refresh`](Metrics::refresh) writes is not to be written
        /// elsewhere.
        pub struct Metrics {
            $(#[doc = concat!("`", $name, "`: ", $help)] pub $field: $kind,)*
            /// `grpc_server_*`.
            pub grpc: GrpcCalls,
            /// `etcd_server_apply_duration_seconds`: The latency distributions of v2 apply called by backend.
            pub apply_seconds: OperationSeconds,
            /// `etcd_server_request_duration_seconds`: Response latency distribution in seconds for each type.
            pub request_seconds: OperationSeconds,
            /// `etcd_server_range_duration_seconds`: The latency distributions of txn.Range
            pub range_seconds: OutcomeSeconds,
            /// `etcd_server_client_requests_total`: The total number of client requests per client version.
            pub client_requests: ClientRequests,
            /// The last syncs of the log; on no page.
            pub log_syncs: Recent,
            pub(super) process: ProcessMetrics,
            pub(super) registry: Registry,
        }

        impl Metrics {
            fn register(registry: Registry, detail: MetricsDetail) -> Result<Self, prometheus::Error> {
                vestiges::register(&registry)?;
                let apply = family::<HistogramVec>(&registry, "etcd_server_apply_duration_seconds",
                    "The latency distributions of v2 apply called by backend.",
                    (APPLY, &["version", "op", "success"]))?;
                let request = family::<HistogramVec>(&registry, "etcd_server_request_duration_seconds",
                    "Response latency distribution in seconds for each type.", (DISK, &["type", "success"]))?;
                let range = family::<HistogramVec>(&registry, "etcd_server_range_duration_seconds",
                    "The latency distributions of txn.Range", (APPLY, &["success"]))?;
                let clients = family::<IntCounterVec>(&registry, "etcd_server_client_requests_total",
                    "The total number of client requests per client version.", &["type", "client_api_version"])?;
                Ok(Self {
                    $($field: family::<$kind>(&registry, $name, $help, $shape)?,)*
                    grpc: GrpcCalls::register(&registry, detail == MetricsDetail::Extensive)?,
                    apply_seconds: OperationSeconds::new(apply, &["v3"]),
                    request_seconds: OperationSeconds::new(request, &[]),
                    range_seconds: OutcomeSeconds::new(&range),
                    client_requests: ClientRequests::new(clients),
                    log_syncs: Recent::default(),
                    process: ProcessMetrics::register(&registry)?,
                    registry,
                })
            }
        }
    };
}

families! {
    // Disk.
    wal_fsync_seconds: Histogram = "etcd_disk_wal_fsync_duration_seconds" DISK,
        "The latency distributions of fsync called by WAL.";
    wal_write_seconds: Histogram = "etcd_disk_wal_write_duration_seconds" DISK,
        "The latency distributions of write called by WAL.";
    wal_write_bytes: IntGauge = "etcd_disk_wal_write_bytes_total" (), "Total number of bytes written in WAL.";
    backend_commit_seconds: Histogram = "etcd_disk_backend_commit_duration_seconds" DISK,
        "The latency distributions of commit called by backend.";
    backend_snapshot_seconds: Histogram = "etcd_disk_backend_snapshot_duration_seconds" Doubling(0.01, 17),
        "The latency distribution of backend snapshots.";
    defrag_seconds: Histogram = "etcd_disk_backend_defrag_duration_seconds" Doubling(0.1, 13),
        "The latency distribution of backend defragmentation.";
    defrag_inflight: IntGauge = "etcd_disk_defrag_inflight" (),
        "Whether or not defrag is active on the member. 1 means active, 0 means not.";
    snap_fsync_seconds: Histogram = "etcd_snap_fsync_duration_seconds" DISK,
        "The latency distributions of fsync called by snap.";
    snap_db_fsync_seconds: Histogram = "etcd_snap_db_fsync_duration_seconds" DISK,
        "The latency distributions of fsyncing .snap.db file";
    snap_db_save_seconds: Histogram = "etcd_snap_db_save_total_duration_seconds" SNAPSHOT,
        "The total latency distributions of v3 snapshot save";
    snap_save_seconds: Histogram = "etcd_debugging_snap_save_total_duration_seconds" DISK,
        "The total latency distributions of save called by snapshot.";
    snap_marshalling_seconds: Histogram = "etcd_debugging_snap_save_marshalling_duration_seconds" DISK,
        "The marshalling cost distributions of save called by snapshot.";

    // Keys and versions.
    put_total: IntCounter = "etcd_mvcc_put_total" (), "Total number of puts seen by this member.";
    delete_total: IntCounter = "etcd_mvcc_delete_total" (), "Total number of deletes seen by this member.";
    range_total: IntCounter = "etcd_mvcc_range_total" (), "Total number of ranges seen by this member.";
    txn_total: IntCounter = "etcd_mvcc_txn_total" (), "Total number of txns seen by this member.";
    put_bytes: IntGauge = "etcd_debugging_mvcc_total_put_size_in_bytes" (),
        "The total size of put kv pairs seen by this member.";
    keys: IntGauge = "etcd_debugging_mvcc_keys_total" (), "Total number of keys.";
    current_revision: IntGauge = "etcd_debugging_mvcc_current_revision" (), "The current revision of store.";
    compact_revision: IntGauge = "etcd_debugging_mvcc_compact_revision" (),
        "The revision of the last compaction in store.";
    db_size_bytes: IntGauge = "etcd_mvcc_db_total_size_in_bytes" (),
        "Total size of the underlying database physically allocated in bytes.";
    db_in_use_bytes: IntGauge = "etcd_mvcc_db_total_size_in_use_in_bytes" (),
        "Total size of the underlying database logically in use in bytes.";
    open_reads: IntGauge = "etcd_mvcc_db_open_read_transactions" (),
        "The number of currently open read transactions";
    hash_seconds: Histogram = "etcd_mvcc_hash_duration_seconds" HASH,
        "The latency distribution of storage hash operation.";
    hash_rev_seconds: Histogram = "etcd_mvcc_hash_rev_duration_seconds" HASH,
        "The latency distribution of storage hash by revision operation.";
    compaction_keys_total: IntCounter = "etcd_debugging_mvcc_db_compaction_keys_total" (),
        "Total number of db keys compacted.";
    compaction_last: IntGauge = "etcd_debugging_mvcc_db_compaction_last" (),
        "The unix time of the last db compaction. Resets to 0 on start.";
    compaction_pause_milliseconds: Histogram = "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds"
        Doubling(1.0, 13), "Bucketed histogram of db compaction pause duration.";
    compaction_milliseconds: Histogram = "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds"
        Doubling(100.0, 14), "Bucketed histogram of db compaction total duration.";

    // Watch.
    watchers: IntGauge = "etcd_debugging_mvcc_watcher_total" (), "Total number of watchers.";
    watch_streams: IntGauge = "etcd_debugging_mvcc_watch_stream_total" (), "Total number of watch streams.";
    slow_watchers: IntGauge = "etcd_debugging_mvcc_slow_watcher_total" (),
        "Total number of unsynced slow watchers.";
    pending_events: IntGauge = "etcd_debugging_mvcc_pending_events_total" (),
        "Total number of pending events to be sent.";
    events_total: IntCounter = "etcd_debugging_mvcc_events_total" (), "Total number of events sent by this member.";
    watch_send_seconds: Histogram = "etcd_debugging_server_watch_send_loop_watch_stream_duration_seconds" DISK,
        "The total duration in seconds of running through the send loop watch stream response all events.";
    watch_send_event_seconds: Histogram =
        "etcd_debugging_server_watch_send_loop_watch_stream_duration_per_event_seconds" DISK,
        "The average duration in seconds of running through the send loop watch stream response, per event.";
    watch_control_seconds: Histogram = "etcd_debugging_server_watch_send_loop_control_stream_duration_seconds" DISK,
        "The total duration in seconds of running through the send loop control stream response.";
    watch_progress_seconds: Histogram = "etcd_debugging_server_watch_send_loop_progress_duration_seconds" DISK,
        "The total duration in seconds of running through the progress loop control stream response.";

    // Leases and auth.
    lease_granted_total: IntCounter = "etcd_debugging_lease_granted_total" (), "The total number of granted leases.";
    lease_renewed_total: IntCounter = "etcd_debugging_lease_renewed_total" (),
        "The number of renewed leases seen by the leader.";
    lease_revoked_total: IntCounter = "etcd_debugging_lease_revoked_total" (), "The total number of revoked leases.";
    lease_expired_total: IntCounter = "etcd_debugging_server_lease_expired_total" (),
        "The total number of expired leases.";
    lease_ttl_seconds: Histogram = "etcd_debugging_lease_ttl_total" Doubling(1.0, 24),
        "Bucketed histogram of lease TTLs.";
    auth_revision: IntGauge = "etcd_debugging_auth_revision" (), "The current revision of auth store.";

    // Member, cluster and consensus.
    server_id: IntGaugeVec = "etcd_server_id" &["server_id"],
        "Server or member ID in hexadecimal format. 1 for 'server_id' label with current ID.";
    server_version: IntGaugeVec = "etcd_server_version" &["server_version"],
        "Which version is running. 1 for 'server_version' label with current version.";
    go_version: IntGaugeVec = "etcd_server_go_version" &["server_go_version"],
        "Which Go version server is running with. 1 for 'server_go_version' label with current version.";
    cluster_version: IntGaugeVec = "etcd_cluster_version" &["cluster_version"],
        "Which version is running. 1 for 'cluster_version' label with current cluster version";
    feature_enabled: IntGaugeVec = "etcd_server_feature_enabled" &["name", "stage"],
        "Whether or not a feature is enabled. 1 is enabled, 0 is not.";
    quota_bytes: IntGauge = "etcd_server_quota_backend_bytes" (), "Current backend storage quota size in bytes.";
    has_leader: IntGauge = "etcd_server_has_leader" (), "Whether or not a leader exists. 1 is existence, 0 is not.";
    is_leader: IntGauge = "etcd_server_is_leader" (),
        "Whether or not this member is a leader. 1 if is, 0 otherwise.";
    is_learner: IntGauge = "etcd_server_is_learner" (),
        "Whether or not this member is a learner. 1 if is, 0 otherwise.";
    leader_changes_total: IntCounter = "etcd_server_leader_changes_seen_total" (),
        "The number of leader changes seen.";
    learner_promote_successes: IntCounter = "etcd_server_learner_promote_successes" (),
        "The total number of successful learner promotions while this member is leader.";
    learner_promote_failures: IntCounterVec = "etcd_server_learner_promote_failures" &["Reason"],
        "The total number of failed learner promotions (likely learner not ready) while this member is leader.";
    heartbeat_send_failures_total: IntCounter = "etcd_server_heartbeat_send_failures_total" (),
        "The total number of leader heartbeat send failures (likely overloaded from slow disk).";
    proposals_committed: IntGauge = "etcd_server_proposals_committed_total" (),
        "The total number of consensus proposals committed.";
    proposals_applied: IntGauge = "etcd_server_proposals_applied_total" (),
        "The total number of consensus proposals applied.";
    proposals_pending: IntGauge = "etcd_server_proposals_pending" (),
        "The current number of pending proposals to commit.";
    proposals_failed_total: IntCounter = "etcd_server_proposals_failed_total" (),
        "The total number of failed proposals seen.";
    slow_apply_total: IntCounter = "etcd_server_slow_apply_total" (),
        "The total number of slow apply requests (likely overloaded from slow disk).";
    read_indexes_slow_total: IntCounter = "etcd_server_slow_read_indexes_total" (),
        "The total number of pending read indexes not in sync with leader's or timed out read index requests.";
    read_indexes_failed_total: IntCounter = "etcd_server_read_indexes_failed_total" (),
        "The total number of failed read indexes seen.";
    snapshot_apply_in_progress: IntGauge = "etcd_server_snapshot_apply_in_progress_total" (),
        "1 if the server is applying the incoming snapshot. 0 if none.";
    alarms: IntGaugeVec = "etcd_debugging_server_alarms" &["server_id", "alarm_type"],
        "Alarms for every member in cluster. 1 for 'server_id' label with current ID. 2 for 'alarm_type' label with \
         type of this alarm";

    // Clients.
    client_received_bytes: IntCounter = "etcd_network_client_grpc_received_bytes_total" (),
        "The total number of bytes received from grpc clients.";
    client_sent_bytes: IntCounter = "etcd_network_client_grpc_sent_bytes_total" (),
        "The total number of bytes sent to grpc clients.";
    stream_failures_total: IntCounterVec = "etcd_network_server_stream_failures_total" &["Type", "API"],
        "The total number of stream failures from the local server.";
    health_success: IntCounter = "etcd_server_health_success" (), "The total number of successful health checks";
    health_failures: IntCounter = "etcd_server_health_failures" (), "The total number of failed health checks";
    healthcheck: IntGaugeVec = "etcd_server_healthcheck" &["type", "name"],
        "The result of each kind of healthcheck.";
    healthchecks_total: IntCounterVec = "etcd_server_healthchecks_total" &["type", "name", "status"],
        "The total number of each kind of healthcheck.";
    scrapes_total: IntCounterVec = "promhttp_metric_handler_requests_total" &["code"],
        "Total number of scrapes by HTTP status code.";
    scrapes_inflight: IntGauge = "promhttp_metric_handler_requests_in_flight" (),
        "Current number of scrapes being served.";

    // Peers.
    known_peers: IntGaugeVec = "etcd_network_known_peers" &["Local", "Remote"],
        "The current number of known peers.";
    active_peers: IntGaugeVec = "etcd_network_active_peers" &["Local", "Remote"],
        "The current number of active peer connections.";
    disconnected_peers_total: IntCounterVec = "etcd_network_disconnected_peers_total" &["Local", "Remote"],
        "The total number of disconnected peers.";
    peer_sent_bytes: IntCounterVec = "etcd_network_peer_sent_bytes_total" &["To"],
        "The total number of bytes sent to peers.";
    peer_received_bytes: IntCounterVec = "etcd_network_peer_received_bytes_total" &["From"],
        "The total number of bytes received from peers.";
    peer_sent_failures_total: IntCounterVec = "etcd_network_peer_sent_failures_total" &["To"],
        "The total number of send failures from peers.";
    peer_received_failures_total: IntCounterVec = "etcd_network_peer_received_failures_total" &["From"],
        "The total number of receive failures from peers.";
    peer_round_trip_seconds: HistogramVec = "etcd_network_peer_round_trip_time_seconds"
        (Doubling(0.0001, 16), &["To"]), "Round-Trip-Time histogram between peers";
    snapshot_send_success: IntCounterVec = "etcd_network_snapshot_send_success" &["To"],
        "Total number of successful snapshot sends";
    snapshot_send_failures: IntCounterVec = "etcd_network_snapshot_send_failures" &["To"],
        "Total number of snapshot send failures";
    snapshot_send_inflight: IntGaugeVec = "etcd_network_snapshot_send_inflights_total" &["To"],
        "Total number of inflight snapshot sends";
    snapshot_send_seconds: HistogramVec = "etcd_network_snapshot_send_total_duration_seconds" (SNAPSHOT, &["To"]),
        "Total latency distributions of v3 snapshot sends";
    snapshot_receive_success: IntCounterVec = "etcd_network_snapshot_receive_success" &["From"],
        "Total number of successful snapshot receives";
    snapshot_receive_failures: IntCounterVec = "etcd_network_snapshot_receive_failures" &["From"],
        "Total number of snapshot receive failures";
    snapshot_receive_inflight: IntGaugeVec = "etcd_network_snapshot_receive_inflights_total" &["From"],
        "Total number of inflight snapshot receives";
    snapshot_receive_seconds: HistogramVec = "etcd_network_snapshot_receive_total_duration_seconds"
        (SNAPSHOT, &["From"]), "Total latency distributions of v3 snapshot receives";

    // Ours.
    build_info: IntGaugeVec = "basalt_build_info" &["version", "etcd_version"],
        "1, labelled with our version and the version of etcd that is spoken.";
    apply_disk_waits_total: IntCounter = "basalt_apply_disk_waits_total" (),
        "How often apply had to wait for a read from disk; it never should.";
    checkpoint_seconds: Histogram = "basalt_checkpoint_duration_seconds" Doubling(0.001, 16),
        "How long checkpoints take from freeze to durable manifest, with the sleeps in which calls have their turn.";
    hash_marks_equal_total: IntCounter = "basalt_hash_marks_equal_total" (),
        "Comparisons of this member's data with another's that found them equal.";
    hash_marks_different_total: IntCounter = "basalt_hash_marks_different_total" (),
        "Comparisons of this member's data with another's that found them different; the CORRUPT alarm follows.";
    damaged_answers_total: IntCounter = "basalt_damaged_answers_total" (),
        "Calls that failed because stored data is damaged; then this member is not ready any more until it is started again.";
    listen_cut_total: IntCounterVec = "basalt_listen_cut_total" &["reason"],
        "Connections that the server ended: too_many_pings, too_many_control_frames, late (no handshake or no first bytes in time), gone or failed before that, silent (its place went to a newer one), limit.";
    member_lag_entries: IntGaugeVec = "basalt_member_lag_entries" &["member"],
        "Entries of the log that a member is not known to have; from the leader alone.";
    peer_clock_difference_seconds: GaugeVec = "basalt_peer_clock_difference_seconds" &["To"],
        "How much later the clock of another member is than ours.";
    slow_disk_hand_overs_total: IntCounter = "basalt_slow_disk_hand_overs_total" (),
        "Times this member had another one lead because its disk was slower than theirs.";
    apply_version: IntGauge = "basalt_apply_version" (),
        "The rules that all members of the cluster apply by.";
    trace_spans_exported_total: IntCounter = "basalt_traces_spans_exported_total" (),
        "Spans that the collector of traces took.";
    trace_spans_dropped_total: IntCounter = "basalt_traces_spans_dropped_total" (),
        "Spans that were dropped: too many waited, or the collector did not take them.";
    checkpoint_failures_total: IntCounter = "basalt_checkpoint_failures_total" (),
        "Checkpoints abandoned, for lack of space for one.";
    admission_waiting_requests: IntGaugeVec = "basalt_admission_waiting_requests" &["class"],
        "Requests that wait to be ordered, by shard, and control for those of none.";
    admission_waiting_bytes: IntGaugeVec = "basalt_admission_waiting_bytes" &["class"],
        "Bytes of requests that wait to be ordered.";
    admission_refused_total: IntGaugeVec = "basalt_admission_refused_total" &["class"],
        "Requests refused because too much of their class waited, or too much of their shard for a checkpoint.";
    raft_log_entries: IntGauge = "basalt_raft_log_entries" (),
        "Entries of the log in memory: those that are not applied yet, and the last ones for members that lag behind.";
    raft_term: IntGauge = "basalt_raft_term" (), "The current term.";
    lease_count: IntGauge = "basalt_lease_count" (), "Leases that have neither expired nor been revoked.";
    shard_keys: IntGaugeVec = "basalt_shard_keys" &["shard"], "Keys by shard.";
    shard_delta_bytes: IntGaugeVec = "basalt_shard_delta_bytes" &["shard"],
        "Bytes by shard that only the log holds, until the next checkpoint.";
    shard_db_size_bytes: IntGaugeVec = "basalt_shard_db_size_bytes" &["shard"],
        "Bytes by shard allocated in page files.";
    shard_db_in_use_bytes: IntGaugeVec = "basalt_shard_db_in_use_bytes" &["shard"],
        "Bytes by shard of revisions that are not dead.";
    watch_ring_bytes: IntGaugeVec = "basalt_watch_ring_bytes" &["shard"],
        "Bytes of recent history that the watch hub of a shard, or the one of watches that span several, keeps in memory.";
    watch_history_scans_total: IntCounter = "basalt_watch_history_scans_total" (),
        "Reads of history from disk for watchers that the ring could not serve.";
}

impl Metrics {
    /// Every family registered, at zero.
    pub fn new(detail: MetricsDetail) -> Self {
        let metrics = Self::register(Registry::new(), detail).expect("the table names each family once");
        // Series that exist in etcd before anything has happened, or soon after a start.
        metrics.go_version.with_label_values(&["none"]).set(1);
        for code in ["200", "500", "503"] {
            metrics.scrapes_total.with_label_values(&[code]);
        }
        metrics
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new(MetricsDetail::Basic)
    }
}
