//! The node as a state machine: input and time in, outputs out. It owns Raft and the queue of proposals; it appends
//! nothing, applies nothing, sends nothing and waits for nobody.
//!
//! ```text
//!   Propose ─► FairQueue ─► rounds ─┬─ leader: entries ──► Append ─► Persisted ─┬─► Apply ─► Applied
//!                                   └─ else: forwarded ─► Send                  └─► Send (outbox: what may leave when)
//!   Read ─► reads: one question for all ─► Send ─► answer, Applied ─► ReadsReady
//!             └─ at the leader: confirmations: a quorum is asked once for the questions of all
//!   Message ─► message_check ─► Raft
//! ```
//!
//! Invariants:
//! * While an append is on its way a leader orders no further requests: meanwhile they gather, and the next append is as
//!   large as the disk is slow, up to what one batch of the log takes ([`ROUND_BYTES_MAX`]).
//! * An entry is handed to apply only after it was persisted here and by a quorum.
//! * A proposal becomes at most one entry of the log that all will have. One that is known to have become none is given back
//!   ([`Output::Lost`]).
//! * What a member says is checked before Raft sees it, and leaves only when what it promises is durable.
//! * Equal inputs give equal outputs: randomness comes from the seed alone.

mod confirmations;
mod farewell;
mod forwarded;
mod hand_over;
mod member_changes;
mod message_check;
mod outbox;
mod questions;
mod readies;
mod reads;
mod rounds;
mod slow_disk;
mod snapshots;
mod traffic;

use std::collections::{BTreeMap, VecDeque};

use basalt_proto::log::LogEntry;
use basalt_storage::mvcc::view::LogPosition;
use basalt_storage::planted::{Bug, is_planted};
use basalt_storage::wal::BATCH_BYTES_MAX;
use raft::prelude::{HardState, Message, MessageType};
use raft::{Config, RawNode};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

pub use self::message_check::BadMessage;
pub use self::traffic::{Append, Committed, CoreConfig, CoreError, Input, Leadership, Output};

pub use self::member_changes::{change_data, conf_change_of, context_of};

use self::confirmations::{Confirmations, Question};
use self::farewell::Farewell;
use self::forwarded::{Forwarded, Taken};
use self::member_changes::{Waiting, is_change_entry};
use self::outbox::Outbox;
use self::reads::Reads;
use self::rounds::is_leaders_own;
use self::slow_disk::SlowDisk;
use self::snapshots::{Snapshots, is_snapshot};
use super::log_store::LogStore;
use crate::admission::FairQueue;

/// Requests are packed into entries up to this many bytes, unless one request alone is larger (DESIGN 2).
const ENTRY_BYTES_MAX: usize = 1 << 20;

/// Requests are ordered up to this many bytes at a time, unless one request alone is larger: they become one append,
/// which the log takes as one batch. What is left waits for the sync of that.
pub const ROUND_BYTES_MAX: usize = 16 << 20;

/// Largest request that may be ordered.
pub const PROPOSAL_BYTES_MAX: usize = BATCH_BYTES_MAX - APPEND_OVERHEAD_BYTES;

/// What an append holds beside requests: the heads of entries, some tens of bytes for each of at most
/// `2 * ROUND_BYTES_MAX / ENTRY_BYTES_MAX + 1`, a hard state, and the head of the batch.
const APPEND_OVERHEAD_BYTES: usize = 64 << 10;

const _: () = assert!(ROUND_BYTES_MAX + APPEND_OVERHEAD_BYTES <= BATCH_BYTES_MAX, "a round fits a batch of the log");
const _: () = assert!(ENTRY_BYTES_MAX <= ROUND_BYTES_MAX, "a round holds an entry");
const _: () =
    assert!((2 * ROUND_BYTES_MAX / ENTRY_BYTES_MAX + 1) * 256 <= APPEND_OVERHEAD_BYTES, "heads of entries fit");

/// Ticks of a heartbeat, fixed; an election takes as many as the two intervals say.
const HEARTBEAT_TICKS: usize = 1;

/// Appends on their way to one member (DESIGN 4).
const INFLIGHT_MESSAGES_MAX: usize = 256;

/// Entries kept for members that lag behind, bytes.
const CATCHUP_BYTES_MAX: usize = 64 << 20;

/// The state machine.
pub struct Core {
    member_id: u64,
    raft: RawNode<LogStore>,
    queue: FairQueue,
    forwarded: Forwarded,
    taken: Taken,
    /// Number of the last round.
    round: u64,
    reads: Reads,
    confirmations: Confirmations,
    outbox: Outbox,
    time_unix_ns: i64,
    /// Numbers of readies handed out and not persisted, and whether they wait for a disk.
    unpersisted: VecDeque<(u64, bool)>,
    /// Entries by index as they were before encoding, with their term, so that whoever ordered them does not decode, and gets
    /// back what another leader threw away.
    proposed: BTreeMap<u64, (u64, LogEntry)>,
    /// A newer one than the log has.
    unwritten: Option<HardState>,
    /// The last entry of the log after the start.
    complete_at: u64,
    /// Of the last committed entry.
    committed_term: u64,
    catchup_entries: u64,
    /// The rules that requests ordered here are made for.
    apply_version: u32,
    snapshots: Snapshots,
    /// Changes of members that wait for the one before.
    changes: Waiting,
    /// Ticks for which all of them have been removals of this leader.
    own_removal_ticks: u32,
    /// The term in which another member was to lead since this one stops.
    stops_in_term: Option<u64>,
    leadership: Leadership,
    slow_disk: SlowDisk,
    farewell: Farewell,
    /// Of election timeouts.
    seed: u64,
}

impl Core {
    /// A node over its recovered log. A single voter leads at once.
    ///
    /// # Errors
    /// The `raft` crate's, for a configuration that cannot be.
    pub fn new(config: &CoreConfig, store: LogStore, logger: &slog::Logger) -> Result<Self, CoreError> {
        let ticks = config.election_timeout.as_micros() / config.heartbeat_interval.as_micros().max(1);
        let raft_config = Config {
            id: config.member_id,
            election_tick: usize::try_from(ticks).unwrap_or(usize::MAX).max(2),
            heartbeat_tick: HEARTBEAT_TICKS,
            applied: config.applied.saturating_sub(u64::from(is_planted(Bug::AppliedTwice))),
            max_size_per_msg: ENTRY_BYTES_MAX as u64,
            max_inflight_msgs: INFLIGHT_MESSAGES_MAX,
            check_quorum: true,
            pre_vote: config.pre_vote,
            ..Config::default()
        };
        let mut raft = RawNode::new(&raft_config, store, logger)?;
        if raft.raft.prs().is_singleton() && raft.raft.promotable() {
            raft.campaign()?;
        }
        let mut random = StdRng::seed_from_u64(config.seed);
        let mut core = Self {
            member_id: config.member_id,
            complete_at: raft.raft.raft_log.last_index(),
            raft,
            queue: FairQueue::new(config.shards),
            forwarded: Forwarded::default(),
            taken: Taken::default(),
            round: u64::from(random.random::<u32>()) << 32,
            reads: Reads::new(random.random(), config.applied),
            confirmations: Confirmations::new(random.random()),
            outbox: Outbox::default(),
            seed: config.seed,
            time_unix_ns: 0,
            unpersisted: VecDeque::new(),
            proposed: BTreeMap::new(),
            unwritten: None,
            committed_term: 0,
            catchup_entries: config.catchup_entries,
            apply_version: config.apply_version,
            snapshots: Snapshots::default(),
            changes: Waiting::default(),
            own_removal_ticks: 0,
            stops_in_term: None,
            leadership: Leadership::default(),
            slow_disk: SlowDisk::default(),
            farewell: Farewell::default(),
        };
        core.draw_election_timeout();
        Ok(core)
    }

    /// Takes one input; appends what follows from it to `outputs`.
    ///
    /// # Errors
    /// [`CoreError`]. The node cannot go on.
    pub fn step(&mut self, input: Input, outputs: &mut Vec<Output>) -> Result<(), CoreError> {
        match input {
            Input::Propose { proposals, time_unix_ns } => {
                let has_own = proposals.iter().any(|proposal| is_leaders_own(&proposal.request));
                proposals.into_iter().for_each(|proposal| self.queue.push(proposal));
                if has_own && !self.leads() {
                    self.drop_leaders_own();
                }
                self.time_unix_ns = self.time_unix_ns.max(time_unix_ns);
            }
            Input::Persisted(number) => {
                let raft = &self.raft.raft;
                self.slow_disk.ended(number, raft.raft_log.committed, raft.election_timeout() as u64);
                self.persisted(number);
                self.snapshot_persisted(number);
            }
            Input::Tick => self.tick(outputs),
            Input::Applied(index) => self.applied(index),
            Input::Message(message) => self.receive(*message, outputs)?,
            Input::Received(message) => self.received(*message, outputs)?,
            Input::Installed => self.installed(outputs),
            Input::ApplyVersion(version) => self.apply_version = version,
            Input::ConfChange(change) => self.conf_changed(&change, outputs)?,
            Input::SnapshotOffer { to, snapshot } => self.offer_snapshot(to, *snapshot),
            Input::SnapshotSent { to, arrived } => self.snapshot_sent(to, arrived),
            Input::Reads(reads) if is_planted(Bug::ReadWithoutQuorum) => outputs.push(Output::ReadsReady(reads)),
            Input::Reads(reads) => reads.into_iter().for_each(|read| self.reads.add(read)),
            Input::Told { by } => self.told(by, outputs),
            Input::Unreachable(member) => self.unreachable(member),
            Input::HandOver => self.hand_over_for_good(),
            Input::AdvanceElection => self.advance_election(),
            Input::Transfer(member) => {
                if self.leads() {
                    self.raft.transfer_leader(member);
                }
            }
        }
        self.settle(outputs)
    }

    /// As if all of an election timeout but two ticks had passed (etcd `adjustTicks`): a start that can reach the others needs no
    /// more to hear of a leader, if there is one. Who knows a leader waits for him as ever.
    fn advance_election(&mut self) {
        let raft = &mut self.raft.raft;
        if raft.leader_id == raft::INVALID_ID {
            raft.election_elapsed += raft.election_timeout().saturating_sub(2);
        }
    }

    /// A leader whose disk is slower than those of the others lets one of them lead.
    fn mind_the_disk(&mut self, outputs: &mut Vec<Output>) {
        let raft = &self.raft.raft;
        let (committed, ticks) = (raft.raft_log.committed, raft.election_timeout() as u64);
        if self.slow_disk.tick(committed, ticks)
            && self.can_order()
            && let Some(to) = self.hand_over()
        {
            outputs.push(Output::DiskTooSlow { to });
        }
    }

    /// What follows from creation.
    ///
    /// # Errors
    /// As [`Self::step`].
    pub fn start(&mut self, outputs: &mut Vec<Output>) -> Result<(), CoreError> {
        self.settle(outputs)
    }

    fn tick(&mut self, outputs: &mut Vec<Output>) {
        self.mind_the_disk(outputs);
        // A single voter would lead at once, which the crate allows only with nothing on its way to the disk.
        let held_up = self.is_single_voter() && !self.leads() && !self.unpersisted.is_empty();
        if !held_up && !self.is_installing() && !self.would_campaign_after_farewell() {
            self.raft.tick();
        }
        self.forwarded.tick();
        self.tick_farewell(outputs);
        self.tick_own_removal();
        self.tend_snapshots();
        if let Some(context) = self.reads.tick() {
            self.ask_leader(context);
        }
        if let Some(context) = self.confirmations.tick()
            && self.leads()
        {
            self.raft.read_index(context);
        }
    }

    fn applied(&mut self, index: u64) {
        self.raft.advance_apply_to(index);
        self.reads.applied(index);
        let kept = if self.raft.raft.prs().iter().count() > 1 { self.catchup_entries } else { 0 };
        let pinned = self.pinned();
        let bytes_max = if pinned < index { usize::MAX } else { CATCHUP_BYTES_MAX };
        self.raft.mut_store().release(index.min(pinned), kept.saturating_sub(index.saturating_sub(pinned)), bytes_max);
    }

    fn receive(&mut self, message: Message, outputs: &mut Vec<Output>) -> Result<(), CoreError> {
        let proposed = match message_check::check(&self.raft, &message) {
            Ok(proposed) => proposed,
            Err(cause) => {
                outputs.push(Output::Refused { from: message.from, cause });
                return Ok(());
            }
        };
        // The crate would hand these on to whom it takes for the leader, in the name of the first sender, perhaps back to
        // him. He asks again, by himself.
        let is_for_leader =
            matches!(message.get_msg_type(), MessageType::MsgReadIndex | MessageType::MsgTransferLeader);
        // Who has no state to go on from does not lead.
        let is_untimely = message.get_msg_type() == MessageType::MsgTimeoutNow && self.is_installing();
        if is_for_leader && !self.leads() || is_untimely {
            return Ok(());
        }
        if message.get_msg_type() == MessageType::MsgReadIndex {
            let context = message.entries.into_iter().next().map(|entry| entry.data).unwrap_or_default();
            self.confirmations.add(Question { from: message.from, context });
            return Ok(());
        }
        if message.get_msg_type() == MessageType::MsgPropose {
            // Meant for another leader, or heard before.
            let is_of_term = message.commit_term == self.raft.raft.term || is_planted(Bug::RoundOfAnyTerm);
            let is_for_now = self.can_order() && is_of_term;
            if !is_for_now || !proposed.iter().all(|entry| self.taken.take(entry.proposer, entry.round)) {
                return Ok(());
            }
            if proposed.iter().any(is_change_entry) {
                proposed.into_iter().for_each(|entry| self.enqueue_change(entry));
                return Ok(());
            }
        }
        if message.get_msg_type() == MessageType::MsgRequestVote && message.term < self.raft.raft.term {
            self.refuse_late_vote(message.from);
            return Ok(());
        }
        let behind = self.raft.raft.raft_log.last_index();
        match self.raft.step(message) {
            // A member that is none any more, or not yet.
            Err(raft::Error::StepPeerNotFound) => return Ok(()),
            other => other?,
        }
        let term = self.raft.raft.term;
        for (index, entry) in (behind + 1..).zip(proposed) {
            self.remember(LogPosition { index, term }, entry);
        }
        Ok(())
    }

    /// Says to a candidate of an earlier term which one it is, as the paper on Raft has it. The crate is silent, and where
    /// elections come without asking before ([`CoreConfig::pre_vote`]), a candidate whom this member does not know as a voter yet
    /// hears of a later term from nobody: both would campaign for ever, each by a term of its own.
    fn refuse_late_vote(&mut self, candidate: u64) {
        let term = self.raft.raft.term;
        let mut answer = Message { from: self.member_id, to: candidate, term, reject: true, ..Message::default() };
        answer.set_msg_type(MessageType::MsgRequestVoteResponse);
        self.outbox.add(answer);
    }

    /// Whether requests become entries here.
    fn can_order(&self) -> bool {
        let raft = &self.raft.raft;
        self.leads() && raft.lead_transferee.is_none() && raft.prs().get(self.member_id).is_some()
    }

    fn leader(&self) -> u64 {
        self.raft.raft.leader_id
    }

    fn settle(&mut self, outputs: &mut Vec<Output>) -> Result<(), CoreError> {
        loop {
            self.draw_election_timeout();
            self.follow_leader(outputs);
            self.ask_for_reads();
            while self.raft.has_ready() {
                self.take_ready(outputs)?;
            }
            self.propose_change()?;
            if self.takes_round() {
                self.propose_round()?;
            } else if !self.raft.has_ready() && !self.asks_for_reads() {
                break;
            }
        }
        self.end_received(outputs);
        self.want_snapshots(outputs);
        let (snapshots, messages): (Vec<_>, Vec<_>) = self.outbox.leave().into_iter().partition(is_snapshot);
        outputs.extend(snapshots.into_iter().map(|message| Output::SendSnapshot(Box::new(message))));
        if !messages.is_empty() {
            outputs.push(Output::Send(messages));
        }
        let ready = self.reads.ready();
        if !ready.is_empty() {
            outputs.push(Output::ReadsReady(ready));
        }
        Ok(())
    }

    /// Whether what waits may be ordered, or go to who orders it.
    fn takes_round(&self) -> bool {
        if self.queue.is_empty() {
            return false;
        }
        if self.leads() {
            return self.can_order() && self.unpersisted.is_empty();
        }
        self.leader() != raft::INVALID_ID && self.forwarded.has_room()
    }

    /// The crate draws election timeouts from a source that no seed repeats (`faults.md`, trap 1), in places that cannot be
    /// seen from here. So what is drawn here follows from seed, term and role alone, and is set again after every step.
    fn draw_election_timeout(&mut self) {
        let raft = &mut self.raft.raft;
        let ticks = raft.election_timeout();
        let drawn = mixed(mixed(self.seed ^ raft.term) ^ raft.state as u64) as usize % ticks;
        raft.set_randomized_election_timeout(if self.farewell.has_begun() { 2 * ticks - 1 } else { ticks + drawn });
    }

    fn follow_leader(&mut self, outputs: &mut Vec<Output>) {
        let (leads, leader) = (self.leads(), self.leader());
        let leadership = Leadership { leads, term: self.raft.raft.term, leader };
        if leadership == self.leadership {
            return;
        }
        if leader != self.leadership.leader {
            if is_planted(Bug::RoundGivenBackEarly) {
                let requests: Vec<_> =
                    self.forwarded.lost(u64::MAX).into_iter().flat_map(|entry| entry.requests).collect();
                outputs.push(Output::Lost(requests));
            }
            let failed = self.reads.leader_changed();
            if !failed.is_empty() {
                outputs.push(Output::ReadsFailed(failed));
            }
        }
        if !leads || leadership.term != self.leadership.term {
            self.confirmations.forget();
        }
        if leadership.term != self.leadership.term {
            self.taken.forget();
            self.slow_disk.forget();
        }
        if self.leadership.leads && !leads {
            self.drop_leaders_own();
            self.drop_changes(outputs);
        }
        self.leadership = leadership;
        outputs.push(Output::Role(leadership));
    }
}

/// A number that looks like chance, for each number (the finalizer of SplitMix64, Steele and others 2014).
fn mixed(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests;
