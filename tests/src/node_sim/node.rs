//! The node: consensus, the clock, and who advances next.

use std::collections::VecDeque;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use basalt_proto::log::Request;
use basalt_server::apply::machine::{APPLY_VERSION, Machine};
use basalt_server::node::core::{Core, CoreConfig, Input, Leadership};
use basalt_storage::disk::{PowerCut, SimulatedDisk};
use basalt_storage::job::{Job, run};
use basalt_storage::mvcc::view::View;
use raft::Storage;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::apply_side::{ApplySide, Outcome};
use super::checkpoint_side::CheckpointSide;
use super::leader_losses::LeaderLosses;
use super::lease_side::LeaseSide;
use super::log_side::LogSide;
use super::member_clock::MemberClock;
use super::overlaps::Overlaps;
use super::said::{Appended, Said};
use super::snapshot_side::{SnapshotSide, TakenSnapshot};
use super::transfer_side::TransferSide;
use super::watch_side::WatchSide;
use crate::opening::{self, Parts, Place};
use crate::over::Over;

pub(super) const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(100);
pub(super) const ELECTION_TIMEOUT: Duration = Duration::from_secs(1);
/// Turns after which a node that should have come to rest is called stuck.
const TURNS_TO_REST: usize = 200_000;

/// The node. Everything in it but the disk is lost in a crash.
pub struct SimulatedNode {
    pub(super) member_id: u64,
    pub(super) incarnation: u128,
    pub(super) disk: SimulatedDisk,
    pub(super) random: StdRng,
    /// The world's time; what this node knows of it says its clock.
    pub(super) now: Duration,
    pub(super) clock: MemberClock,
    pub(super) next_tick: Duration,
    /// When it tells the cluster who it is; `None` once that is known.
    pub(super) describes_at: Option<Duration>,
    /// Nothing that it asks of its disk comes back before.
    pub(super) disk_stalls_until: Duration,
    pub(super) core: Core,
    pub(super) proposals: VecDeque<Request>,
    pub(super) inbox: VecDeque<Input>,
    pub(super) log: LogSide,
    pub(super) apply: ApplySide,
    pub(super) checkpoints: CheckpointSide,
    pub(super) snapshots: SnapshotSide,
    pub(super) transfers: TransferSide,
    pub(super) leases: LeaseSide,
    /// Of streams that asked for a leader.
    pub(super) leader_losses: LeaderLosses,
    /// `None` where nobody watches.
    pub(super) watches: Option<WatchSide>,
    /// Entries that another member's state took the place of.
    pub installs: usize,
    pub(super) said: Said,
    /// Whether it says what its log holds.
    pub(super) is_observed: bool,
    pub(super) leadership: Leadership,
    /// Whether anybody has users here.
    pub(super) has_users: bool,
    /// What ended it between two turns.
    pub(super) over: Option<Over>,
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
        let Parts { store, checkpointer, log, log_store, incarnation } = parts;
        let is_observed = place.voters.len() > 1 || place.joins;
        let config = CoreConfig {
            member_id: place.member_id,
            heartbeat_interval: HEARTBEAT_INTERVAL,
            election_timeout: ELECTION_TIMEOUT,
            applied: store.applied.index,
            pre_vote: place.pre_vote,
            shards: store.shard_map().shards().len(),
            catchup_entries: if is_observed { place.catchup_entries } else { 0 },
            apply_version: APPLY_VERSION,
            seed: random.random(),
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let former_life = log_store.last_index().expect("it is in memory");
        let mut said = Said::default();
        if is_observed {
            said.appended.push(Appended::all_of(&log_store));
        }
        let watches = place.is_watched.then(|| {
            let (shard_map, view) = (store.shard_map().clone(), store.head());
            WatchSide::new(place.member_id, shard_map, &view, random.random())
        });
        let clock = place.clock;
        let mut node = Self {
            member_id: place.member_id,
            incarnation,
            random,
            now,
            clock,
            next_tick: now + clock.until(HEARTBEAT_INTERVAL),
            describes_at: Some(now),
            disk_stalls_until: Duration::ZERO,
            core: Core::new(&config, log_store, &logger).expect("raft accepts a recovered log"),
            proposals: VecDeque::new(),
            inbox: VecDeque::new(),
            log: LogSide::new(log, checkpointer.manifest().generation),
            apply: ApplySide::new(Machine::new(store), place, former_life),
            checkpoints: CheckpointSide::new(checkpointer, &disk, checkpoint_interval, now),
            snapshots: SnapshotSide::default(),
            transfers: TransferSide::default(),
            leases: LeaseSide::default(),
            watches,
            installs: 0,
            said,
            is_observed,
            leadership: Leadership::default(),
            has_users: place.has_users,
            leader_losses: LeaderLosses::default(),
            over: None,
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
}
