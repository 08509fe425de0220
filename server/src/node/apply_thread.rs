//! The apply thread: entries into the machine; Views, answers and events out; checkpoints and compaction in between.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use basalt_proto::etcdserverpb::AlarmRequest;
use basalt_proto::etcdserverpb::alarm_request::AlarmAction;
use basalt_proto::log::request::Kind;
use basalt_proto::log::{LogEntry, Request};
use basalt_storage::checkpoint::Filled;
use basalt_storage::mvcc::shard_map::ShardId;
use basalt_storage::mvcc::store::Frozen;
use basalt_storage::mvcc::view::{Checkpointed, View};
use tracing::info;

use super::apply_checkpoints::CheckpointWaiter;
use super::apply_counts::ApplyCounts;
use super::apply_follow::Compacted;
pub use super::apply_install::InstalledState;
use super::apply_install::Replacing;
pub use super::apply_links::ApplyLinks;
use super::checkpoint_schedule::{CHECKPOINT_INTERVAL, CheckpointSchedule};
use super::compaction_schedule::CompactionSchedule;
use super::core::Committed;
use super::handle::{ApplyRequest, Completed, unix_time_ns};
use super::hash_marks::HashMarks;
use super::node_thread::{ID_NOBODY, NodeInput};
use super::read_ahead::{ReadAhead, StoredValues};
use crate::admission::Proposal;
use crate::apply::alarms::AlarmKind;
use crate::apply::answer::{Answer, Refusal};
use crate::apply::auth::check::cluster_principal;
use crate::apply::effects::Effect;
use crate::apply::machine::Machine;
use crate::apply::values::Prefetched;
use crate::failpoints::{self, Point};
use crate::watch;

/// What reaches the apply thread.
pub enum ApplyInput {
    /// Entries to apply, in order.
    Committed(Vec<Committed>),
    /// From the API.
    Request(ApplyRequest),
    /// What the entry that is held looks at.
    ValuesRead(Prefetched),
    /// The hash that a compaction leaves is there, or cannot be computed.
    CompactionHashed,
    /// A checkpoint ended.
    Checkpointed(CheckpointEnd),
    /// A checkpoint found the disk full.
    CheckpointRefused(Box<Frozen>),
    /// The state of another member takes the place of this one.
    Install(Box<Filled>),
    /// It has.
    Installed(Box<InstalledState>),
    /// Stop after what came before.
    Stop,
}

/// A checkpoint that ended.
pub struct CheckpointEnd {
    /// The shards as reads find them from now on.
    pub checkpointed: Vec<Checkpointed>,
    /// The last log entry in it.
    pub applied_index: u64,
    /// Bytes of page files.
    pub file_bytes: u64,
    /// Stored bytes of revisions not marked dead.
    pub live_bytes: u64,
    /// Whether no leaf waits to be rewritten, by the measure that the checkpoint had.
    pub tidy: bool,
}

/// The thread's state.
pub struct ApplyThread {
    pub(super) machine: Machine,
    pub(super) links: ApplyLinks,
    pub(super) counts: ApplyCounts,
    pub(super) checkpoints: CheckpointSchedule<CheckpointWaiter>,
    pub(super) compactions: CompactionSchedule,
    /// Whether checkpoints were told to hurry.
    pub(super) hurried: bool,
    /// Committed and not applied: the first waits for what it looks at, the others behind it.
    pub(super) held: VecDeque<Committed>,
    /// For the first that is held.
    pub(super) read_ahead: ReadAhead,
    /// Bytes of page files and of live revisions in them, from the last checkpoint.
    pub(super) file_bytes: u64,
    pub(super) live_bytes: u64,
    pub(super) replacing: Replacing,
    /// Where members compare their states.
    pub(super) marks: HashMarks,
    /// When newer rules may be proposed again, after the start.
    pub(super) raise_again_at: Duration,
}

impl ApplyThread {
    /// A thread over a recovered machine.
    pub fn new(machine: Machine, links: ApplyLinks, file_bytes: u64, live_bytes: u64, tidy: bool) -> Self {
        let mut checkpoints = CheckpointSchedule::new(links.started.elapsed());
        let marks = HashMarks::new(links.hash_mark_interval, links.started.elapsed());
        if !tidy {
            checkpoints.leave_untidy();
        }
        Self {
            machine,
            counts: ApplyCounts::new(links.metrics.clone(), links.slow_apply),
            checkpoints,
            hurried: false,
            compactions: CompactionSchedule::new(links.sweep_pause),
            links,
            held: VecDeque::new(),
            read_ahead: ReadAhead::None,
            file_bytes,
            live_bytes,
            replacing: Replacing::default(),
            marks,
            raise_again_at: Duration::ZERO,
        }
    }

    /// Works until told to stop; then writes a last checkpoint. Entries that are held then are left to the next start.
    pub fn run(mut self, inbox: &Receiver<ApplyInput>) {
        self.show_sizes();
        self.show_every_alarm();
        let mut backlog = VecDeque::new();
        while let Some(input) = self.next(inbox, &mut backlog) {
            match input {
                ApplyInput::Committed(committed) => {
                    self.held.extend(committed);
                    self.apply_held();
                }
                ApplyInput::ValuesRead(_) if self.replacing.stale_reads > 0 => self.replacing.stale_reads -= 1,
                ApplyInput::ValuesRead(values) => {
                    self.read_ahead = ReadAhead::Done(values);
                    self.apply_held();
                }
                ApplyInput::Request(request) => self.serve(request),
                ApplyInput::CompactionHashed => {
                    self.compactions.hash_ended();
                    self.links.hashes.set_pending(self.compactions.hashes());
                    self.tell_compacted();
                }
                ApplyInput::Checkpointed(checkpoint) => self.checkpointed(checkpoint),
                ApplyInput::CheckpointRefused(frozen) => self.checkpoint_refused(*frozen),
                ApplyInput::Install(filled) => self.begin_install(*filled),
                ApplyInput::Installed(installed) => {
                    self.installed(*installed);
                    self.apply_held();
                }
                ApplyInput::Stop => break,
            }
            self.checkpoint_if_due();
            self.mark_if_due();
            self.raise_apply_version_if_due();
        }
        self.last_checkpoint(inbox);
    }

    /// The next input. Meanwhile compaction goes on, a step at a time, and checkpoints start.
    fn next(&mut self, inbox: &Receiver<ApplyInput>, backlog: &mut VecDeque<ApplyInput>) -> Option<ApplyInput> {
        loop {
            // Also where inputs never pause: a busy store needs its compactions most.
            let wait = self.sweep_if_due();
            if let Some(input) = backlog.pop_front() {
                return Some(input);
            }
            match inbox.recv_timeout(wait) {
                Ok(input) => backlog.push_back(input),
                Err(RecvTimeoutError::Timeout) => {
                    self.checkpoint_if_due();
                    self.mark_if_due();
                    self.raise_apply_version_if_due();
                }
                Err(RecvTimeoutError::Disconnected) => return None,
            }
            self.gather(inbox, backlog);
        }
    }

    /// Joins what waits: entries that came together are published together.
    fn gather(&self, inbox: &Receiver<ApplyInput>, backlog: &mut VecDeque<ApplyInput>) {
        loop {
            match (inbox.try_recv(), backlog.back_mut()) {
                (Ok(ApplyInput::Committed(more)), Some(ApplyInput::Committed(last))) => last.extend(more),
                (Ok(input), _) => backlog.push_back(input),
                (Err(TryRecvError::Empty | TryRecvError::Disconnected), _) => return,
            }
        }
    }

    /// Applies what is held, up to an entry that waits for a value.
    fn apply_held(&mut self) {
        if self.replacing.under_way {
            return;
        }
        let (mut last, since) = (None, Instant::now());
        let mut answers = Vec::new();
        let mut effects = Vec::new();
        let store = self.machine.store();
        let compacted = Compacted { revision: store.compact_revision(), finished: !store.is_sweeping() };
        while let Some(Committed { position, entry }) = self.held.pop_front() {
            match entry {
                None => self.machine.apply_empty(position),
                Some(entry) => {
                    let Some(mut values) = self.values_for(&entry) else {
                        self.held.push_front(Committed { position, entry: Some(entry) });
                        break;
                    };
                    before_applying(&entry);
                    let started = Instant::now();
                    let applied = self.machine.apply(position, &entry, &mut values);
                    after_applying(&entry);
                    let leads = self.links.gauges.leads.load(Ordering::Relaxed);
                    self.counts.entry(&entry, &applied, started.elapsed(), leads);
                    self.hand_out_tokens(position.index, &entry, &applied.answers);
                    // Callers of other members wait there.
                    if entry.proposer == self.links.member_id {
                        answers.extend(applied.answers);
                    }
                    if applied.effects.effects.iter().any(|effect| matches!(effect, Effect::AuthChanged(_))) {
                        self.links.auth.follow(self.machine.auth());
                    }
                    effects.extend(applied.effects.effects);
                    if HashMarks::is_mark(&entry) {
                        self.compare(position.index, &entry);
                    }
                }
            }
            last = Some(position);
        }
        let Some(last) = last else { return };
        self.checkpoints.touch();
        let view = self.publish();
        // Before the answers: a granted lease can be renewed, and a watch made after a put does not see it as new.
        self.follow(&effects, &view, compacted);
        self.answer(answers, &view, since);
        self.links.gauges.applied_index.store(last.index, Ordering::Relaxed);
        // The node thread is gone only when the process is about to be.
        drop(self.links.node.send(NodeInput::Applied(last.index)));
        self.show_sizes();
    }

    /// What applying the entry may look at, or none while that is being read.
    fn values_for(&mut self, entry: &LogEntry) -> Option<StoredValues> {
        if matches!(self.read_ahead, ReadAhead::None) {
            let hits = self.machine.needed_values(entry);
            if !hits.is_empty() {
                // What is in no delta of the store is in pages of the published View.
                let (view, links) = (self.links.view.load_full(), &self.links);
                self.read_ahead = ReadAhead::start(hits, view, (&links.readers, &links.inbox), &links.metrics);
            }
        }
        let prefetched = match std::mem::take(&mut self.read_ahead) {
            ReadAhead::None => Prefetched::default(),
            ReadAhead::Done(prefetched) => prefetched,
            ReadAhead::Running => {
                self.read_ahead = ReadAhead::Running;
                return None;
            }
        };
        let (readers, metrics) = (self.links.readers.clone(), self.links.metrics.clone());
        Some(StoredValues { view: self.links.view.load_full(), prefetched, readers, metrics })
    }

    pub(super) fn publish(&self) -> Arc<View> {
        // Before what is new to see: whoever sees it is judged by no older users and roles.
        if let Some(auth) = self.links.auth.show(self.machine.auth()) {
            drop(self.links.watches.send(watch::Input::Permissions(auth)));
        }
        self.show_downgrade();
        let view = Arc::new(self.machine.store().head());
        self.links.view.store(view.clone());
        view
    }

    fn answer(&self, answers: Vec<(u64, Result<Answer, Refusal>)>, view: &Arc<View>, applied_since: Instant) {
        let waiting = self.links.waiters.take(answers.iter().map(|(id, _)| *id));
        for ((_, answer), waiter) in answers.into_iter().zip(waiting) {
            // A caller that gave up has dropped its end; a request of another member has none here.
            if let Some(waiter) = waiter {
                drop(waiter.send(answer.map(|answer| Completed { answer, view: view.clone(), applied_since })));
            }
        }
    }

    fn serve(&mut self, request: ApplyRequest) {
        match request {
            ApplyRequest::Ask(question) => question(&mut self.machine),
            ApplyRequest::Checkpoint { tidy, done } => {
                if tidy {
                    self.checkpoints.leave_untidy();
                }
                self.checkpoints.ask(CheckpointWaiter { tidy, done });
            }
            ApplyRequest::Compacted(done) => {
                self.compactions.ask(done);
                self.tell_compacted();
            }
        }
    }

    /// All members know the tokens of users who showed their passwords. An entry of a former life of this process gives a token
    /// that is as old as it is. Of others the wall clock is not asked: it may be another than that of the member that made them.
    fn hand_out_tokens(&self, index: u64, entry: &LogEntry, answers: &[(u64, Result<Answer, Refusal>)]) {
        for (request, (_, answer)) in entry.requests.iter().zip(answers) {
            // One after which users changed in the same entry is good for nothing: its client logs in again.
            let revision = self.machine.auth().revision();
            if let (Some(Kind::Authentication(login)), Ok(_)) = (&request.kind, answer)
                && login.auth_revision == revision
            {
                let is_old = index <= self.links.former_life;
                let age = if is_old { unix_time_ns().saturating_sub(entry.time_unix_ns) } else { 0 };
                let (age, now) = (Duration::from_nanos(age.max(0).unsigned_abs()), self.links.started.elapsed());
                self.links.auth.logged_in(login, self.machine.auth(), age, now);
            }
        }
    }

    pub(super) fn tell_compacted(&mut self) {
        let sweeping = self.machine.store().is_sweeping();
        // Whoever gave up needs no telling.
        self.compactions.ended(sweeping).for_each(|waiter| _ = waiter.send(()));
    }

    /// Does a step of a compaction whose pause is over; says how long to wait for an input then.
    fn sweep_if_due(&mut self) -> Duration {
        const WAIT_MAX: Duration = CHECKPOINT_INTERVAL.checked_div(10).expect("a tenth");
        if !self.machine.store().is_sweeping() || self.replacing.under_way {
            return WAIT_MAX;
        }
        let now = self.links.started.elapsed();
        if self.compactions.take_step(now) {
            self.sweep();
        }
        // A long pause keeps no checkpoint waiting.
        self.compactions.pause_left(now).min(WAIT_MAX)
    }

    fn sweep(&mut self) {
        let (metrics, began) = (&self.links.metrics, Instant::now());
        failpoints::hit(Point::CompactBeforeCommitBatch);
        let dropped = self.machine.store_mut().sweep(self.links.sweep_batch);
        failpoints::hit(Point::CompactAfterCommitBatch);
        metrics.compaction_keys_total.inc_by(dropped as u64);
        metrics.compaction_pause_milliseconds.observe(began.elapsed().as_secs_f64() * 1e3);
        if !self.machine.store().is_sweeping() {
            self.checkpoints.touch();
            let elapsed = self.compactions.elapsed(self.links.started.elapsed());
            metrics.compaction_milliseconds.observe(elapsed.as_secs_f64() * 1e3);
            metrics.compaction_last.set(unix_time_ns() / 1_000_000_000);
            failpoints::hit(Point::CompactBeforeSetFinishedCompact);
            info!(revision = self.machine.store().compact_revision(), "finished scheduled compaction");
            self.tell_compacted();
            failpoints::hit(Point::CompactAfterSetFinishedCompact);
        }
    }

    /// Arms an alarm of this member.
    pub(super) fn raise(&self, alarm: AlarmKind) {
        self.propose(Kind::Alarm(AlarmRequest {
            action: AlarmAction::Activate as i32,
            member_id: self.links.member_id,
            alarm: alarm.number(),
        }));
    }

    /// Has something ordered that nobody waits for.
    pub(super) fn propose(&self, kind: Kind) {
        let request = Request { id: ID_NOBODY, principal: Some(cluster_principal()), kind: Some(kind) };
        let proposal = Proposal::new(request, self.machine.store().shard_map());
        self.links.gate.enter(&proposal);
        drop(self.links.node.send(NodeInput::Propose(proposal)));
    }

    pub(super) fn show_sizes(&self) {
        let delta = self.machine.store().uncheckpointed_bytes() as u64;
        for (shard, view) in (0u32..).map(ShardId).zip(&self.links.view.load().shards) {
            self.links.gate.set_delta_bytes(shard, (view.delta.bytes() + view.frozen.bytes()) as u64);
        }
        self.links.gauges.leases.store(self.machine.leases().len() as u64, Ordering::Relaxed);
        self.links.gauges.db_size.store(self.file_bytes + delta, Ordering::Relaxed);
        self.links.gauges.db_size_in_use.store(self.live_bytes + delta, Ordering::Relaxed);
        self.show_alarms();
    }
}

fn compacts(entry: &LogEntry) -> bool {
    entry.requests.iter().any(|request| matches!(request.kind, Some(Kind::Compaction(_))))
}

fn before_applying(entry: &LogEntry) {
    let changes_members = entry.requests.iter().any(|request| matches!(request.kind, Some(Kind::MemberChange(_))));
    failpoints::hit(if changes_members { Point::BeforeApplyOneConfChange } else { Point::BeforeApplyOneEntryNormal });
    if compacts(entry) {
        failpoints::hit(Point::CompactBeforeCommitScheduledCompact);
    }
}

fn after_applying(entry: &LogEntry) {
    if compacts(entry) {
        failpoints::hit(Point::CompactAfterCommitScheduledCompact);
    }
}

#[cfg(test)]
#[path = "apply_thread_tests.rs"]
mod tests;
