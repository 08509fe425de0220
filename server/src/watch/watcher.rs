//! One watch of one stream.

use basalt_storage::mvcc::key_range::{KeyRange, RangeEnd};
use basalt_storage::planted::{Bug, is_planted};

use super::event::EventKind;

/// Names a watcher inside the room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct WatcherKey(pub u32);

/// Names a stream inside the room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct StreamKey(pub u32);

/// How a watcher learns of its next events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sync {
    /// As they are applied: it was told everything that its hub has delivered.
    Live,
    /// From ring or history, as soon as it is its turn.
    Waiting,
    /// Not before its stream drains.
    Blocked,
}

/// A watch as its client asked for it, and how far it is.
#[derive(Debug)]
pub(super) struct Watcher {
    pub stream: StreamKey,
    /// The hub that feeds it.
    pub hub: usize,
    pub watch_id: i64,
    pub range: KeyRange,
    /// As asked for; 0 for "from now on".
    pub start_revision: i64,
    /// It is told no event below. Of a watcher that is not [`Sync::Live`]: the first that it was not told yet.
    pub next_revision: i64,
    pub sync: Sync,
    /// When it last became [`Sync::Waiting`], as the registry counts.
    pub waiting_since: u64,
    pub prev_kv: bool,
    pub fragment: bool,
    pub progress_notify: bool,
    pub no_put: bool,
    pub no_delete: bool,
    /// Whether it was told no event since the last periodic tick (etcd-contract 30).
    pub quiet: bool,
}

/// What the indexes of a hub and a stream keep of a watcher, about.
const INDEX_BYTES: usize = 256;

impl Watcher {
    /// Memory that it takes, about: its range stands in the watcher and in the index by key.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + INDEX_BYTES + 2 * (self.range.start.len() + end_bytes(&self.range.end))
    }

    /// Whether its filters let such an event through (etcd-contract 32).
    pub fn shows(&self, kind: EventKind) -> bool {
        match kind {
            EventKind::Put => !self.no_put,
            EventKind::Delete => !self.no_delete,
        }
    }

    /// Whether "all events up to `revision` were sent" may be said to it, given that its hub has delivered as much: not
    /// while it lags, not before its start (etcd-contract 27), not below what its creation was answered with.
    pub fn may_hear_progress(&self, revision: i64) -> bool {
        let is_live = self.sync == Sync::Live || is_planted(Bug::ProgressAhead);
        is_live && revision >= self.start_revision && revision + 1 >= self.next_revision
    }
}

fn end_bytes(end: &RangeEnd) -> usize {
    if let RangeEnd::Before(end) = end { end.len() } else { 0 }
}
