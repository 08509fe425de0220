//! Names of etcd whose machinery does not exist here. Dashboards and tests of others ask whether they are there
//! (`tests/e2e/metrics_test.go`), so they are, at zero.

use prometheus::{Histogram, IntCounter, IntGauge, Registry};

use super::family::{Doubling, family};

/// Steps of a bbolt commit, the store of etcd's API v2, and its gRPC proxy.
const COUNTERS: [(&str, &str); 3] = [
    ("etcd_debugging_store_expires_total", "Total number of expired keys."),
    ("etcd_debugging_store_watch_requests_total", "Total number of incoming watch requests (new or reestablished)."),
    ("etcd_grpc_proxy_events_coalescing_total", "Total number of events coalescing"),
];

const GAUGES: [(&str, &str); 5] = [
    ("etcd_debugging_store_watchers", "Count of currently active watchers."),
    ("etcd_grpc_proxy_cache_hits_total", "Total number of cache hits"),
    ("etcd_grpc_proxy_cache_keys_total", "Total number of keys/ranges cached"),
    ("etcd_grpc_proxy_cache_misses_total", "Total number of cache misses"),
    ("etcd_grpc_proxy_watchers_coalescing_total", "Total number of current watchers coalescing"),
];

const HISTOGRAMS: [(&str, &str, Doubling); 4] = [
    (
        "etcd_debugging_disk_backend_commit_rebalance_duration_seconds",
        "The latency distributions of commit.rebalance called by bboltdb backend.",
        Doubling(0.001, 14),
    ),
    (
        "etcd_debugging_disk_backend_commit_spill_duration_seconds",
        "The latency distributions of commit.spill called by bboltdb backend.",
        Doubling(0.001, 14),
    ),
    (
        "etcd_debugging_disk_backend_commit_write_duration_seconds",
        "The latency distributions of commit.write called by bboltdb backend.",
        Doubling(0.001, 14),
    ),
    (
        "etcd_debugging_mvcc_index_compaction_pause_duration_milliseconds",
        "Bucketed histogram of index compaction pause duration.",
        Doubling(0.5, 14),
    ),
];

/// Registers all of them.
///
/// # Errors
/// A name is registered already.
pub(super) fn register(registry: &Registry) -> Result<(), prometheus::Error> {
    for (name, help) in COUNTERS {
        family::<IntCounter>(registry, name, help, ())?;
    }
    for (name, help) in GAUGES {
        family::<IntGauge>(registry, name, help, ())?;
    }
    for (name, help, buckets) in HISTOGRAMS {
        family::<Histogram>(registry, name, help, buckets)?;
    }
    Ok(())
}
