//! The node as a state machine: input and time in, outputs out. It owns Raft and the queue of proposals; it appends
//! nothing, applies nothing and waits for nobody.
//!
//! Invariants:
//! * While an append is on its way no other is handed out: meanwhile proposals gather, and the next batch is as large as
//!   the disk is slow.
//! * An entry is handed to apply only after it was persisted, here or by a quorum.
//! * A proposal is in exactly one entry or is given back.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use basalt_proto::log::{LogEntry, Request};
use basalt_proto::nesting::decode_log_entry;
use basalt_storage::mvcc::view::LogPosition;
use basalt_storage::wal::BATCH_BYTES_MAX;
use prost::Message;
use raft::prelude::{Entry, EntryType, HardState};
use raft::{Config, RawNode, StateRole};

use super::log_store::LogStore;
use crate::apply::machine::APPLY_VERSION;

/// Version of the entry's form.
pub const LOG_FORMAT_VERSION: u32 = 1;

/// Requests are packed into entries up to this many bytes, unless one request alone is larger (DESIGN 2).
const ENTRY_BYTES_MAX: usize = 1 << 20;

/// An append takes no further entry when it holds so much: it must fit into one batch of the log, with a last entry
/// that may be as large as a request (`--max-request-bytes`).
const APPEND_BYTES_FULL: usize = 32 << 20;
const _: () = assert!(APPEND_BYTES_FULL <= BATCH_BYTES_MAX / 2);

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
}

/// What happens to the node.
#[derive(Debug)]
pub enum Input {
    /// Requests to be ordered, with the proposer's clock in ns since 1970.
    Propose {
        /// Checked and with ids of their own.
        requests: Vec<Request>,
        /// Clock of the proposer.
        time_unix_ns: i64,
    },
    /// The append of this number is durable, and with it all before.
    Persisted(u64),
    /// A heartbeat interval passed.
    Tick,
    /// Apply has come this far.
    Applied(u64),
    /// Entries up to here are in a durable checkpoint and no longer needed.
    Release(u64),
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

/// The state machine.
pub struct Core {
    member_id: u64,
    raft: RawNode<LogStore>,
    queue: VecDeque<Request>,
    time_unix_ns: i64,
    /// Numbers of readies handed out and not persisted, and whether they wait for a disk.
    unpersisted: VecDeque<(u64, bool)>,
    /// Entries as they were before encoding, so that the proposer does not decode its own.
    proposed: BTreeMap<u64, LogEntry>,
    role: (bool, u64),
}

impl Core {
    /// A node over its recovered log. A single voter leads at once.
    ///
    /// # Errors
    /// The `raft` crate's, for a configuration that cannot be.
    pub fn new(config: &CoreConfig, store: LogStore, logger: &slog::Logger) -> raft::Result<Self> {
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
            raft,
            queue: VecDeque::new(),
            time_unix_ns: 0,
            unpersisted: VecDeque::new(),
            proposed: BTreeMap::new(),
            role: (false, 0),
        })
    }

    /// Takes one input; appends what follows from it to `outputs`.
    ///
    /// # Errors
    /// The `raft` crate's. The node cannot go on.
    pub fn step(&mut self, input: Input, outputs: &mut Vec<Output>) -> raft::Result<()> {
        match input {
            Input::Propose { requests, time_unix_ns } => {
                self.queue.extend(requests);
                self.time_unix_ns = self.time_unix_ns.max(time_unix_ns);
            }
            Input::Persisted(number) => self.persisted(number),
            Input::Tick => drop(self.raft.tick()),
            Input::Applied(index) => self.raft.advance_apply_to(index),
            Input::Release(index) => self.raft.mut_store().release(index),
        }
        self.settle(outputs)
    }

    /// What follows from creation.
    ///
    /// # Errors
    /// As [`Self::step`].
    pub fn start(&mut self, outputs: &mut Vec<Output>) -> raft::Result<()> {
        self.settle(outputs)
    }

    /// Requests that wait for a disk or a leader.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Whether this node leads.
    pub fn leads(&self) -> bool {
        self.raft.raft.state == StateRole::Leader
    }

    fn settle(&mut self, outputs: &mut Vec<Output>) -> raft::Result<()> {
        loop {
            while self.raft.has_ready() {
                self.take_ready(outputs)?;
            }
            if !self.unpersisted.is_empty() || !self.leads() || self.queue.is_empty() {
                break;
            }
            self.propose_queue()?;
        }
        let role = (self.leads(), self.raft.raft.term);
        if role != self.role {
            self.role = role;
            outputs.push(Output::Role { leads: role.0, term: role.1 });
        }
        Ok(())
    }

    /// Packs the queue into entries, as many as an append may hold; the rest goes into the next one.
    fn propose_queue(&mut self) -> raft::Result<()> {
        let mut append_bytes = 0;
        while !self.queue.is_empty() && append_bytes < APPEND_BYTES_FULL {
            let mut entry = LogEntry {
                format_version: LOG_FORMAT_VERSION,
                apply_version: APPLY_VERSION,
                proposer: self.member_id,
                time_unix_ns: self.time_unix_ns,
                requests: Vec::new(),
            };
            let mut bytes = 0;
            while let Some(request) = self.queue.front() {
                bytes += request.encoded_len();
                if bytes > ENTRY_BYTES_MAX && !entry.requests.is_empty() {
                    break;
                }
                entry.requests.extend(self.queue.pop_front());
            }
            let data = entry.encode_to_vec();
            append_bytes += data.len();
            self.raft.propose(Vec::new(), data)?;
            self.proposed.insert(self.raft.raft.raft_log.last_index(), entry);
        }
        Ok(())
    }

    fn take_ready(&mut self, outputs: &mut Vec<Output>) -> raft::Result<()> {
        let mut ready = self.raft.ready();
        let number = ready.number();
        let committed = ready.take_committed_entries();
        let entries = ready.take_entries();
        let hard_state = ready.hs().cloned();
        if let Some(hard_state) = &hard_state {
            self.raft.mut_store().set_hard_state(hard_state.clone());
        }
        self.raft.mut_store().append(&entries);
        // A commit index alone is not worth a sync: it travels with the next batch, and is found again without it.
        let writes = !entries.is_empty() || ready.must_sync();
        self.raft.advance_append_async(ready);
        self.hand_to_apply(committed, outputs)?;
        if writes {
            self.unpersisted.push_back((number, true));
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

    fn hand_to_apply(&mut self, entries: Vec<Entry>, outputs: &mut Vec<Output>) -> raft::Result<()> {
        let mut committed = Vec::with_capacity(entries.len());
        for entry in entries {
            let position = LogPosition { index: entry.index, term: entry.term };
            let proposed = self.proposed.remove(&entry.index);
            let entry = match entry.entry_type() {
                _ if entry.data.is_empty() => None,
                EntryType::EntryNormal => Some(match proposed {
                    Some(proposed) => proposed,
                    None => decode_log_entry(entry.data.into())
                        .map_err(|error| raft::Error::Io(std::io::Error::other(error)))?,
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
