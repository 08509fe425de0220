//! The apply thread: entries into the machine; Views, answers and events out; checkpoints and compaction in between.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use basalt_proto::etcdserverpb::AlarmRequest;
use basalt_proto::etcdserverpb::alarm_request::AlarmAction;
use basalt_proto::log::Request;
use basalt_proto::log::request::Kind;
use basalt_storage::hashes::{HashKvCache, HashKvJob, HashPurpose};
use basalt_storage::job::{BUDGET_UNLIMITED, run};
use basalt_storage::mvcc::key_value::KeyValue;
use basalt_storage::mvcc::range::Hit;
use basalt_storage::mvcc::store::Frozen;
use basalt_storage::mvcc::transaction::{Change, ChangeKind};
use basalt_storage::mvcc::view::{Checkpointed, View};
use bytes::Bytes;
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::apply_counts::ApplyCounts;
use super::core::Committed;
use super::fatal;
use super::handle::{ApplyRequest, Completed, Fetched, Gauges, Waiters, unix_time_ns};
use super::node_thread::{ID_NOBODY, NodeInput};
use super::readers::Readers;
use super::watch_thread::look_before_transactions;
use crate::apply::alarms::AlarmKind;
use crate::apply::answer::Answer;
use crate::apply::effects::Effect;
use crate::apply::machine::Machine;
use crate::apply::values::{Prefetched, Values};
use crate::lease::LeaseClock;
use crate::metrics::Metrics;
use crate::watch;

/// A checkpoint starts when the deltas hold so much, or so many revisions, or after so long (DESIGN 3.5).
const CHECKPOINT_BYTES: usize = 256 << 20;
const CHECKPOINT_ENTRIES: usize = 200_000;
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(5);
/// After a checkpoint found the disk full.
const CHECKPOINT_RETRY: Duration = Duration::from_secs(5);

/// Keys that an index leaf holds at most, about: what turns a number of keys into one of leaves.
const LEAF_KEYS: usize = 64;

/// What reaches the apply thread.
pub enum ApplyInput {
    /// Entries to apply, in order.
    Committed(Vec<Committed>),
    /// From the API.
    Request(ApplyRequest),
    /// A checkpoint ended.
    Checkpointed(CheckpointEnd),
    /// A checkpoint found the disk full.
    CheckpointRefused(Box<Frozen>),
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
}

/// Where apply's results go.
pub struct ApplyLinks {
    /// This member, for alarms.
    pub member_id: u64,
    /// The node thread.
    pub node: Sender<NodeInput>,
    /// The checkpoint thread.
    pub checkpoint: Sender<Frozen>,
    /// The watch thread.
    pub watches: Sender<watch::Input>,
    /// The newest View.
    pub view: Arc<ArcSwap<View>>,
    /// Callers.
    pub waiters: Arc<Waiters>,
    /// Lease ends.
    pub leases: Arc<Mutex<LeaseClock>>,
    /// Figures.
    pub gauges: Arc<Gauges>,
    /// Page reads.
    pub readers: Readers,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Hashes that compactions leave.
    pub hash_cache: Arc<Mutex<HashKvCache>>,
    /// The beginning of the node's clock.
    pub started: Instant,
    /// Pause between two steps of a compaction (`--compaction-sleep-interval`).
    pub sweep_pause: Duration,
    /// Keys visited in one step, about (`--compaction-batch-limit`).
    pub sweep_keys: usize,
    /// An entry that takes longer is logged (`--warning-apply-duration`).
    pub slow_apply: Duration,
}

/// The thread's state.
pub struct ApplyThread {
    machine: Machine,
    links: ApplyLinks,
    counts: ApplyCounts,
    checkpoint_running: bool,
    checkpoint_due: Instant,
    checkpoint_waiters: Vec<oneshot::Sender<()>>,
    compaction_waiters: Vec<oneshot::Sender<()>>,
    /// Whether anything happened since the last freeze that a checkpoint would keep.
    dirty: bool,
    /// Bytes of page files and of live revisions in them, from the last checkpoint.
    file_bytes: u64,
    live_bytes: u64,
}

impl ApplyThread {
    /// A thread over a recovered machine.
    pub fn new(machine: Machine, links: ApplyLinks, file_bytes: u64, live_bytes: u64) -> Self {
        let checkpoint_due = Instant::now() + CHECKPOINT_INTERVAL;
        Self {
            machine,
            counts: ApplyCounts::new(links.metrics.clone(), links.slow_apply),
            links,
            checkpoint_running: false,
            checkpoint_due,
            checkpoint_waiters: Vec::new(),
            compaction_waiters: Vec::new(),
            dirty: false,
            file_bytes,
            live_bytes,
        }
    }

    /// Works until told to stop or until nobody is left to send; then writes a last checkpoint.
    pub fn run(mut self, inbox: &Receiver<ApplyInput>) {
        self.show_sizes();
        let mut backlog = VecDeque::new();
        while let Some(input) = self.next(inbox, &mut backlog) {
            match input {
                ApplyInput::Committed(committed) => self.apply(committed),
                ApplyInput::Request(request) => self.serve(request),
                ApplyInput::Checkpointed(checkpoint) => self.checkpointed(checkpoint),
                ApplyInput::CheckpointRefused(frozen) => self.checkpoint_refused(*frozen),
                ApplyInput::Stop => break,
            }
            self.checkpoint_if_due();
        }
        self.last_checkpoint(inbox);
    }

    /// The next input. Meanwhile compaction goes on, a step at a time, and checkpoints start.
    fn next(&mut self, inbox: &Receiver<ApplyInput>, backlog: &mut VecDeque<ApplyInput>) -> Option<ApplyInput> {
        loop {
            if let Some(input) = backlog.pop_front() {
                return Some(input);
            }
            let sweeping = self.machine.store().is_sweeping();
            let pause = if sweeping { self.links.sweep_pause } else { CHECKPOINT_INTERVAL / 10 };
            match inbox.recv_timeout(pause) {
                Ok(input) => backlog.push_back(input),
                Err(RecvTimeoutError::Timeout) => {
                    if sweeping {
                        self.sweep();
                    }
                    self.checkpoint_if_due();
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

    fn apply(&mut self, committed: Vec<Committed>) {
        let Some(last) = committed.last().map(|entry| entry.position) else { return };
        let mut answers = Vec::new();
        let mut effects = Vec::new();
        let store = self.machine.store();
        let compacted = Compacted { revision: store.compact_revision(), finished: !store.is_sweeping() };
        for Committed { position, entry } in committed {
            match entry {
                None => self.machine.apply_empty(position),
                Some(entry) => {
                    let started = Instant::now();
                    let mut values = self.prefetch(self.machine.needed_values(&entry));
                    let applied = self.machine.apply(position, &entry, &mut values);
                    let leads = self.links.gauges.leads.load(Ordering::Relaxed);
                    self.counts.entry(&entry, &applied, started.elapsed(), leads);
                    answers.extend(applied.answers);
                    effects.extend(applied.effects.effects);
                }
            }
        }
        self.dirty = true;
        let view = self.publish();
        // Before the answers: a granted lease can be renewed, and a watch made after a put does not see it as new.
        self.follow(&effects, &view, compacted);
        self.answer(answers, &view);
        self.links.gauges.applied_index.store(last.index, Ordering::Relaxed);
        // The node thread is gone only when the process is about to be.
        drop(self.links.node.send(NodeInput::Applied(last.index)));
        if self.machine.store().is_sweeping() {
            self.sweep();
        }
        self.show_sizes();
    }

    /// Values that decisions need and no memory holds: read in one go, off this thread, before the entry is applied.
    fn prefetch(&self, hits: Vec<Hit>) -> StoredValues {
        let view = Arc::new(self.machine.store().head());
        let mut prefetched = Prefetched::default();
        if !hits.is_empty() {
            for (hit, value) in hits.iter().zip(self.fetch_now(&view, hits.clone())) {
                prefetched.insert(*hit, value);
            }
        }
        let (readers, metrics) = (self.links.readers.clone(), self.links.metrics.clone());
        StoredValues { view, prefetched, readers, metrics }
    }

    fn fetch_now(&self, view: &Arc<View>, hits: Vec<Hit>) -> Vec<Bytes> {
        fetch_blocking(&self.links.readers, view, hits)
    }

    fn publish(&self) -> Arc<View> {
        let view = Arc::new(self.machine.store().head());
        self.links.view.store(view.clone());
        view
    }

    fn answer(&self, answers: Vec<(u64, Result<Answer, crate::apply::answer::Refusal>)>, view: &Arc<View>) {
        let waiting = self.links.waiters.take(answers.iter().map(|(id, _)| *id));
        for ((_, answer), waiter) in answers.into_iter().zip(waiting) {
            // A caller that gave up has dropped its end; a request of another member has none here.
            if let Some(waiter) = waiter {
                drop(waiter.send(answer.map(|answer| Completed { answer, view: view.clone() })));
            }
        }
    }

    /// Hands effects to those who drink from them.
    fn follow(&self, effects: &[Effect], view: &Arc<View>, mut compacted: Compacted) {
        let mut events = Vec::new();
        for effect in effects {
            match effect {
                Effect::Key(change) => events.push(event(change)),
                Effect::Compaction { revision } => {
                    self.send_events(&mut events, 0);
                    drop(self.links.watches.send(watch::Input::Compacted(*revision)));
                    self.hash_compaction(view, *revision, compacted);
                    compacted = Compacted { revision: *revision, finished: false };
                }
                other => self.follow_lease_or_alarm(other),
            }
        }
        self.send_events(&mut events, view.revision);
    }

    /// A compaction leaves its own hash, by the revision compacted before; not while that one is unfinished
    /// (etcd-contract 52). Nothing of it is swept yet: the View has all that the hash covers.
    fn hash_compaction(&self, view: &Arc<View>, revision: i64, before: Compacted) {
        if !before.finished {
            return;
        }
        let mut job = HashKvJob::new(view.clone(), revision, before.revision, HashPurpose::Compaction);
        let cache = self.links.hash_cache.clone();
        drop(self.links.readers.submit(move |disk| {
            let hash = run(&mut job, disk, BUDGET_UNLIMITED)
                .unwrap_or_else(|cause| fatal::stop("hashing what a compaction covers", &cause));
            cache.lock().expect("no one panics while holding the cache").store(hash);
            Ok(())
        }));
    }

    /// `revision` is the store's after these events, if nothing of the batch comes behind them.
    fn send_events(&self, events: &mut Vec<watch::Event>, revision: i64) {
        if let Some(last) = events.last() {
            let revision = revision.max(last.revision.main);
            let mut events = std::mem::take(events);
            look_before_transactions(&mut events);
            drop(self.links.watches.send(watch::Input::Applied { revision, events }));
        }
    }

    fn follow_lease_or_alarm(&self, effect: &Effect) {
        let now = self.links.started.elapsed();
        let clock = || self.links.leases.lock().expect("no one panics while holding the lease clock");
        match effect {
            Effect::LeaseGranted { id, ttl } => clock().grant(*id, *ttl, now),
            Effect::LeaseRevoked { id } => clock().forget(*id),
            Effect::LeaseCheckpointed { id, remaining_ttl } => clock().checkpointed(*id, *remaining_ttl),
            Effect::AlarmRaised(alarm) => {
                warn!(alarm = alarm.kind.name(), member_id = format_args!("{:x}", alarm.member_id), "alarm raised");
                self.show_alarms();
            }
            Effect::AlarmCleared(alarm) => {
                info!(alarm = alarm.kind.name(), member_id = format_args!("{:x}", alarm.member_id), "alarm disarmed");
                self.show_alarms();
            }
            Effect::Key(_) | Effect::Compaction { .. } => {}
        }
    }

    fn show_alarms(&self) {
        let alarms = self.machine.alarms();
        self.links.gauges.no_space.store(alarms.any(AlarmKind::NoSpace), Ordering::Relaxed);
        self.links.gauges.corrupt.store(alarms.any(AlarmKind::Corrupt), Ordering::Relaxed);
    }

    fn serve(&mut self, request: ApplyRequest) {
        match request {
            ApplyRequest::Ask(question) => question(&mut self.machine),
            ApplyRequest::Checkpoint(done) => {
                self.checkpoint_waiters.push(done);
                self.checkpoint_due = Instant::now();
            }
            ApplyRequest::Compacted(done) => {
                if self.machine.store().is_sweeping() {
                    self.compaction_waiters.push(done);
                } else {
                    _ = done.send(());
                }
            }
        }
    }

    fn sweep(&mut self) {
        self.machine.store_mut().sweep((self.links.sweep_keys / LEAF_KEYS).max(1));
        if !self.machine.store().is_sweeping() {
            self.dirty = true;
            self.links.metrics.compaction_last.set(unix_time_ns() / 1_000_000_000);
            info!(revision = self.machine.store().compact_revision(), "finished scheduled compaction");
            self.compaction_waiters.drain(..).for_each(|waiter| _ = waiter.send(()));
        }
    }

    fn checkpoint_if_due(&mut self) {
        if self.checkpoint_running {
            return;
        }
        let store = self.machine.store();
        let due = Instant::now() >= self.checkpoint_due;
        let full = store.delta_bytes() >= CHECKPOINT_BYTES || store.delta_entries() >= CHECKPOINT_ENTRIES;
        if !(full || due) {
            return;
        }
        self.checkpoint_due = Instant::now() + CHECKPOINT_INTERVAL;
        if !self.dirty {
            self.checkpoint_waiters.drain(..).for_each(|waiter| _ = waiter.send(()));
            return;
        }
        self.freeze();
    }

    fn freeze(&mut self) {
        self.dirty = false;
        self.checkpoint_running = true;
        let frozen = self.machine.store_mut().freeze();
        self.publish();
        drop(self.links.checkpoint.send(frozen));
    }

    fn checkpointed(&mut self, end: CheckpointEnd) {
        self.checkpoint_running = false;
        self.file_bytes = end.file_bytes;
        self.live_bytes = end.live_bytes;
        self.machine.store_mut().checkpointed(end.checkpointed);
        self.publish();
        self.show_sizes();
        drop(self.links.node.send(NodeInput::Release(end.applied_index)));
        // One who asked after the freeze waits for the next checkpoint.
        if !self.dirty {
            self.checkpoint_waiters.drain(..).for_each(|waiter| _ = waiter.send(()));
        }
    }

    fn checkpoint_refused(&mut self, frozen: Frozen) {
        self.checkpoint_running = false;
        self.dirty = true;
        self.machine.store_mut().checkpoint_failed(frozen);
        self.publish();
        self.checkpoint_due = Instant::now() + CHECKPOINT_RETRY;
        // The disk is full: writes that grow the store are refused until somebody made room and disarmed the alarm.
        let alarm = Kind::Alarm(AlarmRequest {
            action: AlarmAction::Activate as i32,
            member_id: self.links.member_id,
            alarm: AlarmKind::NoSpace.number(),
        });
        let request = Request { id: ID_NOBODY, principal: None, kind: Some(alarm) };
        drop(self.links.node.send(NodeInput::Propose(request)));
    }

    fn show_sizes(&self) {
        let delta = self.machine.store().uncheckpointed_bytes() as u64;
        self.links.gauges.delta_bytes.store(delta, Ordering::Relaxed);
        self.links.gauges.db_size.store(self.file_bytes + delta, Ordering::Relaxed);
        self.links.gauges.db_size_in_use.store(self.live_bytes + delta, Ordering::Relaxed);
        self.show_alarms();
    }

    /// So that the next start has nothing to replay. Not needed for safety: the log has everything.
    fn last_checkpoint(mut self, inbox: &Receiver<ApplyInput>) {
        while self.checkpoint_running || self.dirty {
            if !self.checkpoint_running {
                self.freeze();
            }
            match inbox.recv_timeout(CHECKPOINT_INTERVAL * 4) {
                Ok(ApplyInput::Checkpointed(checkpoint)) => self.checkpointed(checkpoint),
                Ok(ApplyInput::CheckpointRefused(_)) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }
}

/// What was compacted before an entry.
#[derive(Clone, Copy)]
struct Compacted {
    revision: i64,
    finished: bool,
}

/// Apply's source of values: fetched ahead, else read now and counted.
struct StoredValues {
    view: Arc<View>,
    prefetched: Prefetched,
    readers: Readers,
    metrics: Arc<Metrics>,
}

impl Values for StoredValues {
    fn value(&mut self, hit: Hit) -> Bytes {
        if let Some(value) = self.prefetched.get(hit) {
            return value.clone();
        }
        self.metrics.apply_disk_waits_total.inc();
        let values = fetch_blocking(&self.readers, &self.view, vec![hit]);
        values.into_iter().next().expect("one value for one hit")
    }
}

/// Damage under apply stops the node: a guess here would make members differ.
fn fetch_blocking(readers: &Readers, view: &Arc<View>, hits: Vec<Hit>) -> Vec<Bytes> {
    let fetched = match readers.fetch(view.clone(), hits) {
        Fetched::Ready(values) => Ok(values),
        Fetched::Pending(receiver) => receiver.blocking_recv().unwrap_or(Err(super::handle::Unavailable::Stopped)),
    };
    fetched.unwrap_or_else(|cause| fatal::stop("reading a value that apply needs", &cause))
}

/// A change as watchers see it. A delete shows key and revision only (etcd-contract 20); what a create replaces, a
/// tombstone perhaps, is nobody's previous value.
fn event(change: &Change) -> watch::Event {
    let (kind, key_value, previous) = match &change.kind {
        ChangeKind::Put { key_value, create_revision, .. } => {
            let replaces = *create_revision != change.revision.main;
            (watch::EventKind::Put, key_value.clone(), change.previous.filter(|_| replaces))
        }
        ChangeKind::Delete => {
            let shown = KeyValue { key: &change.key, mod_revision: change.revision.main, ..KeyValue::default() };
            (watch::EventKind::Delete, shown.encode(), change.previous)
        }
    };
    watch::Event { revision: change.revision, shard: change.shard, key: change.key.clone(), kind, key_value, previous }
}
