//! What a node says to the world.

use std::sync::Arc;

use basalt_proto::log::Request;
use basalt_server::node::core::{Append, BadMessage, Leadership};
use basalt_server::node::log_store::LogStore;
use basalt_server::transfer::MemberSnapshot;
use basalt_server::watch::StreamId;
use basalt_storage::mvcc::view::LogPosition;
use bytes::Bytes;
use raft::prelude::{Entry, Message};
use raft::{GetEntriesContext, Storage};

/// What a node said since it was asked last.
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
    /// What its log holds from now on, in its order.
    pub appended: Vec<Appended>,
    /// The last entry that it knew as committed, and its term then.
    pub committed: Option<(LogPosition, u64)>,
    /// To watchers, in the order of each stream.
    pub watched: Vec<(StreamId, Vec<Bytes>)>,
    /// Renewals of leases by their numbers: seconds to live, 0 for a lease that is none; `None` if it cannot say.
    pub renewals: Vec<(u64, Option<i64>)>,
    /// Requests that it ordered by itself and waits for.
    pub requests: Vec<Request>,
    /// Whether another member's state, with its users, took the place of its own.
    pub has_installed: bool,
    /// Streams that end because there is no leader.
    pub leaderless: Vec<StreamId>,
}

impl Said {
    /// Whether it is nothing.
    pub(super) fn is_empty(&self) -> bool {
        let Self { messages, reads, failed_reads, snapshots, left, roles, .. } = self;
        let Self { refused, appended, committed, watched, renewals, requests, has_installed, leaderless, .. } = self;
        let of_core = messages.is_empty() && reads.is_empty() && failed_reads.is_empty() && snapshots.is_empty();
        let of_log = appended.is_empty() && committed.is_none() && roles.is_empty() && refused.is_empty() && !left;
        let of_clients = watched.is_empty() && renewals.is_empty() && requests.is_empty() && leaderless.is_empty();
        of_core && of_log && of_clients && !has_installed
    }
}

/// One write to a log.
#[derive(Debug)]
pub struct Appended {
    /// Before the entries: it goes on behind this one, and holds nothing else.
    pub start_after: Option<LogPosition>,
    /// They replace those from the first's index on.
    pub entries: Vec<Entry>,
}

impl Appended {
    /// What a core has written.
    pub(super) fn of(append: &Append) -> Self {
        Self { start_after: append.start_after, entries: append.entries.clone() }
    }

    /// What a start found.
    pub(super) fn all_of(log: &LogStore) -> Self {
        let (first, last) = (log.first_index().expect("known"), log.last_index().expect("known"));
        let before = LogPosition { index: first - 1, term: log.term(first - 1).expect("known") };
        let entries = log.entries(first, last + 1, None, GetEntriesContext::empty(false)).expect("all are in memory");
        Self { start_after: Some(before), entries }
    }
}
