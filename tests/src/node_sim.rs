//! A whole node on one thread: what the server's threads do, cut into pieces of one step or one request to the disk,
//! in an order that a seed draws.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use basalt_proto::etcdserverpb::{LeaseCheckpoint, LeaseCheckpointRequest, LeaseRevokeRequest};
use basalt_proto::log::request::Kind;
use basalt_proto::log::{LogEntry, Request};
use basalt_server::apply::answer::{Answer, Refusal};
use basalt_server::apply::effects::{Effect, Effects};
use basalt_server::apply::machine::Machine;
use basalt_server::apply::values::{Prefetched, Values};
use basalt_server::lease::{LeaseClock, LeaseClockConfig};
use basalt_server::node::core::{Append, Committed, Core, CoreConfig, Input, Output};
use basalt_storage::checkpoint::{Checkpoint, CheckpointError, CheckpointJob, Checkpointer, RUNS_DIRECTORY};
use basalt_storage::disk::{Disk, PowerCut, SimulatedDisk};
use basalt_storage::job::{BUDGET_UNLIMITED, Job, run};
use basalt_storage::mvcc::fetch::Fetch;
use basalt_storage::mvcc::range::Hit;
use basalt_storage::mvcc::view::{LogPosition, View};
use basalt_storage::runs::run_name;
use basalt_storage::wal::{BatchDurable, Log, LogJob, Prepared, Recycled, WalError};
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::background::{Background, Ended, PowerLost, power_lost};
use crate::opening::{self, MEMBER_ID, Parts};

const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(100);
const ELECTION_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the virtual clock moves in one turn, at most.
const TURN: Duration = Duration::from_millis(4);
/// Shortest lease of a simulated node, seconds.
pub const LEASE_TTL_MIN: i64 = 1;
/// 2020-09-13, when the virtual clock stands at 0.
const EPOCH_NS: i64 = 1_600_000_000_000_000_000;
/// Turns after which a node that should have come to rest is called stuck.
const TURNS_TO_REST: usize = 200_000;

/// What one applied entry came to.
#[derive(Debug)]
pub struct Outcome {
    /// Where it stands.
    pub position: LogPosition,
    /// Its requests; `None` for one without any.
    pub entry: Option<LogEntry>,
    /// By request.
    pub answers: Vec<(u64, Result<Answer, Refusal>)>,
    /// What changed.
    pub effects: Effects,
}

/// How often work was seen beside other work.
#[derive(Clone, Copy, Debug, Default)]
pub struct Overlaps {
    /// Entries applied between two steps of a checkpoint.
    pub applied_in_checkpoint: usize,
    /// Entries applied while a sync of a checkpoint had not returned.
    pub applied_in_checkpoint_sync: usize,
    /// Entries applied while a sync of the log had not returned.
    pub applied_in_log_sync: usize,
    /// Entries applied between two steps of a compaction.
    pub applied_in_sweep: usize,
    /// Steps of a compaction between two steps of a checkpoint.
    pub swept_in_checkpoint: usize,
    /// Checkpoints that ended.
    pub checkpoints: usize,
    /// Checkpoints that were refused because the disk was full.
    pub refusals: usize,
    /// Log segments that were not prepared because the disk was full.
    pub unprepared: usize,
    /// Log segments that ended and were given up.
    pub recycles: usize,
}

enum ApplyInput {
    Committed(Committed),
    Role { leads: bool },
}

/// What can advance.
#[derive(Clone, Copy, Debug)]
enum Turn {
    Node,
    Tick,
    Propose,
    Log,
    Prepare,
    Recycle,
    Apply,
    Sweep,
    Checkpoint,
}

/// The node. Everything in it but the disk is lost in a crash.
pub struct SimulatedNode {
    disk: SimulatedDisk,
    random: StdRng,
    now: Duration,
    next_tick: Duration,
    checkpoint_interval: Duration,
    checkpoint_due: Duration,
    core: Core,
    machine: Machine,
    leases: LeaseClock,
    log: Log,
    /// Away while a checkpoint runs.
    checkpointer: Option<Checkpointer>,
    conf_state: Vec<u8>,
    generation: u64,
    dirty: bool,
    proposals: VecDeque<Request>,
    node_inbox: VecDeque<Input>,
    log_inbox: VecDeque<Append>,
    apply_inbox: VecDeque<ApplyInput>,
    released: u64,
    appending: Option<(u64, Background<LogJob<BatchDurable>>)>,
    preparing: Option<Background<LogJob<Prepared>>>,
    is_prepared: bool,
    recycling: Option<Background<LogJob<Recycled>>>,
    checkpoint: Option<(u64, Background<CheckpointJob>)>,
    outcomes: Vec<Outcome>,
    /// What ran beside what.
    pub overlaps: Overlaps,
}

impl SimulatedNode {
    /// Opens or makes the node on `disk`; `checkpoint_interval` is virtual time.
    ///
    /// # Errors
    /// [`PowerLost`] when the disk is stopped on the way.
    pub fn open(disk: SimulatedDisk, seed: u64, checkpoint_interval: Duration) -> Result<Self, PowerLost> {
        let mut random = StdRng::seed_from_u64(seed);
        let Parts { store, checkpointer, log, log_store } = opening::open(&disk, &mut random)?;
        let config = CoreConfig {
            member_id: MEMBER_ID,
            heartbeat_interval: HEARTBEAT_INTERVAL,
            election_timeout: ELECTION_TIMEOUT,
            applied: store.applied.index,
            pre_vote: true,
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let core = Core::new(&config, log_store, &logger).expect("raft accepts a recovered log");
        let manifest = checkpointer.manifest();
        let (conf_state, generation) = (manifest.conf_state.clone(), manifest.generation);
        let mut node = Self {
            disk,
            random,
            now: Duration::ZERO,
            next_tick: HEARTBEAT_INTERVAL,
            checkpoint_interval,
            checkpoint_due: checkpoint_interval,
            core,
            machine: Machine::new(store, LEASE_TTL_MIN),
            leases: LeaseClock::new(LeaseClockConfig::default()),
            log,
            checkpointer: Some(checkpointer),
            conf_state,
            generation,
            dirty: false,
            proposals: VecDeque::new(),
            node_inbox: VecDeque::new(),
            log_inbox: VecDeque::new(),
            apply_inbox: VecDeque::new(),
            released: 0,
            appending: None,
            preparing: None,
            is_prepared: false,
            recycling: None,
            checkpoint: None,
            outcomes: Vec::new(),
            overlaps: Overlaps::default(),
        };
        let mut outputs = Vec::new();
        node.core.start(&mut outputs).expect("raft starts");
        node.carry(outputs);
        Ok(node)
    }

    /// The power goes now: the disk as the next life finds it.
    pub fn crash(self, power_cut: PowerCut) -> SimulatedDisk {
        self.disk.crash(power_cut)
    }

    /// The process dies, and the operating system lives on: the disk as the next life finds it.
    pub fn restart(self) -> SimulatedDisk {
        self.disk.restart()
    }

    /// A request arrives.
    pub fn propose(&mut self, request: Request) {
        self.proposals.push_back(request);
    }

    /// The state machine.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// The disk.
    pub fn disk(&self) -> &SimulatedDisk {
        &self.disk
    }

    /// Run files that the last manifest names, by name; `None` while a checkpoint runs.
    pub fn named_runs(&self) -> Option<Vec<String>> {
        let manifest = self.checkpointer.as_ref()?.manifest();
        let mut names: Vec<_> = manifest.runs().map(|run| run_name(RUNS_DIRECTORY, run.number)).collect();
        names.sort_unstable();
        Some(names)
    }

    /// The newest View.
    pub fn view(&self) -> Arc<View> {
        Arc::new(self.machine.store().head())
    }

    /// What was applied since the last call: answers leave here, and not before.
    pub fn take_outcomes(&mut self) -> Vec<Outcome> {
        std::mem::take(&mut self.outcomes)
    }

    /// Runs a reading job to its end.
    ///
    /// # Panics
    /// When it fails.
    pub fn read<J: Job>(&self, mut job: J) -> J::Output
    where
        J::Error: std::fmt::Debug,
    {
        run(&mut job, &self.disk, 1).expect("reads of a healthy disk succeed")
    }

    /// Whether requests, appends or entries are on their way; ticks and background work do not count.
    pub fn is_busy(&self) -> bool {
        let queued = self.proposals.len() + self.node_inbox.len() + self.log_inbox.len() + self.apply_inbox.len();
        queued + self.core.queued() > 0 || self.appending.is_some()
    }

    /// Goes on until no request is on its way.
    ///
    /// # Errors
    /// [`PowerLost`] when the disk is stopped on the way.
    ///
    /// # Panics
    /// When that never comes.
    pub fn rest(&mut self) -> Result<(), PowerLost> {
        for _ in 0..TURNS_TO_REST {
            if !self.is_busy() && self.core.leads() {
                return Ok(());
            }
            self.turn()?;
        }
        panic!("the node does not come to rest");
    }

    /// Something that can advance does so by one step or one request to the disk.
    ///
    /// # Errors
    /// [`PowerLost`] when the disk is stopped; the node is over.
    pub fn turn(&mut self) -> Result<(), PowerLost> {
        self.now += TURN.mul_f64(self.random.random());
        let runnable = self.runnable();
        if runnable.is_empty() {
            // Nothing but time can bring anything.
            self.now = self.next_tick;
            return Ok(());
        }
        match runnable[self.random.random_range(0..runnable.len())] {
            Turn::Node => {
                let input = self.node_inbox.pop_front().expect("runnable");
                if let Input::Release(index) = input {
                    self.released = index;
                }
                self.step_core(input);
            }
            Turn::Tick => self.tick(),
            Turn::Propose => self.propose_some(),
            Turn::Log => self.advance_log()?,
            Turn::Prepare => self.advance_prepare()?,
            Turn::Recycle => self.advance_recycle()?,
            Turn::Apply => self.apply_next()?,
            Turn::Sweep => self.sweep(),
            Turn::Checkpoint => self.advance_checkpoint()?,
        }
        Ok(())
    }

    fn runnable(&self) -> Vec<Turn> {
        let checkpoint_due = self.dirty && self.now >= self.checkpoint_due;
        let candidates = [
            (Turn::Node, !self.node_inbox.is_empty()),
            (Turn::Tick, self.now >= self.next_tick),
            (Turn::Propose, !self.proposals.is_empty()),
            (Turn::Log, self.appending.is_some() || !self.log_inbox.is_empty()),
            (Turn::Prepare, self.preparing.is_some() || !self.is_prepared),
            (Turn::Recycle, self.recycling.is_some() || self.released > 0),
            (Turn::Apply, !self.apply_inbox.is_empty()),
            (Turn::Sweep, self.machine.store().is_sweeping()),
            (Turn::Checkpoint, self.checkpoint.is_some() || checkpoint_due),
        ];
        candidates.into_iter().filter_map(|(turn, ready)| ready.then_some(turn)).collect()
    }

    fn step_core(&mut self, input: Input) {
        let mut outputs = Vec::new();
        self.core.step(input, &mut outputs).expect("raft goes on");
        self.carry(outputs);
    }

    fn carry(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Append(append) => self.log_inbox.push_back(append),
                Output::Apply(committed) => self.apply_inbox.extend(committed.into_iter().map(ApplyInput::Committed)),
                Output::Role { leads, .. } => self.apply_inbox.push_back(ApplyInput::Role { leads }),
            }
        }
    }

    fn tick(&mut self) {
        self.next_tick = self.now + HEARTBEAT_INTERVAL;
        self.step_core(Input::Tick);
        let revoke = |id| Kind::LeaseRevoke(LeaseRevokeRequest { id });
        let mut kinds: Vec<_> = self.leases.expired(self.now, 8).into_iter().map(revoke).collect();
        let remainders = self.leases.checkpoints(self.now, 8).into_iter();
        let checkpoints: Vec<_> = remainders.map(|(id, remaining_ttl)| LeaseCheckpoint { id, remaining_ttl }).collect();
        if !checkpoints.is_empty() {
            kinds.push(Kind::LeaseCheckpoint(LeaseCheckpointRequest { checkpoints }));
        }
        self.proposals.extend(kinds.into_iter().map(|kind| Request { id: 0, principal: None, kind: Some(kind) }));
    }

    fn propose_some(&mut self) {
        let count = self.random.random_range(1..=self.proposals.len().min(3));
        let time_unix_ns = EPOCH_NS + i64::try_from(self.now.as_nanos()).expect("a run is short");
        let requests = self.proposals.drain(..count).collect();
        self.step_core(Input::Propose { requests, time_unix_ns });
    }

    fn advance_log(&mut self) -> Result<(), PowerLost> {
        let Some((number, job)) = &mut self.appending else {
            let append = self.log_inbox.pop_front().expect("runnable");
            let number = append.number;
            let records = opening::records(append, self.log.last_index());
            self.log.append(records, self.generation).expect("appends are small");
            let job = self.log.start_batch().expect("one append at a time");
            self.appending = Some((number, Background::new(job)));
            return Ok(());
        };
        if let Some(durable) = job.advance(&self.disk, &mut self.random)? {
            let number = *number;
            self.log.finish_batch(&durable);
            self.appending = self.log.start_batch().map(|job| (number, Background::new(job)));
            if self.appending.is_none() {
                self.is_prepared = false;
                self.node_inbox.push_back(Input::Persisted(number));
            }
        }
        Ok(())
    }

    fn advance_prepare(&mut self) -> Result<(), PowerLost> {
        let Some(job) = &mut self.preparing else {
            self.preparing = self.log.prepare().map(Background::new);
            self.is_prepared = self.preparing.is_none();
            return Ok(());
        };
        match job.try_advance(&self.disk, &mut self.random) {
            Ok(None) => return Ok(()),
            Ok(Some(prepared)) => self.log.finish_prepare(prepared),
            Err(Ended::Failed(WalError::NoSpace { .. })) => {
                let job = self.preparing.take().expect("it failed just now").into_job();
                job.give_up().into_iter().for_each(|io| drop(self.disk.perform(io)));
                self.log.give_up_prepare();
                self.overlaps.unprepared += 1;
            }
            Err(Ended::PowerLost) => return Err(PowerLost),
            Err(Ended::Failed(error)) => return Err(power_lost(&self.disk, "preparing a segment", &error)),
        }
        // One that was given up is tried again after the next batch.
        (self.preparing, self.is_prepared) = (None, true);
        Ok(())
    }

    fn advance_recycle(&mut self) -> Result<(), PowerLost> {
        let Some(job) = &mut self.recycling else {
            self.recycling = self.log.recycle_below(std::mem::take(&mut self.released)).map(Background::new);
            return Ok(());
        };
        if let Some(recycled) = job.advance(&self.disk, &mut self.random)? {
            self.log.finish_recycle(recycled);
            self.recycling = None;
            self.overlaps.recycles += 1;
        }
        Ok(())
    }

    fn apply_next(&mut self) -> Result<(), PowerLost> {
        match self.apply_inbox.pop_front().expect("runnable") {
            ApplyInput::Committed(committed) => self.apply(committed),
            ApplyInput::Role { leads: false } => {
                self.leases.demote();
                Ok(())
            }
            ApplyInput::Role { leads: true } => {
                let table = self.machine.leases().iter().map(|(id, record)| (id, record.ttl, record.remaining_ttl));
                self.leases.promote(table, self.now, ELECTION_TIMEOUT);
                Ok(())
            }
        }
    }

    fn apply(&mut self, Committed { position, entry }: Committed) -> Result<(), PowerLost> {
        let applied = match &entry {
            None => {
                self.machine.apply_empty(position);
                Default::default()
            }
            Some(entry) => {
                let mut values = self.prefetch(self.machine.needed_values(entry))?;
                self.machine.apply(position, entry, &mut values)
            }
        };
        self.dirty = true;
        self.note_overlaps();
        applied.effects.effects.iter().for_each(|effect| self.follow(effect));
        self.node_inbox.push_back(Input::Applied(position.index));
        self.outcomes.push(Outcome { position, entry, answers: applied.answers, effects: applied.effects });
        Ok(())
    }

    fn note_overlaps(&mut self) {
        let seen = &mut self.overlaps;
        let checkpoint = self.checkpoint.as_ref().map(|(_, job)| job);
        seen.applied_in_checkpoint += usize::from(checkpoint.is_some());
        seen.applied_in_checkpoint_sync += usize::from(checkpoint.is_some_and(Background::is_syncing));
        seen.applied_in_log_sync += usize::from(self.appending.as_ref().is_some_and(|(_, job)| job.is_syncing()));
        seen.applied_in_sweep += usize::from(self.machine.store().is_sweeping());
    }

    fn prefetch(&self, hits: Vec<Hit>) -> Result<PrefetchedOnly, PowerLost> {
        let values = run(&mut Fetch::new(self.view(), hits.clone()), &self.disk, BUDGET_UNLIMITED);
        let values = values.map_err(|error| power_lost(&self.disk, "fetching for apply", &error))?;
        let mut prefetched = Prefetched::default();
        hits.into_iter().zip(values).for_each(|(hit, value)| prefetched.insert(hit, value));
        Ok(PrefetchedOnly(prefetched))
    }

    fn follow(&mut self, effect: &Effect) {
        match effect {
            Effect::LeaseGranted { id, ttl } => self.leases.grant(*id, *ttl, self.now),
            Effect::LeaseRevoked { id } => self.leases.forget(*id),
            Effect::LeaseCheckpointed { id, remaining_ttl } => self.leases.checkpointed(*id, *remaining_ttl),
            Effect::Key(_) | Effect::Compaction { .. } | Effect::AlarmRaised(_) | Effect::AlarmCleared(_) => {}
        }
    }

    fn sweep(&mut self) {
        self.machine.store_mut().sweep(0);
        self.overlaps.swept_in_checkpoint += usize::from(self.checkpoint.is_some());
        self.dirty |= !self.machine.store().is_sweeping();
    }

    fn advance_checkpoint(&mut self) -> Result<(), PowerLost> {
        let Some((applied_index, job)) = &mut self.checkpoint else {
            self.dirty = false;
            let frozen = self.machine.store_mut().freeze();
            let applied_index = frozen.applied.index;
            let checkpointer = self.checkpointer.take().expect("one checkpoint at a time");
            let job = Background::new(checkpointer.begin(frozen, self.conf_state.clone()));
            self.checkpoint = Some((applied_index, job));
            return Ok(());
        };
        match job.try_advance(&self.disk, &mut self.random) {
            Ok(None) => return Ok(()),
            Ok(Some(Checkpoint { checkpointer, checkpointed, .. })) => {
                self.node_inbox.push_back(Input::Release(*applied_index));
                self.generation = checkpointer.manifest().generation;
                self.checkpointer = Some(checkpointer);
                self.machine.store_mut().checkpointed(checkpointed);
                self.overlaps.checkpoints += 1;
            }
            Err(Ended::Failed(CheckpointError::NoSpace { checkpointer, frozen, .. })) => {
                self.checkpointer = Some(*checkpointer);
                self.machine.store_mut().checkpoint_failed(*frozen);
                self.dirty = true;
                self.overlaps.refusals += 1;
            }
            Err(Ended::PowerLost) => return Err(PowerLost),
            Err(Ended::Failed(error)) => return Err(power_lost(&self.disk, "writing a checkpoint", &error)),
        }
        self.checkpoint = None;
        self.checkpoint_due = self.now + self.checkpoint_interval;
        Ok(())
    }
}

/// Apply must not need a disk beyond what [`Machine::needed_values`] named.
struct PrefetchedOnly(Prefetched);

impl Values for PrefetchedOnly {
    fn value(&mut self, hit: Hit) -> Bytes {
        self.0.get(hit).unwrap_or_else(|| panic!("apply needs {hit:?}, which nobody named before")).clone()
    }
}
