//! The node: consensus, the clock, and who advances next.

use std::collections::VecDeque;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use basalt_proto::etcdserverpb::{LeaseCheckpoint, LeaseCheckpointRequest, LeaseRevokeRequest};
use basalt_proto::log::Request;
use basalt_proto::log::request::Kind;
use basalt_server::admission::Proposal;
use basalt_server::apply::machine::{APPLY_VERSION, Machine};
use basalt_server::node::core::{BadMessage, Core, CoreConfig, Input, Leadership, Output};
use basalt_server::transfer::MemberSnapshot;
use basalt_storage::disk::{InjectedFault, PowerCut, SimulatedDisk};
use basalt_storage::job::{Job, run};
use basalt_storage::mvcc::view::View;
use basalt_storage::revision::Revision;
use bytes::Bytes;
use raft::prelude::Message;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::apply_side::{ApplyInput, ApplySide, Outcome};
use super::checkpoint_side::{CheckpointSide, Ended};
use super::log_side::LogSide;
use super::overlaps::Overlaps;
use super::snapshot_side::{SnapshotSide, TakenSnapshot};
use super::transfer_side::TransferSide;
use crate::opening::{self, CLUSTER_ID, Parts, Place};
use crate::over::Over;

const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(100);
pub(super) const ELECTION_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the virtual clock moves in one turn, at most.
const TURN: Duration = Duration::from_millis(4);
/// 2020-09-13, when the virtual clock stands at 0.
const EPOCH_NS: i64 = 1_600_000_000_000_000_000;
/// Turns after which a node that should have come to rest is called stuck.
const TURNS_TO_REST: usize = 200_000;

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
    Install,
    Snapshot,
}

/// What a node says to the world.
#[derive(Default)]
pub struct Said {
    /// To other members.
    pub messages: Vec<Message>,
    /// Reads that may look at the newest View.
    pub reads: Vec<u64>,
    /// Reads whose leader is gone.
    pub failed_reads: Vec<u64>,
    /// Whole states for other members, each with the message that goes with it.
    pub snapshots: Vec<(Message, Arc<MemberSnapshot>)>,
    /// Whether it was removed, and may stop.
    pub left: bool,
    /// Changes of role.
    pub roles: Vec<Leadership>,
    /// Messages that it refused.
    pub refused: Vec<BadMessage>,
}

/// The node. Everything in it but the disk is lost in a crash.
pub struct SimulatedNode {
    disk: SimulatedDisk,
    random: StdRng,
    now: Duration,
    next_tick: Duration,
    core: Core,
    proposals: VecDeque<Request>,
    inbox: VecDeque<Input>,
    log: LogSide,
    apply: ApplySide,
    checkpoints: CheckpointSide,
    snapshots: SnapshotSide,
    transfers: TransferSide,
    /// Entries that another member's state took the place of.
    pub installs: usize,
    said: Said,
    leads: bool,
    /// What ran beside what.
    pub overlaps: Overlaps,
}

impl SimulatedNode {
    /// Opens or makes the node on `disk`; `checkpoint_interval` is virtual time.
    ///
    /// # Errors
    /// [`Over`] when an injected fault is met on the way.
    pub fn open(disk: SimulatedDisk, seed: u64, checkpoint_interval: Duration) -> Result<Self, Over> {
        let mut random = StdRng::seed_from_u64(seed);
        let parts = opening::open(&disk, &mut random)?;
        Ok(Self::start(disk, parts, random, checkpoint_interval))
    }

    /// Opens or makes one of several members, whose clock stands at `now`.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_as(
        place: &Place,
        disk: SimulatedDisk,
        seed: u64,
        checkpoint_interval: Duration,
        now: Duration,
    ) -> Result<Self, Over> {
        let mut random = StdRng::seed_from_u64(seed);
        let parts = opening::open_as(place, &disk, &mut random)?;
        Ok(Self::start_as(place, disk, parts, random, checkpoint_interval, now))
    }

    /// The node of parts that were opened on `disk`.
    pub fn start(disk: SimulatedDisk, parts: Parts, random: StdRng, checkpoint_interval: Duration) -> Self {
        Self::start_as(&Place::default(), disk, parts, random, checkpoint_interval, Duration::ZERO)
    }

    fn start_as(
        place: &Place,
        disk: SimulatedDisk,
        parts: Parts,
        mut random: StdRng,
        checkpoint_interval: Duration,
        now: Duration,
    ) -> Self {
        let Parts { store, checkpointer, log, log_store } = parts;
        let config = CoreConfig {
            member_id: place.member_id,
            heartbeat_interval: HEARTBEAT_INTERVAL,
            election_timeout: ELECTION_TIMEOUT,
            applied: store.applied.index,
            pre_vote: place.pre_vote,
            shards: store.shard_map().shards().len(),
            catchup_entries: if place.voters.len() > 1 || place.joins { place.catchup_entries } else { 0 },
            apply_version: APPLY_VERSION,
            seed: random.random(),
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let mut node = Self {
            random,
            now,
            next_tick: now + HEARTBEAT_INTERVAL,
            core: Core::new(&config, log_store, &logger).expect("raft accepts a recovered log"),
            proposals: VecDeque::new(),
            inbox: VecDeque::new(),
            log: LogSide::new(log, checkpointer.manifest().generation),
            apply: ApplySide::new(Machine::new(store)),
            checkpoints: CheckpointSide::new(checkpointer, &disk, checkpoint_interval, now),
            snapshots: SnapshotSide::default(),
            transfers: TransferSide::default(),
            installs: 0,
            said: Said::default(),
            leads: false,
            overlaps: Overlaps::default(),
            disk,
        };
        let mut outputs = Vec::new();
        node.core.start(&mut outputs).expect("raft starts");
        node.carry(outputs);
        node
    }

    /// The power goes now: the disk as the next life finds it.
    pub fn crash(self, power_cut: PowerCut) -> SimulatedDisk {
        self.disk.crash(power_cut)
    }

    /// The process dies, and the operating system lives on: the disk as the next life finds it.
    pub fn restart(self) -> SimulatedDisk {
        self.disk.restart()
    }

    /// A request arrives, as the API lets it through.
    pub fn propose(&mut self, request: Request) {
        self.proposals.push_back(request);
    }

    /// A client begins to take a snapshot, unless one is being taken.
    pub fn begin_snapshot(&mut self) {
        self.snapshots.begin(&mut self.apply.machine);
    }

    /// A client asks for a defragmentation, unless one runs.
    pub fn begin_defragmentation(&mut self) {
        self.checkpoints.defragment();
    }

    /// The state machine.
    pub fn machine(&self) -> &Machine {
        &self.apply.machine
    }

    /// The disk.
    pub fn disk(&self) -> &SimulatedDisk {
        &self.disk
    }

    /// Run files that the last manifest names, by name; `None` while a checkpoint runs.
    pub fn named_runs(&self) -> Option<Vec<String>> {
        self.checkpoints.named_runs()
    }

    /// Whether the last checkpoint has all that was applied, and no leaf waits to be rewritten.
    pub fn is_checkpointed(&self) -> bool {
        !self.checkpoints.is_running() && !self.checkpoints.is_dirty
    }

    /// The newest View.
    pub fn view(&self) -> Arc<View> {
        self.apply.view()
    }

    /// What was applied since the last call: answers leave here, and not before.
    pub fn take_outcomes(&mut self) -> Vec<Outcome> {
        std::mem::take(&mut self.apply.outcomes)
    }

    /// Snapshots taken since the last call.
    pub fn take_snapshots(&mut self) -> Vec<TakenSnapshot> {
        std::mem::take(&mut self.snapshots.taken)
    }

    /// Runs a reading job to its end.
    ///
    /// # Errors
    /// The job's.
    pub fn try_read<J: Job>(&self, mut job: J) -> Result<J::Output, J::Error> {
        run(&mut job, &self.disk, 1)
    }

    /// Runs a reading job to its end.
    ///
    /// # Panics
    /// When it fails.
    pub fn read<J: Job>(&self, job: J) -> J::Output
    where
        J::Error: Error,
    {
        self.try_read(job).expect("reads of a healthy disk succeed")
    }

    /// Whether requests, appends or entries are on their way; ticks and background work do not count.
    pub fn is_busy(&self) -> bool {
        let queued = self.proposals.len() + self.inbox.len() + self.core.queued();
        queued > 0 || self.log.is_busy() || self.apply.has_inputs()
    }

    /// Goes on until no request is on its way.
    ///
    /// # Errors
    /// [`Over`]; the node is.
    ///
    /// # Panics
    /// When that never comes.
    pub fn rest(&mut self) -> Result<(), Over> {
        for _ in 0..TURNS_TO_REST {
            if !self.is_busy() && self.core.leads() {
                return Ok(());
            }
            self.turn()?;
        }
        panic!("the node does not come to rest");
    }

    /// What it said since the last call.
    pub fn take_said(&mut self) -> Said {
        std::mem::take(&mut self.said)
    }

    /// Another member says something.
    pub fn hear(&mut self, message: Message) {
        self.inbox.push_back(Input::Message(Box::new(message)));
    }

    /// A client wants to read what was acknowledged before.
    pub fn read_index(&mut self, read: u64) {
        self.inbox.push_back(Input::Read(read));
    }

    /// Another member shall lead.
    pub fn transfer(&mut self, member: u64) {
        self.inbox.push_back(Input::Transfer(member));
    }

    /// A stream of a whole state begins, with its first chunk; `id` is the state's.
    pub fn open_arrival(&mut self, id: u64, message: &Message, head: Bytes) {
        self.transfers.open(&self.disk, id, self.checkpoints.manifest(), message, head);
    }

    /// The next chunk of it; says whether it was the last. `None` if another state arrives by now.
    pub fn take_arrival(&mut self, id: u64, message: &Message, chunk: Bytes) -> Option<bool> {
        let (is_whole, received) = self.transfers.take(&self.disk, id, message, chunk)?;
        self.inbox.extend(received);
        Some(is_whole)
    }

    /// The last revision of state `id` that arrived.
    pub fn arrived(&self, id: u64) -> Option<Revision> {
        self.transfers.last(id)
    }

    /// In words, for whoever finds it stuck.
    pub fn state(&self) -> String {
        let (applied, committed) = (self.machine().store().applied.index, self.core.committed());
        let (busy, installing) = (self.is_busy(), self.is_installing());
        let (standing, progress) = (self.core.standing(), self.core.progress());
        format!(
            "applied {applied}, committed {committed}, busy {busy}, installing {installing}; {standing}; {progress}"
        )
    }

    /// Whether a state that arrived is neither installed nor discarded.
    pub fn is_installing(&self) -> bool {
        self.transfers.has_filled() || self.apply.is_replaced
    }

    /// A state for another member is on its way no more.
    pub fn snapshot_sent(&mut self, to: u64, arrived: bool) {
        self.inbox.push_back(Input::SnapshotSent { to, arrived });
    }

    /// Whether it leads.
    pub fn leads(&self) -> bool {
        self.core.leads()
    }

    /// The time on its clock goes on to `now`, but never back.
    pub fn pass_until(&mut self, now: Duration) {
        self.now = self.now.max(now);
    }

    /// When it does something again, if nobody says anything before: now, or with its next tick.
    pub fn next_turn(&self) -> Duration {
        if self.runnable().is_empty() { self.next_tick } else { self.now }
    }

    /// Something that can advance does so by one step or one request to the disk.
    ///
    /// # Errors
    /// [`Over`]; the node is.
    pub fn turn(&mut self) -> Result<(), Over> {
        self.turn_of(TURN)
    }

    /// The same, of a node whose turns take other time.
    ///
    /// # Errors
    /// As [`Self::turn`].
    pub fn turn_of(&mut self, longest: Duration) -> Result<(), Over> {
        self.now += longest.mul_f64(self.random.random());
        let runnable = self.runnable();
        if runnable.is_empty() {
            // Nothing but time can bring anything.
            self.now = self.next_tick;
            return Ok(());
        }
        let (disk, random, seen) = (&self.disk, &mut self.random, &mut self.overlaps);
        match runnable[random.random_range(0..runnable.len())] {
            Turn::Node => self.take_input(),
            Turn::Tick => self.tick(),
            Turn::Propose => self.propose_some(),
            Turn::Log => self.inbox.extend(self.log.append(disk, random)?.map(Input::Persisted)),
            Turn::Prepare => self.log.prepare(disk, random, seen)?,
            Turn::Recycle => self.log.recycle(disk, random, seen)?,
            Turn::Apply => self.apply_next()?,
            Turn::Sweep => self.sweep(),
            Turn::Checkpoint => self.advance_checkpoint()?,
            Turn::Install => self.install(),
            Turn::Snapshot => self.snapshots.advance(disk, random, seen)?,
        }
        // Work that may fail without harm meets a stopped disk too: the power is gone for everything.
        if self.disk.is_stopped() { Err(Over(InjectedFault::Stopped)) } else { Ok(()) }
    }

    fn runnable(&self) -> Vec<Turn> {
        let candidates = [
            (Turn::Node, !self.inbox.is_empty()),
            (Turn::Tick, self.now >= self.next_tick),
            (Turn::Propose, !self.proposals.is_empty()),
            (Turn::Log, self.log.has_appends()),
            (Turn::Prepare, self.log.may_prepare()),
            (Turn::Recycle, self.log.may_recycle()),
            (Turn::Apply, self.apply.has_inputs()),
            (Turn::Sweep, self.machine().store().is_sweeping() && !self.apply.is_replaced),
            (Turn::Checkpoint, self.may_checkpoint()),
            (Turn::Install, self.apply.is_replaced && !self.checkpoints.is_running()),
            (Turn::Snapshot, self.snapshots.is_running()),
        ];
        candidates.into_iter().filter_map(|(turn, ready)| ready.then_some(turn)).collect()
    }

    fn take_input(&mut self) {
        let input = self.inbox.pop_front().expect("runnable");
        self.step_core(input);
    }

    fn step_core(&mut self, input: Input) {
        let mut outputs = Vec::new();
        self.core.step(input, &mut outputs).expect("raft goes on");
        self.carry(outputs);
    }

    fn carry(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Append(append) => self.log.push(append),
                Output::Apply(all) => {
                    all.into_iter().for_each(|committed| self.apply.push(ApplyInput::Committed(committed)));
                }
                Output::Role(leadership) => {
                    if leadership.leads != self.leads {
                        self.leads = leadership.leads;
                        self.apply.push(ApplyInput::Role { leads: leadership.leads });
                    }
                    self.said.roles.push(leadership);
                }
                Output::Lost(requests) => {
                    self.overlaps.asked_again += requests.len();
                    self.proposals.extend(requests);
                }
                Output::Send(messages) => self.said.messages.extend(messages),
                Output::SnapshotWanted(to) => {
                    let snapshot = MemberSnapshot::of(&self.apply.machine, CLUSTER_ID);
                    self.inbox.push_back(self.transfers.made(to, snapshot));
                }
                Output::SendSnapshot(message) => match self.transfers.take_made(&message) {
                    Some(snapshot) => self.said.snapshots.push((*message, snapshot)),
                    None => self.snapshot_sent(message.to, false),
                },
                Output::Install(_) => self.apply.push(ApplyInput::Install),
                Output::Discard => self.transfers.discard(&self.disk),
                Output::DiskTooSlow { .. } => {}
                Output::Left => self.said.left = true,
                Output::ReadsReady(reads) => self.said.reads.extend(reads),
                Output::ReadsFailed(reads) => self.said.failed_reads.extend(reads),
                Output::Refused { cause, .. } => self.said.refused.push(cause),
            }
        }
    }

    fn tick(&mut self) {
        self.next_tick = self.now + HEARTBEAT_INTERVAL;
        self.step_core(Input::Tick);
        let revoke = |id| Kind::LeaseRevoke(LeaseRevokeRequest { id });
        let leases = &mut self.apply.leases;
        let mut kinds: Vec<_> = leases.expired(self.now, 8).into_iter().map(revoke).collect();
        self.overlaps.expired += kinds.len();
        let remainders = leases.checkpoints(self.now, 8).into_iter();
        let checkpoints: Vec<_> = remainders.map(|(id, remaining_ttl)| LeaseCheckpoint { id, remaining_ttl }).collect();
        if !checkpoints.is_empty() {
            kinds.push(Kind::LeaseCheckpoint(LeaseCheckpointRequest { checkpoints }));
        }
        self.proposals.extend(kinds.into_iter().map(|kind| Request { id: 0, principal: None, kind: Some(kind) }));
    }

    fn propose_some(&mut self) {
        let count = self.random.random_range(1..=self.proposals.len().min(3));
        let time_unix_ns = EPOCH_NS + i64::try_from(self.now.as_nanos()).expect("a run is short");
        let shards = self.apply.machine.store().shard_map();
        let proposals = self.proposals.drain(..count).map(|request| Proposal::new(request, shards)).collect();
        self.step_core(Input::Propose { proposals, time_unix_ns });
    }

    fn apply_next(&mut self) -> Result<(), Over> {
        let Some(index) = self.apply.next(&self.disk, self.now)? else { return Ok(()) };
        self.checkpoints.is_dirty = true;
        let changes = std::mem::take(&mut self.apply.changes).into_iter();
        self.inbox.extend(changes.map(|change| Input::ConfChange(Box::new(change))));
        self.inbox.push_back(Input::Applied(index));
        let seen = &mut self.overlaps;
        seen.applied_in_checkpoint += usize::from(self.checkpoints.is_running());
        seen.applied_in_checkpoint_sync += usize::from(self.checkpoints.is_syncing());
        seen.applied_in_log_sync += usize::from(self.log.is_syncing());
        seen.applied_in_sweep += usize::from(self.apply.machine.store().is_sweeping());
        seen.applied_in_snapshot += usize::from(self.snapshots.is_running());
        Ok(())
    }

    fn sweep(&mut self) {
        let store = self.apply.machine.store_mut();
        store.sweep(0);
        self.overlaps.swept_in_checkpoint += usize::from(self.checkpoints.is_running());
        if !store.is_sweeping() {
            self.checkpoints.is_dirty = true;
            self.overlaps.compactions += 1;
        }
    }

    fn advance_checkpoint(&mut self) -> Result<(), Over> {
        let store = self.apply.machine.store_mut();
        let ended = self.checkpoints.advance(&self.disk, &mut self.random, self.now, store, &mut self.overlaps)?;
        if let Some(Ended { applied_index, generation }) = ended {
            self.log.generation = generation;
            self.log.release(applied_index);
        }
        Ok(())
    }

    /// One that runs goes on; none begins while another state takes the place of this one.
    fn may_checkpoint(&self) -> bool {
        self.checkpoints.is_running() || (!self.apply.is_replaced && self.checkpoints.may_advance(self.now))
    }

    fn install(&mut self) {
        let filled = self.transfers.take_filled();
        let (store, generation) = self.checkpoints.install(&self.disk, filled);
        self.apply.replace(Machine::new(store));
        self.log.generation = generation;
        self.installs += 1;
        self.inbox.push_back(Input::Installed);
    }
}
