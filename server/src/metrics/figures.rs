//! What the node knows without counting, and the page itself.

use prometheus::{Encoder, TextEncoder};

use super::families::Metrics;
use super::process;

/// What does not change while the process lives.
#[derive(Clone, Debug)]
pub struct Identity<'a> {
    /// This member's id.
    pub member_id: u64,
    /// Our own version.
    pub version: &'a str,
    /// The version of etcd that clients are told.
    pub etcd_version: &'a str,
    /// Feature gates by name.
    pub features: &'a [(&'a str, bool)],
}

/// What a scrape shows of the node's state. All zero until the node has started.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)] // the help texts of the families say what they are
pub struct Figures {
    pub revision: i64,
    pub compact_revision: i64,
    pub keys: u64,
    pub db_size_bytes: u64,
    pub db_in_use_bytes: u64,
    pub quota_bytes: i64,
    pub open_reads: u64,
    pub has_leader: bool,
    pub is_leader: bool,
    pub is_learner: bool,
    pub term: u64,
    pub committed_index: u64,
    pub applied_index: u64,
    pub proposals_pending: u64,
    pub watchers: u64,
    pub watch_streams: u64,
    pub slow_watchers: u64,
    pub pending_events: u64,
    pub events_sent: u64,
    pub leases: u64,
    pub auth_revision: u64,
    /// The cluster version as `major.minor`, once there is one.
    pub cluster_version: Option<String>,
    /// This member, and all of the cluster.
    pub member_id: u64,
    pub members: Vec<u64>,
    /// Entries that each other member lacks, as its leader knows; empty if another leads.
    pub lags: Vec<(u64, u64)>,
    pub shards: Vec<ShardFigures>,
    pub classes: Vec<ClassFigures>,
}

/// What a scrape shows of requests that wait to be ordered: of one shard, or of none.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)] // the help texts of the families say what they are
pub struct ClassFigures {
    pub name: String,
    pub waiting_requests: u64,
    pub waiting_bytes: u64,
    pub refused: u64,
}

/// What a scrape shows of one shard.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)] // the help texts of the families say what they are
pub struct ShardFigures {
    pub name: String,
    pub keys: u64,
    pub delta_bytes: u64,
    pub db_in_use_bytes: u64,
}

/// Gates of the second stage in etcd 3.7; all others are of the first.
const BETA_FEATURES: [&str; 3] = ["AllBeta", "FastLeaseKeepAlive", "TxnModeWriteWithSharedBuffer"];

impl Metrics {
    /// Shows who this is. Called once, when the ids are known.
    pub fn identify(&self, identity: &Identity<'_>) {
        let member = format!("{:x}", identity.member_id);
        self.server_id.with_label_values(&[&member]).set(1);
        self.server_version.with_label_values(&[identity.etcd_version]).set(1);
        self.build_info.with_label_values(&[identity.version, identity.etcd_version]).set(1);
        for (name, enabled) in [("AllAlpha", false), ("AllBeta", false)].iter().chain(identity.features) {
            let stage = if BETA_FEATURES.contains(name) { "BETA" } else { "ALPHA" };
            self.feature_enabled.with_label_values(&[name, stage]).set(i64::from(*enabled));
        }
    }

    /// Copies `figures` into their gauges. Called before [`render`](Self::render).
    pub fn refresh(&self, figures: &Figures) {
        self.current_revision.set(figures.revision);
        self.compact_revision.set(figures.compact_revision);
        self.quota_bytes.set(figures.quota_bytes);
        let counts = [
            (&self.keys, figures.keys),
            (&self.db_size_bytes, figures.db_size_bytes),
            (&self.db_in_use_bytes, figures.db_in_use_bytes),
            (&self.open_reads, figures.open_reads),
            (&self.has_leader, u64::from(figures.has_leader)),
            (&self.is_leader, u64::from(figures.is_leader)),
            (&self.is_learner, u64::from(figures.is_learner)),
            (&self.raft_term, figures.term),
            (&self.proposals_committed, figures.committed_index),
            (&self.proposals_applied, figures.applied_index),
            (&self.proposals_pending, figures.proposals_pending),
            (&self.watchers, figures.watchers),
            (&self.watch_streams, figures.watch_streams),
            (&self.slow_watchers, figures.slow_watchers),
            (&self.pending_events, figures.pending_events),
            (&self.lease_count, figures.leases),
            (&self.auth_revision, figures.auth_revision),
        ];
        for (gauge, count) in counts {
            gauge.set(signed(count));
        }
        self.events_total.inc_by(figures.events_sent.saturating_sub(self.events_total.get()));
        self.refresh_cluster_version(figures.cluster_version.as_deref());
        self.refresh_members(figures);
        for shard in &figures.shards {
            self.refresh_shard(shard);
        }
        for class in &figures.classes {
            self.refresh_class(class);
        }
    }

    /// The families in Prometheus' text format 0.0.4. Reads `/proc`: for a thread that may wait.
    pub fn render(&self) -> String {
        self.scrapes_inflight.inc();
        self.process.refresh();
        let mut page = Vec::new();
        let written = TextEncoder::new().encode(&self.registry.gather(), &mut page);
        self.scrapes_inflight.dec();
        let code = if written.is_ok() { "200" } else { "500" };
        self.scrapes_total.with_label_values(&[code]).inc();
        String::from_utf8_lossy(&page).into_owned()
    }

    /// How many descriptors this process may have open, now.
    pub fn descriptor_limit(&self) -> u64 {
        process::descriptor_limit()
    }

    /// As etcd: a version that was left stays on the page, at zero.
    fn refresh_cluster_version(&self, version: Option<&str>) {
        let Some(version) = version else { return };
        for family in prometheus::core::Collector::collect(&self.cluster_version) {
            for label in family.get_metric().iter().flat_map(|series| series.get_label()) {
                self.cluster_version.with_label_values(&[label.value()]).set(0);
            }
        }
        self.cluster_version.with_label_values(&[version]).set(1);
    }

    /// As in etcd every member of the cluster is counted, this one too, and one that left is at zero.
    fn refresh_members(&self, figures: &Figures) {
        let local = format!("{:x}", figures.member_id);
        for family in prometheus::core::Collector::collect(&self.known_peers) {
            let labels = family.get_metric().iter().flat_map(|series| series.get_label());
            for label in labels.filter(|label| label.name() == "Remote") {
                self.known_peers.with_label_values(&[&local, label.value()]).set(0);
            }
        }
        for member in &figures.members {
            self.known_peers.with_label_values(&[&local, &format!("{member:x}")]).set(1);
        }
        self.member_lag_entries.reset();
        for (member, lag) in &figures.lags {
            self.member_lag_entries.with_label_values(&[&format!("{member:x}")]).set(signed(*lag));
        }
    }

    fn refresh_class(&self, class: &ClassFigures) {
        let counts = [
            (&self.admission_waiting_requests, class.waiting_requests),
            (&self.admission_waiting_bytes, class.waiting_bytes),
            (&self.admission_refused_total, class.refused),
        ];
        for (family, count) in counts {
            family.with_label_values(&[&class.name]).set(signed(count));
        }
    }

    fn refresh_shard(&self, shard: &ShardFigures) {
        let counts = [
            (&self.shard_keys, shard.keys),
            (&self.shard_delta_bytes, shard.delta_bytes),
            (&self.shard_db_in_use_bytes, shard.db_in_use_bytes),
        ];
        for (family, count) in counts {
            family.with_label_values(&[&shard.name]).set(signed(count));
        }
    }
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
