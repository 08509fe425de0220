//! A published version of the index: what readers hold.

use std::ops::ControlFlow;

use crate::mvcc::key_range::{KeyRange, RangeEnd};
use crate::revision::Revision;

use super::leaf::Entry;
use super::node::{Bounds, Node};
use super::record::KeyState;

/// The index as it stood when [`super::KeyIndex::root`] was called. Immutable; reading takes no lock, cloning shares.
///
/// A revision `at` of 0 or less, or above the newest one, means head. Below the compact revision of the store the
/// answers are without meaning: the caller refuses those reads (etcd-contract 12).
#[derive(Clone, Debug, Default)]
pub struct IndexRoot {
    pub(super) node: Node,
}

impl IndexRoot {
    /// Keys live at head.
    pub fn len(&self) -> u64 {
        self.node.summary().live
    }

    /// Whether no key is live at head.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keys stored: also those deleted whose revisions no compaction has dropped yet.
    pub fn stored_len(&self) -> u64 {
        self.node.summary().stored
    }

    /// Bytes of memory that this version alone would take: allocations as asked for, without what the allocator adds.
    /// Between versions most are shared. O(1).
    pub fn memory_bytes(&self) -> u64 {
        self.node.summary().bytes
    }

    /// No stored revision has a higher main; exact after loading, perhaps too high after a compaction. Whoever loads
    /// records checks it against the revision of the store: a later put below it would panic.
    pub fn newest_main(&self) -> i64 {
        self.node.summary().newest_main
    }

    /// Whether this and `other` are the same version: no write has come between.
    pub fn shares_all_nodes_with(&self, other: &Self) -> bool {
        self.node.is_same(&other.node)
    }

    /// `key` at head, if live. O(log n).
    pub fn get(&self, key: &[u8]) -> Option<KeyState> {
        self.node.find(key)?.record.head.live()
    }

    /// The newest stored revision of `key`, also a tombstone's. O(log n).
    pub fn newest_stored(&self, key: &[u8]) -> Option<Revision> {
        Some(self.node.find(key)?.record.head.revision())
    }

    /// The revision of `key` that a read at `at` sees; `None` if absent or deleted then. O(log n + log versions).
    pub fn at(&self, key: &[u8], at: i64) -> Option<Revision> {
        self.node.find(key)?.live_at(or_head(at))
    }

    /// The newest stored revision of `key` up to `last`, and whether it is a tombstone's. O(log n + log versions).
    pub fn stored_up_to(&self, key: &[u8], last: Revision) -> Option<(Revision, bool)> {
        let past = self.node.find(key)?.up_to(last)?;
        Some((past.revision, past.tombstone))
    }

    /// Calls `each` with all stored revisions, key by key ascending, of each from the oldest on, and whether it is a
    /// tombstone's.
    pub fn for_each_stored(&self, mut each: impl FnMut(&[u8], Revision, bool)) {
        let _: ControlFlow<()> = self.visit(&KeyRange::ALL, 0, |key, entry| {
            entry.oldest_first().for_each(|past| each(key, past.revision, past.tombstone));
            ControlFlow::Continue(())
        });
    }

    /// How many keys of `range` are live at `at`, exactly.
    ///
    /// O(log n) at head. Below, a subtree is walked only if it has a revision above `at`: the cost is that of the
    /// leaves changed since.
    pub fn count(&self, range: &KeyRange, at: i64) -> u64 {
        if range.end == RangeEnd::Single {
            return u64::from(self.at(&range.start, at).is_some());
        }
        bounds(range).map_or(0, |bounds| self.node.count(bounds, or_head(at)))
    }

    /// Calls `each` with the keys of `range` live at `at`, ascending, and the revision each is read at, until it
    /// breaks.
    pub fn scan<B>(
        &self,
        range: &KeyRange,
        at: i64,
        mut each: impl FnMut(&[u8], Revision) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let at = or_head(at);
        self.visit(range, 0, |key, entry| match entry.live_at(at) {
            Some(revision) => each(key, revision),
            None => ControlFlow::Continue(()),
        })
    }

    /// Calls `each` with the keys of `range` live at head, ascending, and their state, until it breaks. Over all keys
    /// it yields the attachments of leases.
    pub fn scan_head<B>(
        &self,
        range: &KeyRange,
        mut each: impl FnMut(&[u8], KeyState) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        self.visit(range, 0, |key, entry| match entry.record.head.live() {
            Some(state) => each(key, state),
            None => ControlFlow::Continue(()),
        })
    }

    /// The whole state of `key`, for [`super::IndexBuilder::push`]; also of a deleted key not yet compacted away.
    pub fn encode_record(&self, key: &[u8]) -> Option<Vec<u8>> {
        Some(self.node.find(key)?.whole_record())
    }

    /// Calls `each` with the stored keys of `range` written after main revision `after`, ascending, and their whole
    /// state, until it breaks: with `after` 0 the base of an index checkpoint, else a run of changes. Subtrees
    /// without changes are skipped. What a compaction dropped meanwhile is no change.
    pub fn scan_records<B>(
        &self,
        range: &KeyRange,
        after: i64,
        mut each: impl FnMut(&[u8], Vec<u8>) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        self.visit(range, after, |key, entry| match entry.record.head.revision().main > after {
            true => each(key, entry.whole_record()),
            false => ControlFlow::Continue(()),
        })
    }

    fn visit<B>(
        &self,
        range: &KeyRange,
        after: i64,
        mut each: impl FnMut(&[u8], Entry<'_>) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        if range.end == RangeEnd::Single {
            let entry = self.node.find(&range.start);
            return entry.map_or(ControlFlow::Continue(()), |entry| each(&range.start, entry));
        }
        let Some(bounds) = bounds(range) else { return ControlFlow::Continue(()) };
        self.node.visit(bounds, &|summary| summary.newest_main > after, &mut Vec::new(), &mut each)
    }
}

/// The bounds of a range of other than one key; `None` if it is empty.
fn bounds(range: &KeyRange) -> Option<Bounds<'_>> {
    let low = (!range.start.is_empty()).then_some(range.start.as_slice());
    match &range.end {
        RangeEnd::Before(_) if range.is_empty() => None,
        RangeEnd::Before(end) => Some(Bounds { low, high: Some(end) }),
        RangeEnd::Unbounded | RangeEnd::Single => Some(Bounds { low, high: None }),
    }
}

fn or_head(at: i64) -> i64 {
    if at <= 0 { i64::MAX } else { at }
}
