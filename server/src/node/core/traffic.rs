//! What goes into the core and what comes out of it.

use std::time::Duration;

use basalt_proto::log::{LogEntry, Request};
use basalt_proto::nesting::NestingError;
use basalt_storage::mvcc::view::LogPosition;
use raft::prelude::{ConfChangeV2, Entry, HardState, Message, Snapshot};
use thiserror::Error;

use super::message_check::BadMessage;
use crate::admission::Proposal;
use crate::apply::known::NewerEntry;

/// Who this node is and how it keeps time.
#[derive(Clone, Debug)]
pub struct CoreConfig {
    /// This member.
    pub member_id: u64,
    /// Time between heartbeats, which is a tick.
    pub heartbeat_interval: Duration,
    /// Time without a leader until an election, at least; at most twice as long.
    pub election_timeout: Duration,
    /// The last entry that the recovered store holds.
    pub applied: u64,
    /// Whether votes are asked for before an election (`--pre-vote`).
    pub pre_vote: bool,
    /// How many shards proposals are classed by.
    pub shards: usize,
    /// Entries that stay in memory for members that lag behind (`--snapshot-catchup-entries`).
    pub catchup_entries: u64,
    /// The rules that all members apply by.
    pub apply_version: u32,
    /// Of election timeouts and of contexts of reads. No two lives of a member may have the same.
    pub seed: u64,
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
    /// Apply has come this far, and shows it.
    Applied(u64),
    /// Another member says something. It is checked here.
    Message(Box<Message>),
    /// A snapshot that another member sent is durable here, beside the state that goes on: Raft may take it. It is checked
    /// here. Follows [`Output::Install`] or [`Output::Discard`].
    Received(Box<Message>),
    /// What [`Output::Install`] named is the state now, and the manifest says so.
    Installed,
    /// An applied entry changed who votes or who gets entries. Comes before [`Self::Applied`] of that entry.
    ConfChange(Box<ConfChangeV2>),
    /// What [`Output::SnapshotWanted`] asked for.
    SnapshotOffer {
        /// The member.
        to: u64,
        /// What Raft is to know of it.
        snapshot: Box<Snapshot>,
    },
    /// A snapshot is on its way no more: all of it is durable at the member, or the way ended.
    SnapshotSent {
        /// The member.
        to: u64,
        /// Whether it has it.
        arrived: bool,
    },
    /// Some want to read what was acknowledged before now; the numbers are theirs.
    Reads(Vec<u64>),
    /// This member was removed, says another one, which has that in a checkpoint.
    Told {
        /// Who.
        by: u64,
    },
    /// A message to this member was lost on this side.
    Unreachable(u64),
    /// All members apply by these rules from now on.
    ApplyVersion(u32),
    /// Another member shall lead, if this one does.
    Transfer(u64),
    /// This node is about to stop: whoever has most of the log and was heard lately shall lead, if this one does.
    HandOver,
    /// The first election may come soon (`--initial-election-tick-advance`).
    AdvanceElection,
}

/// What the node wants done.
#[derive(Debug)]
pub enum Output {
    /// Make this durable, then say [`Input::Persisted`]. Further ones may come before that; they are written in order.
    Append(Append),
    /// Apply these, in order.
    Apply(Vec<Committed>),
    /// These became no entry and never will: ask again, unless nobody waits for them.
    Lost(Vec<Request>),
    /// Bring these to other members; any of them may be lost.
    Send(Vec<Message>),
    /// This member needs a snapshot: say [`Input::SnapshotOffer`].
    SnapshotWanted(u64),
    /// Bring the snapshot that was offered for the receiver, then this message; say [`Input::SnapshotSent`].
    SendSnapshot(Box<Message>),
    /// The snapshot that was received takes the place of the state, and of all entries handed out to be applied before:
    /// install it and say [`Input::Installed`]. It is of this entry.
    Install(LogPosition),
    /// The disk here is slower than those of the others: this member shall lead.
    DiskTooSlow {
        /// Whom the lead goes to.
        to: u64,
    },
    /// This member was removed, and most of the others know it durably: it may stop.
    Left,
    /// The snapshot that was received is not needed.
    Discard,
    /// Role, term or leader changed.
    Role(Leadership),
    /// The newest state has what these reads must see.
    ReadsReady(Vec<u64>),
    /// The leader changed before these reads could be answered.
    ReadsFailed(Vec<u64>),
    /// This member said what cannot be. Nothing of it was used.
    Refused {
        /// Who.
        from: u64,
        /// What.
        cause: BadMessage,
    },
}

/// Who leads, as this node knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// Whether this node does.
    pub leads: bool,
    /// Its term.
    pub term: u64,
    /// The leader; 0 while none is known.
    pub leader: u64,
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
    /// Before all that: the log goes on behind this entry, and holds nothing else.
    pub start_after: Option<LogPosition>,
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
    /// The log holds a change of members that no release wrote.
    #[error("log entry {index}, a change of members, cannot be read: restore a snapshot")]
    MalformedChange {
        /// Where it stands.
        index: u64,
        /// What is wrong with it.
        #[source]
        cause: raft_prost::DecodeError,
    },
    /// Raft refuses its state.
    #[error(transparent)]
    Raft(#[from] raft::Error),
}
