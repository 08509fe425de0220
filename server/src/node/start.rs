//! Starting a node: the data directory, the log, the machine, then the threads.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use basalt_storage::checkpoint::Salt;
use basalt_storage::checkpoint::manifest::Manifest;
use basalt_storage::checkpoint::recovery::{self, Birth, Opened};
use basalt_storage::disk::{DirectoryLock, Disk};
use basalt_storage::hashes::HashKvCache;
use basalt_storage::mvcc::shard_map::ShardMap;
use basalt_storage::pages::PageCache;
use basalt_storage::wal::{LogOptions, Recovered};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::sync::Semaphore;
use tracing::{info, warn};

use super::answer_budget::AnswerBudget;
use super::apply_thread::{ApplyInput, ApplyLinks, ApplyThread};
use super::checkpoint_thread::CheckpointLinks;
use super::compaction_hashes::CompactionHashes;
use super::core::{Core, CoreConfig};
use super::data_dir::{open_data_dir, open_directory, refuse_etcd_log};
pub use super::first_start::{First, FirstStart};
use super::force_new_cluster::{Survivor, force_new_cluster};
use super::handle::{Gauges, Identity, Limits, NodeHandle};
use super::node_thread::{NodeInput, NodeLinks, Outgoing};
pub use super::open_log::{log_store, open_log};
use super::pace::Pace;
use super::read_queue::ReadQueue;
use super::readers::{ReadPools, Readers};
pub use super::start_error::StartError;
use super::waiters::Waiters;
use super::watch_thread::{StreamSinks, WatchLinks};
use super::{checkpoint_thread, log_thread, node_thread, watch_thread};
use crate::admission::Gate;
use crate::apply::auth::state::AuthState;
use crate::apply::downgrade::Downgrade;
use crate::apply::machine::{APPLY_VERSION, Machine};
use crate::apply::members::Members;
use crate::auth::{Auth, TokenKind};
use crate::lease::{LeaseClock, LeaseClockConfig};
use crate::memory::MemoryShares;
use crate::metrics::Metrics;
use crate::transfer::MemberSnapshot;
use crate::watch::{WatchConfig, Watches};

/// Snapshots streamed at the same time (DESIGN 3.6).
const SNAPSHOTS_MAX: usize = 2;
/// Hashes of the whole store computed for clients at the same time.
const HASHES_MAX: usize = 2;
/// How long a list may wait for the memory that others' answers take.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(10);
/// Bytes that may wait for one watch stream before it falls behind; above the largest single response of etcd's default
/// limits, so that one large revision does not stop a stream.
pub const WATCH_STREAM_BYTES: usize = 4 << 20;
/// Revisions of one step of catching up (etcd `watchBatchMaxRevs`).
const WATCH_SCAN_REVISIONS: usize = 1000;

/// How a node is to run.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The data directory.
    pub data_dir: PathBuf,
    /// The log's directory, if it lies elsewhere.
    pub wal_dir: Option<PathBuf>,
    /// Who this node is if the directory is new; an existing one knows.
    pub first: First,
    /// How keys are split if the directory is new; an existing one knows. `None` for the default.
    pub shard_map: Option<ShardMap>,
    /// Time between heartbeats.
    pub heartbeat_interval: Duration,
    /// Time without a leader until an election.
    pub election_timeout: Duration,
    /// Pause between two steps of a compaction.
    pub sweep_pause: Duration,
    /// Revisions dropped in one step of a compaction, or keys visited if these are more, about.
    pub sweep_batch: usize,
    /// Time between two comparisons of the members' data.
    pub hash_mark_interval: Duration,
    /// An entry that takes longer to apply is logged.
    pub slow_apply: Duration,
    /// Who may take how much memory.
    pub memory: MemoryShares,
    /// Caps of the API.
    pub limits: Limits,
    /// Period of watch progress (etcd-contract 30).
    pub progress_notify_interval: Duration,
    /// Whether votes are asked for before an election.
    pub pre_vote: bool,
    /// Where the others reach this member: for a directory that does not know.
    pub peer_urls: Vec<String>,
    /// Entries that stay in memory for members that lag behind.
    pub catchup_entries: u64,
    /// Whether all other members are removed, for they are lost (`--force-new-cluster`).
    pub force_new_cluster: bool,
    /// What users get when they show their passwords (`--auth-token`).
    pub tokens: TokenKind,
}

/// Makes the way to other members of those that the node tells from; by default there is none.
pub type Connect<'a> = &'a dyn Fn(Inbound) -> Arc<dyn Outgoing>;

/// What other members need of a node.
pub struct Inbound {
    /// Takes what they say.
    pub node: Sender<NodeInput>,
    /// Who this is.
    pub identity: Identity,
    /// Of this data directory.
    pub incarnation: u128,
    /// Who belongs to the cluster.
    pub members: Arc<ArcSwap<Members>>,
    /// The data directory, and the last manifest in it: a state that arrives is written beside what that names.
    pub disk: Arc<dyn Disk>,
    /// See [`Self::disk`].
    pub manifest: Arc<ArcSwap<Manifest>>,
    /// Page reads for states that leave.
    pub readers: Readers,
}

/// For a node without others.
struct Nobody;

impl Outgoing for Nobody {
    fn send(&self, messages: Vec<raft::prelude::Message>) {
        drop(messages);
    }

    fn send_snapshot(&self, message: raft::prelude::Message, snapshot: Arc<MemberSnapshot>) {
        drop((message, snapshot));
    }

    fn refuse(&self, _from: u64, _cause: &super::core::BadMessage) {}
}

/// A way to nobody: for a cluster of one.
pub fn alone(_inbound: Inbound) -> Arc<dyn Outgoing> {
    Arc::new(Nobody)
}

/// A running node.
pub struct Running {
    /// For the API.
    pub handle: Arc<NodeHandle>,
    /// Where watch messages go.
    pub sinks: StreamSinks,
    /// See [`Core::complete_at`].
    complete_at: u64,
    node: Sender<NodeInput>,
    apply: Sender<ApplyInput>,
    watch_stopping: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    _lock: DirectoryLock,
}

/// Opens or makes the data directory and starts all threads.
///
/// # Errors
/// [`StartError`]; nothing was lost.
pub fn start(config: &NodeConfig, metrics: &Arc<Metrics>, connect: Connect<'_>) -> Result<Running, StartError> {
    let mut seeds = StdRng::from_os_rng();
    let shard_map = config.shard_map.clone().unwrap_or_default();
    let (disk, lock) = open_data_dir(&config.data_dir, config.wal_dir.as_deref(), &shard_map, &mut seeds)?;
    let log_disk = match &config.wal_dir {
        Some(directory) => open_directory(directory)?,
        None => disk.clone(),
    };
    let cache = Arc::new(PageCache::new(config.memory.page_cache));
    let opened = open_store((&disk, &log_disk), &cache, config, &mut seeds)?;
    let recovered = open_log(&*log_disk, &opened, LogOptions::default(), seeds.random())?;
    spawn(config, metrics, connect, (&disk, &log_disk), cache, opened, recovered, lock, &mut seeds)
}

fn open_store(
    (disk, log_disk): (&Arc<dyn Disk>, &Arc<dyn Disk>),
    cache: &Arc<PageCache>,
    config: &NodeConfig,
    seeds: &mut StdRng,
) -> Result<Opened, StartError> {
    if let Some(opened) = recovery::open(&**disk, cache, Salt::new(seeds.random()))? {
        let shards = opened.store.shard_map();
        if let Some(ignored) = config.shard_map.as_ref().filter(|asked| *asked != shards) {
            warn!(%shards, %ignored, "the data directory was born with other shards; basalt-initial-shards is ignored");
        }
        return Ok(opened);
    }
    recovery::check_nothing_remains(&**log_disk)?;
    if let Some(directory) = &config.wal_dir {
        refuse_etcd_log(&**log_disk, directory)?;
    }
    let FirstStart { identity, members, shard_map, begins_after } =
        (config.first.0)().map_err(StartError::Bootstrap)?;
    let chosen = config.shard_map.as_ref();
    if let Some(shards) = shard_map.as_ref().filter(|shards| chosen.is_some_and(|chosen| chosen != *shards)) {
        warn!(%shards, "the cluster was born with other shards; basalt-initial-shards is ignored");
    }
    let birth = Birth {
        cluster_id: identity.cluster_id,
        member_id: identity.member_id,
        incarnation: seeds.random(),
        conf_state: members.encode().to_vec(),
        shard_map: shard_map.or_else(|| config.shard_map.clone()).unwrap_or_default(),
    };
    info!(
        cluster_id = format_args!("{:x}", birth.cluster_id),
        member_id = format_args!("{:x}", birth.member_id),
        shards = %birth.shard_map,
        "new data directory"
    );
    Ok(recovery::create_after(&**disk, cache, Salt::new(seeds.random()), birth, begins_after)?)
}

#[allow(clippy::too_many_arguments)] // the parts of a node, each used once
fn spawn(
    config: &NodeConfig,
    metrics: &Arc<Metrics>,
    connect: Connect<'_>,
    (disk, log_disk): (&Arc<dyn Disk>, &Arc<dyn Disk>),
    cache: Arc<PageCache>,
    opened: Opened,
    mut recovered: Recovered,
    lock: DirectoryLock,
    seeds: &mut StdRng,
) -> Result<Running, StartError> {
    let started = Instant::now();
    let Opened { mut store, mut checkpointer, .. } = opened;
    // The manifest found may be in the page cache only: it is written again before anybody hears of us (DESIGN 3.2).
    recovery::settle(&**disk, &mut checkpointer)?;
    let manifest = checkpointer.manifest().clone();
    let identity = Identity { cluster_id: manifest.cluster_id, member_id: manifest.member_id };
    let applied = store.applied.index;
    info!(applied, revision = store.revision(), entries = recovered.entries.len(), "recovered the data directory");

    let mut members = Members::decode(&store.conf_state)?;
    if members.apply_version() > APPLY_VERSION {
        return Err(StartError::NewerRules { found: members.apply_version(), known: APPLY_VERSION });
    }
    metrics.apply_version.set(members.apply_version().into());
    let auth = Arc::new(Auth::new(Arc::new(AuthState::load(&store.system)?), config.tokens.clone().into()));
    let downgrade = Arc::new(ArcSwap::from_pointee(Downgrade::load(&store.system)?));
    members.fill_peer_urls(identity.member_id, &config.peer_urls);
    store.conf_state = members.encode();
    if config.force_new_cluster {
        let (member_id, generation) = (identity.member_id, manifest.generation);
        let survivor = Survivor { member_id, members: &members, applied, generation };
        let removed = force_new_cluster(&**log_disk, survivor, &mut recovered)?;
        let removed = removed.iter().map(|id| format!("{id:x}")).collect::<Vec<_>>().join(",");
        warn!(
            removed,
            "--force-new-cluster: this member is a cluster of its own from now on; take the flag away before members are added"
        );
    }
    let raft_store = log_store(&recovered, members.conf_state(), applied);
    let core_config = CoreConfig {
        member_id: identity.member_id,
        heartbeat_interval: config.heartbeat_interval,
        election_timeout: config.election_timeout,
        applied,
        pre_vote: config.pre_vote,
        shards: store.shard_map().shards().len(),
        catchup_entries: config.catchup_entries,
        apply_version: members.apply_version(),
        seed: seeds.random(),
    };
    let core = Core::new(&core_config, raft_store, &slog::Logger::root(slog::Discard, slog::o!()))?;
    let complete_at = core.complete_at();

    let (node, node_inbox) = channel();
    let (apply, apply_inbox) = channel();
    let (log, log_inbox) = channel();
    let (checkpoint, checkpoint_inbox) = channel();
    let (watches, watch_inbox) = channel();
    let gauges = Arc::new(Gauges::default());
    gauges.term.store(recovered.hard_state.term, Ordering::Relaxed);
    gauges.applied_index.store(applied, Ordering::Relaxed);
    gauges.single_voter.store(core.is_single_voter(), Ordering::Relaxed);
    if members.is_removed(identity.member_id) {
        warn!("this member was removed from the cluster: it stops when another one confirms that");
    }
    let (expelled, is_expelled) = tokio::sync::watch::channel(None);
    let members = Arc::new(ArcSwap::from_pointee(members));
    let (readers, mut threads) = ReadPools::start(disk).map_err(StartError::Thread)?;
    let named = Arc::new(ArcSwap::from_pointee(manifest.clone()));
    let peers = connect(Inbound {
        node: node.clone(),
        identity: identity.clone(),
        incarnation: manifest.incarnation,
        members: members.clone(),
        disk: disk.clone(),
        manifest: named.clone(),
        readers: readers.walk.clone(),
    });
    let leases = Arc::new(Mutex::new(LeaseClock::new(LeaseClockConfig::default())));
    let waiters = Arc::new(Waiters::default());
    let gate = Arc::new(Gate::new(store.shard_map().shards().len(), config.memory.delta as u64));
    let generation = Arc::new(AtomicU64::new(manifest.generation));
    let view = Arc::new(ArcSwap::from_pointee(store.head()));
    let sinks = StreamSinks::default();
    let watch_stopping = Arc::new(AtomicBool::new(false));

    let watch_config = WatchConfig {
        cluster_id: identity.cluster_id,
        member_id: identity.member_id,
        raft_term: recovered.hard_state.term,
        progress_notify_interval: config.progress_notify_interval,
        fragment_bytes: config.limits.request_bytes_max + (512 << 10),
        ring_bytes: config.memory.watch_ring,
        stream_queue_bytes_max: WATCH_STREAM_BYTES,
        queue_bytes_max: config.memory.watch_queues,
        watcher_bytes_max: config.memory.watchers,
        scan_revisions_max: WATCH_SCAN_REVISIONS,
        seed: seeds.random(),
    };
    let watch_room = Watches::new(watch_config, store.shard_map().clone(), store.revision(), store.compact_revision());
    let watch_links = WatchLinks {
        inbox: watches.clone(),
        view: view.clone(),
        readers: readers.watch.clone(),
        gauges: gauges.clone(),
        metrics: metrics.clone(),
        sinks: sinks.clone(),
        started,
    };
    let hash_cache = Arc::new(Mutex::new(HashKvCache::new()));
    let checkpoint_pace = Arc::new(Pace::default());
    let apply_links = ApplyLinks {
        member_id: identity.member_id,
        node: node.clone(),
        inbox: apply.clone(),
        gate: gate.clone(),
        checkpoint,
        checkpoint_pace: checkpoint_pace.clone(),
        watches: watches.clone(),
        view: view.clone(),
        members: members.clone(),
        downgrade: downgrade.clone(),
        waiters: waiters.clone(),
        leases: leases.clone(),
        gauges: gauges.clone(),
        readers: readers.apply.clone(),
        hashes: CompactionHashes::new(readers.compaction.clone(), hash_cache.clone()),
        metrics: metrics.clone(),
        started,
        former_life: recovered.entries.last().map_or(recovered.previous_index, |entry| entry.index),
        checkpoint_bytes: config.memory.checkpoint_bytes(),
        sweep_pause: config.sweep_pause,
        sweep_batch: config.sweep_batch,
        auth: auth.clone(),
        hash_mark_interval: config.hash_mark_interval,
        slow_apply: config.slow_apply,
    };
    let log_outbox = log.clone();
    let reads = Arc::<ReadQueue>::default();
    let node_links = NodeLinks {
        log,
        apply: apply.clone(),
        node: node.clone(),
        peers,
        leases: leases.clone(),
        waiters: waiters.clone(),
        reads: reads.clone(),
        gate: gate.clone(),
        shards: store.head().shard_map,
        gauges: gauges.clone(),
        watches: watches.clone(),
        metrics: metrics.clone(),
        cluster_id: identity.cluster_id,
        expelled,
        started,
        tick: config.heartbeat_interval,
        lease_extension: config.election_timeout,
    };
    let (file_bytes, live_bytes) = (checkpointer.file_bytes(), checkpointer.live_bytes());
    let machine = Machine::new(store);
    let apply_thread = ApplyThread::new(machine, apply_links, file_bytes, live_bytes, checkpointer.is_tidy(false));

    let mut spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
        let thread = std::thread::Builder::new().name(format!("basalt-{name}")).spawn(work);
        thread.map(|thread| threads.push(thread)).map_err(StartError::Thread)
    };
    spawn("apply", Box::new(move || apply_thread.run(&apply_inbox)))?;
    spawn("checkpoint", {
        let (apply, generation, metrics) = (apply.clone(), generation.clone(), metrics.clone());
        let links = CheckpointLinks { apply, pace: checkpoint_pace, generation, manifest: named, cache, metrics };
        let disk = disk.clone();
        Box::new(move || checkpoint_thread::serve(checkpointer, &disk, &checkpoint_inbox, &links))
    })?;
    spawn("log", {
        let (disk, node, metrics) = (log_disk.clone(), node.clone(), metrics.clone());
        Box::new(move || {
            log_thread::serve(recovered.log, &disk, (&log_outbox, &log_inbox), &node, &generation, &metrics)
        })
    })?;
    spawn("watch", {
        let stopping = watch_stopping.clone();
        Box::new(move || watch_thread::serve(watch_room, &watch_links, &watch_inbox, &stopping))
    })?;
    spawn("node", Box::new(move || node_thread::serve(core, &node_links, &node_inbox)))?;

    let handle = NodeHandle {
        inbox: node.clone(),
        apply: apply.clone(),
        waiters,
        reads,
        gate,
        // Request ids differ between lives of a process, so that a replayed entry answers nobody.
        next_id: AtomicU64::new(super::handle::unix_time_ns().unsigned_abs().max(1)),
        view,
        readers,
        started,
        hash_cache,
        snapshots: Arc::new(Semaphore::new(SNAPSHOTS_MAX)),
        hashes: Arc::new(Semaphore::new(HASHES_MAX)),
        answers: AnswerBudget::new(config.memory.answers, ANSWER_WAIT_MAX),
        identity,
        gauges,
        limits: config.limits,
        members,
        downgrade,
        incarnation: manifest.incarnation,
        expelled: is_expelled,
        leases,
        auth,
        watches,
    };
    Ok(Running { handle: Arc::new(handle), sinks, complete_at, node, apply, watch_stopping, threads, _lock: lock })
}

impl Running {
    /// Waits until the node may serve. The only voter must lead and have applied all that its log held, also what it did
    /// not know as committed: any of it may have been acknowledged. One of many must know a leader and have applied what
    /// its log knew as committed; but if that takes longer than `leader_wait` it serves all the same, as etcd does: whatever
    /// needs a leader waits for one.
    ///
    /// # Errors
    /// [`StartError::NotReady`] when that takes longer than `timeout`.
    pub fn wait_ready(&self, timeout: Duration, leader_wait: Duration) -> Result<(), StartError> {
        let started = Instant::now();
        let gauges = &self.handle.gauges;
        loop {
            let applied = gauges.applied_index.load(Ordering::Relaxed);
            let alone = gauges.single_voter.load(Ordering::Relaxed);
            let needed = if alone { self.complete_at } else { gauges.committed_index.load(Ordering::Relaxed) };
            let led = if alone { gauges.leads.load(Ordering::Relaxed) } else { self.handle.leader().is_some() };
            if led && applied >= needed {
                return Ok(());
            }
            if !alone && started.elapsed() > leader_wait {
                if led {
                    warn!(applied, committed = needed, "this member is behind: it serves while it catches up");
                } else {
                    warn!("no leader is known yet: the other members may not run; this one serves what needs none");
                }
                return Ok(());
            }
            if started.elapsed() > timeout {
                return Err(StartError::NotReady { waited: timeout });
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Stops all threads; apply writes a last checkpoint.
    pub fn stop(self) {
        let Running { handle, node, apply, watch_stopping, threads, .. } = self;
        // Whoever is gone already needs no telling.
        drop(apply.send(ApplyInput::Stop));
        watch_stopping.store(true, Ordering::Relaxed);
        let (apply_thread, others): (Vec<_>, Vec<_>) =
            threads.into_iter().partition(|thread| thread.thread().name() == Some("basalt-apply"));
        apply_thread.into_iter().for_each(|thread| drop(thread.join()));
        drop(node.send(NodeInput::Stop));
        drop((handle, node, apply));
        for thread in others {
            let name = thread.thread().name().map(str::to_owned).unwrap_or_default();
            // Read threads end with the last handle, which a client's call may still hold: they hold nothing durable.
            if !name.starts_with("basalt-read") {
                drop(thread.join());
            }
        }
    }
}

#[cfg(test)]
#[path = "start_tests.rs"]
pub(crate) mod tests;
