//! What goes into the room and what comes out.

use std::sync::Arc;

use basalt_proto::etcdserverpb::WatchCreateRequest;
use basalt_storage::mvcc::shard_map::ShardId;
use basalt_storage::revision::Revision;
use bytes::Bytes;

use super::event::Event;
use crate::apply::auth::state::AuthNow;

/// A client's watch stream; the caller numbers them and uses no number twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

/// Joins an answer to what the room asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What became of a previous value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PreviousValue {
    /// The encoded KeyValue.
    Value(Bytes),
    /// Compaction was faster: none is shown (etcd-contract 21).
    Gone,
    /// It cannot be read: who would have to be shown it is told no more.
    Damaged,
}

/// What happens to the room.
#[derive(Clone, Debug)]
pub enum Input {
    /// A stream begins.
    Open(StreamId),
    /// A stream ended; its watchers end with it.
    Close(StreamId),
    /// A client wants to watch, and may.
    Create {
        /// Where.
        stream: StreamId,
        /// What.
        request: WatchCreateRequest,
    },
    /// A client ends one watch.
    Cancel {
        /// Where.
        stream: StreamId,
        /// Which.
        watch_id: i64,
    },
    /// A client asks how far its stream is.
    Progress {
        /// Where.
        stream: StreamId,
    },
    /// Changes were applied and are visible to reads.
    Applied {
        /// The store's revision after them. No event up to it comes later.
        revision: i64,
        /// Whole main revisions, ascending by main and sub.
        events: Vec<Event>,
    },
    /// The store was replaced by a newer one, as a snapshot brings it: what happened in between was never applied here.
    Restored {
        /// Its revision.
        revision: i64,
        /// Where it is compacted.
        compact_revision: i64,
    },
    /// The store was compacted at this revision.
    Compacted(i64),
    /// Who a stream's client is, and the users and roles by which what it asks for next was let through.
    Asker {
        /// Where.
        stream: StreamId,
        /// `None` for nobody.
        user: Option<Arc<str>>,
        /// They may be newer than what the room knows.
        auth: Arc<AuthNow>,
    },
    /// A client wants to watch, and may not.
    Refuse {
        /// Where.
        stream: StreamId,
        /// What it is told.
        reason: &'static str,
    },
    /// Users or roles changed: what was let through by older ones is looked at again. Comes before the first event after.
    Permissions(Arc<AuthNow>),
    /// The raft term changed.
    Term(u64),
    /// Answers [`Output::Scan`].
    Scanned {
        /// Whose.
        ticket: Ticket,
        /// Whole main revisions, ascending.
        events: Vec<Event>,
        /// The main revision to go on from; `None` when all asked for is there.
        next: Option<i64>,
    },
    /// Answers [`Output::Scan`] too: not even the first revision can be read.
    Unreadable {
        /// Whose.
        ticket: Ticket,
    },
    /// Answers [`Output::FetchPrevious`].
    Previous {
        /// Whose.
        ticket: Ticket,
        /// In the order of the hits.
        values: Vec<PreviousValue>,
    },
    /// The client took bytes of what was sent to it.
    Drained {
        /// Where.
        stream: StreamId,
        /// How many.
        bytes: usize,
    },
    /// Time passed. The finer it comes, the finer is periodic progress.
    Tick,
}

/// What the caller is to do.
#[derive(Clone, Debug)]
pub enum Output {
    /// Send one WatchResponse.
    Send {
        /// To whom.
        stream: StreamId,
        /// Its wire form in pieces.
        message: Vec<Bytes>,
        /// How many events it tells; none in an answer to a request, and in progress.
        events: usize,
    },
    /// Read history.
    Scan {
        /// Comes back with the answer.
        ticket: Ticket,
        /// Of these shards, merged.
        shards: Vec<ShardId>,
        /// First main revision.
        from: i64,
        /// Last main revision, included; not above the store's.
        to: i64,
        /// About how many main revisions to answer with at most.
        revisions_max: usize,
    },
    /// Read values.
    FetchPrevious {
        /// Comes back with the answer.
        ticket: Ticket,
        /// Where they stand.
        hits: Vec<(ShardId, Revision)>,
    },
}
