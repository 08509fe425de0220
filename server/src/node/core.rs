//! The node as a state machine: input and time in, outputs out. It owns Raft and the queue of proposals; it appends
//! nothing, applies nothing and waits for nobody.
//!
//! Invariants:
//! * While an append is on its way no other is handed out: meanwhile proposals gather, and the next append is as large as
//!   the disk is slow, up to what one batch of the log takes ([`ROUND_BYTES_MAX`]).
//! * An entry is handed to apply only after it was persisted, here or by a quorum.
//! * A proposal is in exactly one entry or is given back.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use basalt_proto::log::{LogEntry, Request};
use basalt_proto::nesting::{NestingError, decode_log_entry};
use basalt_storage::mvcc::view::LogPosition;
use basalt_storage::wal::BATCH_BYTES_MAX;
use prost::Message;
use raft::prelude::{Entry, EntryType, HardState};
use raft::{Config, RawNode, StateRole};
use thiserror::Error;

use super::log_store::LogStore;
use crate::admission::{FairQueue, Proposal, Totals};
use crate::apply::known::{self, LOG_FORMAT_VERSION, NewerEntry};
use crate::apply::machine::APPLY_VERSION;

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

/// Who this node is and how it keeps time.
#[derive(Clone, Debug)]
pub struct CoreConfig {
    /// This member.
    pub member_id: u64,
    /// Time between heartbeats, which is a tick.
    pub heartbeat_interval: Duration,
    /// Time without a leader until an election.
    pub election_timeout: Duration,
    /// The last entry that the recovered store holds.
    pub applied: u64,
    /// Whether votes are asked for before an election (`--pre-vote`).
    pub pre_vote: bool,
    /// How many shards proposals are classed by.
    pub shards: usize,
}

/// What happens to the node.
#[derive(Debug)]
pub enum Input {
    /// Requests to be ordered, with the proposer's clock in ns since 1970.
    Propose {
        /// Classed and weighed; nothing is refused here any more.
        proposals: Vec<Proposal>,
        /// Clock of the proposer.
        time_unix_ns: i64,
    },
    /// The append of this number is durable, and with it all before.
    Persisted(u64),
    /// A heartbeat interval passed.
    Tick,
    /// Apply has come this far.
    Applied(u64),
}

/// What the node wants done.
#[derive(Debug)]
pub enum Output {
    /// Make this durable, then say [`Input::Persisted`]. One at a time.
    Append(Append),
    /// Apply these, in order.
    Apply(Vec<Committed>),
    /// Role or term changed.
    Role {
        /// Whether this node leads.
        leads: bool,
        /// Its term.
        term: u64,
    },
}

/// One write to the log.
#[derive(Debug)]
pub struct Append {
    /// For [`Input::Persisted`].
    pub number: u64,
    /// New entries; they replace those from the first's index on.
    pub entries: Vec<Entry>,
    /// Term, vote and commit, if they changed.
    pub hard_state: Option<HardState>,
}

/// An entry that everybody will apply.
#[derive(Debug)]
pub struct Committed {
    /// Where it stands.
    pub position: LogPosition,
    /// Its requests; `None` for an entry without any.
    pub entry: Option<LogEntry>,
}

/// Why the node cannot go on.
#[derive(Debug, Error)]
pub enum CoreError {
    /// The log holds what this release must not apply.
    #[error(transparent)]
    Newer(#[from] NewerEntry),
    /// The log holds what no release wrote.
    #[error("log entry {index} cannot be read: restore a snapshot")]
    Malformed {
        /// Where it stands.
        index: u64,
        /// What is wrong with it.
        #[source]
        cause: NestingError,
    },
    /// Raft refuses its state.
    #[error(transparent)]
    Raft(#[from] raft::Error),
}

/// The state machine.
pub struct Core {
    member_id: u64,
    raft: RawNode<LogStore>,
    queue: FairQueue,
    time_unix_ns: i64,
    /// Numbers of readies handed out and not persisted, and whether they wait for a disk.
    unpersisted: VecDeque<(u64, bool)>,
    /// Entries as they were before encoding, so that the proposer does not decode its own.
    proposed: BTreeMap<u64, LogEntry>,
    /// A newer one than the log has.
    unwritten: Option<HardState>,
    /// The last entry of the log after the first election.
    complete_at: u64,
    role: (bool, u64),
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
            applied: config.applied,
            max_size_per_msg: ENTRY_BYTES_MAX as u64,
            max_inflight_msgs: 256,
            check_quorum: true,
            pre_vote: config.pre_vote,
            ..Config::default()
        };
        let mut raft = RawNode::new(&raft_config, store, logger)?;
        raft.campaign()?;
        Ok(Self {
            member_id: config.member_id,
            complete_at: raft.raft.raft_log.last_index(),
            raft,
            queue: FairQueue::new(config.shards),
            time_unix_ns: 0,
            unpersisted: VecDeque::new(),
            proposed: BTreeMap::new(),
            unwritten: None,
            role: (false, 0),
        })
    }

    /// Takes one input; appends what follows from it to `outputs`.
    ///
    /// # Errors
    /// [`CoreError`]. The node cannot go on.
    pub fn step(&mut self, input: Input, outputs: &mut Vec<Output>) -> Result<(), CoreError> {
        match input {
            Input::Propose { proposals, time_unix_ns } => {
                proposals.into_iter().for_each(|proposal| self.queue.push(proposal));
                self.time_unix_ns = self.time_unix_ns.max(time_unix_ns);
            }
            Input::Persisted(number) => self.persisted(number),
            Input::Tick => drop(self.raft.tick()),
            Input::Applied(index) => {
                self.raft.advance_apply_to(index);
                // The only member: nobody will ask for what was applied.
                self.raft.mut_store().release(index);
            }
        }
        self.settle(outputs)
    }

    /// What follows from creation.
    ///
    /// # Errors
    /// As [`Self::step`].
    pub fn start(&mut self, outputs: &mut Vec<Output>) -> Result<(), CoreError> {
        self.settle(outputs)
    }

    /// Requests that wait for a disk or a leader.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// What left the queue, by class.
    pub fn left_queue(&self) -> impl Iterator<Item = Totals> {
        self.queue.left()
    }

    /// Drops requests that nobody ordered yet and that are not to be kept; returns how many.
    pub fn retain_queued(&mut self, keep: impl FnMut(&Request) -> bool) -> usize {
        self.queue.retain(keep)
    }

    /// Nobody is served before this entry is applied: every entry that was acknowledged in a former life lies below it.
    /// What the log knew as committed when it ended lies below that, perhaps far.
    pub fn complete_at(&self) -> u64 {
        self.complete_at
    }

    /// Whether this node leads.
    pub fn leads(&self) -> bool {
        self.raft.raft.state == StateRole::Leader
    }

    fn settle(&mut self, outputs: &mut Vec<Output>) -> Result<(), CoreError> {
        loop {
            while self.raft.has_ready() {
                self.take_ready(outputs)?;
            }
            if !self.unpersisted.is_empty() || !self.leads() || self.queue.is_empty() {
                break;
            }
            self.propose_round()?;
        }
        let role = (self.leads(), self.raft.raft.term);
        if role != self.role {
            self.role = role;
            outputs.push(Output::Role { leads: role.0, term: role.1 });
        }
        Ok(())
    }

    /// Packs what waits into the entries of one append.
    fn propose_round(&mut self) -> Result<(), CoreError> {
        let mut entry = self.empty_entry();
        let (mut entry_bytes, mut round_bytes) = (0, 0);
        // The first one goes whatever its size: nothing else is in its way.
        let mut room = usize::MAX;
        while let Some(Proposal { request, bytes, .. }) = self.queue.take(room) {
            if entry_bytes + bytes > ENTRY_BYTES_MAX && !entry.requests.is_empty() {
                self.propose(std::mem::replace(&mut entry, self.empty_entry()))?;
                entry_bytes = 0;
            }
            entry.requests.push(request);
            entry_bytes += bytes;
            round_bytes += bytes;
            room = ROUND_BYTES_MAX.saturating_sub(round_bytes);
        }
        self.propose(entry)
    }

    fn propose(&mut self, entry: LogEntry) -> Result<(), CoreError> {
        self.raft.propose(Vec::new(), entry.encode_to_vec())?;
        self.proposed.insert(self.raft.raft.raft_log.last_index(), entry);
        Ok(())
    }

    fn empty_entry(&self) -> LogEntry {
        LogEntry {
            format_version: LOG_FORMAT_VERSION,
            apply_version: APPLY_VERSION,
            proposer: self.member_id,
            time_unix_ns: self.time_unix_ns,
            requests: Vec::new(),
        }
    }

    fn take_ready(&mut self, outputs: &mut Vec<Output>) -> Result<(), CoreError> {
        let mut ready = self.raft.ready();
        let number = ready.number();
        let committed = ready.take_committed_entries();
        let entries = ready.take_entries();
        if let Some(hard_state) = ready.hs() {
            self.raft.mut_store().set_hard_state(hard_state.clone());
            self.unwritten = Some(hard_state.clone());
        }
        self.raft.mut_store().append(&entries);
        // A commit index alone is not worth a sync: it travels with the next append, and is found again without it.
        let writes = !entries.is_empty() || ready.must_sync();
        self.raft.advance_append_async(ready);
        self.hand_to_apply(committed, outputs)?;
        if writes {
            self.unpersisted.push_back((number, true));
            let hard_state = self.unwritten.take();
            outputs.push(Output::Append(Append { number, entries, hard_state }));
        } else {
            self.unpersisted.push_back((number, false));
            self.pass_persisted();
        }
        Ok(())
    }

    fn persisted(&mut self, number: u64) {
        for (waiting, needs_disk) in &mut self.unpersisted {
            *needs_disk = *needs_disk && *waiting > number;
        }
        self.pass_persisted();
    }

    /// Tells Raft of all readies that wait for no disk, in order.
    fn pass_persisted(&mut self) {
        while let Some((number, false)) = self.unpersisted.front() {
            self.raft.on_persist_ready(*number);
            self.unpersisted.pop_front();
        }
    }

    fn hand_to_apply(&mut self, entries: Vec<Entry>, outputs: &mut Vec<Output>) -> Result<(), CoreError> {
        let mut committed = Vec::with_capacity(entries.len());
        for entry in entries {
            let position = LogPosition { index: entry.index, term: entry.term };
            let proposed = self.proposed.remove(&entry.index);
            let entry = match entry.entry_type() {
                _ if entry.data.is_empty() => None,
                EntryType::EntryNormal => Some(match proposed {
                    Some(proposed) => proposed,
                    None => decode(&entry)?,
                }),
                EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => None,
            };
            committed.push(Committed { position, entry });
        }
        if !committed.is_empty() {
            outputs.push(Output::Apply(committed));
        }
        Ok(())
    }
}

/// An entry of another life or member, if this release may apply it.
fn decode(entry: &Entry) -> Result<LogEntry, CoreError> {
    let index = entry.index;
    let decoded = decode_log_entry(entry.data.clone().into()).map_err(|cause| CoreError::Malformed { index, cause })?;
    known::check(index, &decoded)?;
    Ok(decoded)
}

#[cfg(test)]
#[path = "core_tests.rs"]
mod tests;
