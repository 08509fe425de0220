//! Figures of the room.

use std::time::Duration;

/// Shortest interval of periodic progress (etcd-contract 30).
pub(super) const PROGRESS_INTERVAL_MIN: Duration = Duration::from_millis(100);

/// Who answers, and the limits of what it holds.
#[derive(Clone, Debug)]
pub struct WatchConfig {
    /// The cluster, for headers.
    pub cluster_id: u64,
    /// This member, for headers.
    pub member_id: u64,
    /// Its term at the start, for headers; [`super::Input::Term`] changes it.
    pub raft_term: u64,
    /// How often a watcher that asked for it hears of progress; raised to 100 ms, plus up to a tenth of jitter drawn
    /// per stream (`--watch-progress-notify-interval`).
    pub progress_notify_interval: Duration,
    /// A response grows to about this size: more revisions go into the next one, and a revision that is larger alone
    /// is cut for those who asked for fragments (`--max-request-bytes` and 512 KiB, etcd-contract 31).
    pub fragment_bytes: usize,
    /// Recent events kept in memory, over all hubs.
    pub ring_bytes: usize,
    /// Sent and not yet drained bytes beyond which a stream is told no more events until half of them drained.
    pub stream_queue_bytes_max: usize,
    /// The same over all streams: beyond it those that hold more than an equal share are told no more events until they
    /// drain. What many streams are told is counted for each, though memory holds it once.
    pub queue_bytes_max: usize,
    /// Memory of all watchers: keys and what is kept of each. Beyond it no further watch is created.
    pub watcher_bytes_max: usize,
    /// Revisions that one step of catching up covers (etcd `watchBatchMaxRevs`: 1000). At least 1.
    pub scan_revisions_max: usize,
    /// Seed of all that is random here.
    pub seed: u64,
}
