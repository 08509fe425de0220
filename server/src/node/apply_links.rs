//! Whom the apply thread tells, and by what figures it works.

use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use basalt_storage::mvcc::view::View;

use super::apply_thread::ApplyInput;
use super::checkpoint_thread::CheckpointWork;
use super::compaction_hashes::CompactionHashes;
use super::handle::Gauges;
use super::node_thread::NodeInput;
use super::pace::Pace;
use super::readers::Readers;
use super::waiters::Waiters;
use crate::admission::Gate;
use crate::apply::downgrade::Downgrade;
use crate::apply::members::Members;
use crate::auth::Auth;
use crate::lease::LeaseClock;
use crate::metrics::Metrics;
use crate::watch;

/// Where apply's results go.
pub struct ApplyLinks {
    /// This member, for alarms.
    pub member_id: u64,
    /// The node thread.
    pub node: Sender<NodeInput>,
    /// Back here, for what is read ahead.
    pub inbox: Sender<ApplyInput>,
    /// Bounds of what may be proposed, in which the deltas count.
    pub gate: Arc<Gate>,
    /// The checkpoint thread.
    pub checkpoint: Sender<CheckpointWork>,
    /// How fast it goes.
    pub checkpoint_pace: Arc<Pace>,
    /// The watch thread.
    pub watches: Sender<watch::Input>,
    /// The newest View.
    pub view: Arc<ArcSwap<View>>,
    /// Who belongs to the cluster.
    pub members: Arc<ArcSwap<Members>>,
    /// The release that the cluster says it is of.
    pub downgrade: Arc<ArcSwap<Downgrade>>,
    /// Callers.
    pub waiters: Arc<Waiters>,
    /// Lease ends.
    pub leases: Arc<Mutex<LeaseClock>>,
    /// Figures.
    pub gauges: Arc<Gauges>,
    /// Page reads that apply waits for.
    pub readers: Readers,
    /// Hashes that compactions leave.
    pub hashes: CompactionHashes,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// The beginning of the node's clock.
    pub started: Instant,
    /// Where the log ended then: what is applied up to here is of a former life.
    pub former_life: u64,
    /// Bytes in the deltas at which a checkpoint starts.
    pub checkpoint_bytes: usize,
    /// Users, roles and tokens, as other threads see them.
    pub auth: Arc<Auth>,
    /// Pause between two steps of a compaction (`--compaction-sleep-interval`).
    pub sweep_pause: Duration,
    /// Revisions dropped in one step, or keys visited if these are more, about (`--compaction-batch-limit`).
    pub sweep_batch: usize,
    /// Time between two comparisons of members (`--corrupt-check-time`).
    pub hash_mark_interval: Duration,
    /// An entry that takes longer is logged (`--warning-apply-duration`).
    pub slow_apply: Duration,
}
