//! HashKV from slot tables: which slots count, and their CRCs put together.

use std::collections::HashSet;
use std::ops::RangeInclusive;

use super::concat::concat;
use super::error::HashError;
use crate::revision::Revision;

/// What a slot table knows of one stored revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashSlot {
    /// Its revision.
    pub revision: Revision,
    /// Whether it deletes its key.
    pub tombstone: bool,
    /// The revision of the same key before it, if the key had one. After a deletion it may name the tombstone or not.
    pub previous: Option<Revision>,
    /// CRC-32C over revision key and KeyValue bytes.
    pub crc: u32,
    /// Bytes of both together.
    pub length: u32,
}

/// Who asks: etcd's answer differs in one corner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashPurpose {
    /// A HashKV request.
    Request,
    /// The hash that a Compact stores of itself. For the question whether any key is alive, a tombstone at the
    /// compact revision counts as alive, because etcd takes the set of what the compaction keeps (`kvindex.Compact`)
    /// and not of what is visible (`kvindex.Keep`). So in the rare case that the last keys of a store are deleted at
    /// the very revision compacted, HashKV of that revision changes when the compaction has run [checked with 3.7.3].
    Compaction,
}

/// What is hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashScope {
    /// The revision asked for, never 0: all slots up to it, none if negative.
    pub revision: i64,
    /// The compact revision, -1 if nothing was ever compacted; for [`HashPurpose::Compaction`] the one before.
    pub compact_revision: i64,
    /// A revision, at most `compact_revision`, up to which compaction has done its work: no slot is handed over that
    /// another one at or below this revision supersedes. The nearer, the less memory; -1 is always right.
    pub swept_revision: i64,
    /// Who asks.
    pub purpose: HashPurpose,
}

impl HashScope {
    /// The main revisions that [`Superseded`] has to see. Without a compaction there is nothing to filter.
    pub fn to_be_noted(&self) -> RangeInclusive<i64> {
        let from = if self.compact_revision > 0 { self.swept_revision.saturating_add(1) } else { i64::MAX };
        from..=self.revision
    }
}

/// A hash, what it covers, and the compact revision that it was computed under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashKv {
    /// CRC-32C over the name of bucket `key` and the slots that count.
    pub hash: u32,
    /// The compact revision, -1 if there was none.
    pub compact_revision: i64,
    /// The revision up to which it hashes.
    pub revision: i64,
}

/// Pass one: which slots at or below the compact revision are superseded.
///
/// A slot comes before the one that supersedes it, so that a single pass cannot know. This one needs only the slots
/// above [`HashScope::swept_revision`], and of them no CRC; it may go shard by shard, each in revision order.
///
/// Memory: 16 bytes for each slot above `swept_revision` that supersedes one at or below `compact_revision`, and a
/// hash set entry for each key alive at `revision` that changed after `compact_revision`. Nothing if there never was a
/// compaction.
#[derive(Debug)]
pub struct Superseded {
    scope: HashScope,
    /// At or below the compact revision, superseded by one at or below it: a finished compaction drops them.
    by_compaction: Vec<Revision>,
    /// At or below the compact revision, superseded by one above it and up to the hashed revision.
    later: Vec<Revision>,
    /// Above the compact revision, neither a tombstone nor superseded so far.
    alive: HashSet<Revision>,
    /// Whether a tombstone stands at the hashed revision.
    tombstone_at_revision: bool,
}

impl Superseded {
    /// Begins pass one.
    pub fn new(scope: HashScope) -> Self {
        assert!(scope.swept_revision <= scope.compact_revision, "compaction cannot have done more than was asked");
        Self { scope, by_compaction: vec![], later: vec![], alive: HashSet::new(), tombstone_at_revision: false }
    }

    /// Takes the next slot of a shard; those outside of the scope do no harm.
    pub fn note(&mut self, revision: Revision, tombstone: bool, previous: Option<Revision>) {
        let HashScope { compact_revision, .. } = self.scope;
        if !self.scope.to_be_noted().contains(&revision.main) {
            return;
        }
        if revision.main <= compact_revision {
            self.by_compaction.extend(previous);
            return;
        }
        match previous {
            Some(previous) if previous.main <= compact_revision => self.later.push(previous),
            Some(previous) => drop(self.alive.remove(&previous)),
            None => {}
        }
        if tombstone {
            self.tombstone_at_revision |= revision.main == self.scope.revision;
        } else {
            self.alive.insert(revision);
        }
    }

    /// Revisions remembered now.
    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        self.by_compaction.len() + self.later.len() + self.alive.len()
    }

    /// Ends pass one and begins pass two.
    pub fn into_hasher(self) -> HashKvHasher {
        let tombstone_counts = self.scope.purpose == HashPurpose::Compaction && self.tombstone_at_revision;
        let alive = tombstone_counts || !self.alive.is_empty();
        let bucket = crc32c::crc32c(b"key");
        HashKvHasher {
            scope: self.scope,
            by_compaction: Ascending::new(self.by_compaction),
            later: Ascending::new(self.later),
            hash: bucket,
            unfiltered: (!alive).then_some(bucket),
            last: None,
        }
    }
}

/// Pass two: all slots up to the hashed revision, over all shards in revision order.
#[derive(Debug)]
pub struct HashKvHasher {
    scope: HashScope,
    by_compaction: Ascending,
    later: Ascending,
    hash: u32,
    /// The hash of all that is stored, superseded or not, as long as no key is known to be alive at the revision:
    /// etcd drops its filter when its set of live revisions is empty.
    unfiltered: Option<u32>,
    last: Option<Revision>,
}

impl HashKvHasher {
    /// Takes the next slot. Slots that a finished compaction would have dropped may be left out or handed over, but a
    /// slot must not be left out while the one that it supersedes is handed over.
    ///
    /// # Errors
    /// [`HashError::OutOfOrder`] unless its revision is above the last one's.
    pub fn push(&mut self, slot: &HashSlot) -> Result<(), HashError> {
        if self.last.is_some_and(|last| last >= slot.revision) {
            return Err(HashError::OutOfOrder { revision: slot.revision });
        }
        self.last = Some(slot.revision);
        if slot.revision.main > self.scope.revision {
            return Ok(());
        }
        if slot.revision.main > self.scope.compact_revision {
            self.end_filter();
            self.hash = concat(self.hash, slot.crc, slot.length);
        } else {
            self.push_compacted(slot);
        }
        Ok(())
    }

    /// Revisions remembered now.
    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        self.by_compaction.sorted.len() + self.later.sorted.len()
    }

    /// The hash.
    pub fn finish(mut self) -> HashKv {
        self.end_filter();
        let HashScope { compact_revision, revision, .. } = self.scope;
        HashKv { hash: self.hash, compact_revision, revision }
    }

    /// A slot at or below the compact revision. A tombstone there never counts: below, a finished compaction drops it;
    /// at the compact revision older releases of etcd did, and newer ones skip it to agree with them.
    fn push_compacted(&mut self, slot: &HashSlot) {
        if slot.tombstone || self.by_compaction.contains(slot.revision) {
            return;
        }
        if self.later.contains(slot.revision) {
            self.unfiltered = self.unfiltered.map(|hash| concat(hash, slot.crc, slot.length));
            return;
        }
        // It is alive at the revision, so the filter is on. All before it, if anything, was filtered out.
        self.unfiltered = None;
        self.hash = concat(self.hash, slot.crc, slot.length);
    }

    /// All slots that the filter could touch were seen: whether it is on is known.
    fn end_filter(&mut self) {
        if let Some(unfiltered) = self.unfiltered.take() {
            self.hash = unfiltered;
        }
    }
}

/// A set asked in ascending order.
#[derive(Debug)]
struct Ascending {
    sorted: std::iter::Peekable<std::vec::IntoIter<Revision>>,
}

impl Ascending {
    fn new(mut revisions: Vec<Revision>) -> Self {
        revisions.sort_unstable();
        Self { sorted: revisions.into_iter().peekable() }
    }

    fn contains(&mut self, revision: Revision) -> bool {
        while self.sorted.next_if(|next| *next < revision).is_some() {}
        self.sorted.peek() == Some(&revision)
    }
}
