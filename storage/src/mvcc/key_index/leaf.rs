//! A leaf: up to 64 keys with their records, and the chunks of those keys that have many past revisions.

use std::ops::Range;
use std::sync::Arc;

use crate::planted::{Bug, is_planted};
use crate::revision::Revision;

use super::packed_keys::PackedKeys;
use super::past::{Chunk, Past, kept, put_past};
use super::record::{Head, KeyState, Record};
use super::summary::Summary;
use super::writer::CompactStep;

/// Keys in a leaf; the figure of the measured prototype (a binary search of six steps, a copy of some 3 KB).
pub(super) const LEAF_KEYS_MAX: usize = 64;
/// A leaf whose suffixes and records take more splits while it has two keys.
pub(super) const LEAF_BYTES_MAX: usize = 16 << 10;
/// Past revisions packed into a record; the next one moves them all into a chunk, so that a chunk's fixed cost of
/// some 90 bytes is shared by 32.
pub(super) const PAST_INLINE_MAX: u64 = 32;

/// A chunk and the key of the leaf whose past it holds.
#[derive(Clone, Debug)]
struct ChunkSlot {
    entry: u32,
    chunk: Arc<Chunk>,
}

/// What a write does to a key.
#[derive(Clone, Copy, Debug)]
pub(super) enum Change {
    Put {
        lease: i64,
    },
    Delete,
    /// A put as an earlier store counted it.
    Restore {
        create_revision: i64,
        version: i64,
        lease: i64,
    },
}

/// The newest revision of a key before and after a write.
#[derive(Clone, Copy, Debug)]
pub(super) struct Written {
    pub(super) before: Option<Head>,
    pub(super) after: Head,
}

/// Invariants:
/// * `chunks` ascend by entry, and those of one entry from oldest to newest, each at least twice the next one's
///   blocks until a compaction trims the oldest: a key has O(log versions) chunks;
/// * all revisions in chunks are older than those in the record;
/// * `summary` is exact.
#[derive(Clone, Debug, Default)]
pub(super) struct Leaf {
    pub(super) keys: PackedKeys,
    chunks: Vec<ChunkSlot>,
    chunk_bytes: usize,
    pub(super) summary: Summary,
}

/// One key of a leaf.
#[derive(Clone, Copy)]
pub(super) struct Entry<'a> {
    pub(super) record: Record<'a>,
    chunks: &'a [ChunkSlot],
}

impl<'a> Entry<'a> {
    /// The newest revision whose main is at most `at`.
    pub(super) fn at(&self, at: i64) -> Option<Past> {
        self.up_to(Revision::new(at, i64::MAX))
    }

    /// The newest revision up to `last`.
    pub(super) fn up_to(&self, last: Revision) -> Option<Past> {
        let newest_first = std::iter::once(self.record.head.to_past()).chain(self.record.past());
        let mut recent = newest_first.skip_while(|past| past.revision > last);
        recent.next().or_else(|| self.chunks.iter().rev().find_map(|slot| slot.chunk.up_to(last)))
    }

    /// The revision that a read at `at` sees.
    pub(super) fn live_at(&self, at: i64) -> Option<Revision> {
        self.at(at).filter(|past| !past.tombstone).map(|past| past.revision)
    }

    /// All stored revisions.
    pub(super) fn oldest_first(self) -> impl Iterator<Item = Past> + 'a {
        let chunks = self.chunks.iter().flat_map(|slot| slot.chunk.oldest_first());
        // Unpacked only if asked for: most callers need the oldest one or two.
        let packed = std::iter::once_with(move || self.record.past().collect::<Vec<_>>().into_iter().rev());
        chunks.chain(packed.flatten()).chain(std::iter::once(self.record.head.to_past()))
    }

    /// The packed form with every past revision in it, whatever is in chunks.
    pub(super) fn whole_record(&self) -> Vec<u8> {
        let mut past = self.record.past.to_vec();
        let mut past_count = self.record.past_count;
        let mut newer = self.record.past().last().map_or(self.record.head.revision(), |last| last.revision);
        for older in self.chunks.iter().rev().flat_map(|slot| slot.chunk.newest_first()) {
            put_past(&mut past, newer, older);
            newer = older.revision;
            past_count += 1;
        }
        Record { head: self.record.head, past_count, past: &past }.encode()
    }

    /// The lowest compact revision that drops something of this key.
    fn drop_from(&self) -> i64 {
        let mut oldest = self.oldest_first();
        let first = oldest.next().expect("a key has its newest revision");
        let superseded = oldest.next().map_or(i64::MAX, |second| second.revision.main);
        // A tombstone exactly at the compact revision stays (etcd-contract 13).
        if first.tombstone { superseded.min(first.revision.main.saturating_add(1)) } else { superseded }
    }

    /// The revision below which a compaction at `at` drops all.
    fn drop_limit(&self, at: i64) -> Option<Revision> {
        let base = self.at(at)?;
        let gone = base.tombstone && base.revision.main < at + i64::from(is_planted(Bug::TombstoneDropped));
        Some(Revision { sub: base.revision.sub.saturating_add(i64::from(gone)), ..base.revision })
    }
}

impl Leaf {
    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(super) fn is_over_limit(&self) -> bool {
        self.len() > 1 && (self.len() > LEAF_KEYS_MAX || self.keys.item_bytes() > LEAF_BYTES_MAX)
    }

    pub(super) fn entry(&self, at: usize) -> Entry<'_> {
        let record = Record::of_leaf(self.keys.payload(at));
        Entry { record, chunks: &self.chunks[self.slots(at)] }
    }

    pub(super) fn find(&self, key: &[u8]) -> Option<Entry<'_>> {
        self.keys.find(key).ok().map(|at| self.entry(at))
    }

    /// Writes a revision of `key`, which may be new; returns also where it stands.
    pub(super) fn write(&mut self, key: &[u8], revision: Revision, change: Change) -> (Written, usize) {
        let (at, before) = match self.keys.find(key) {
            Ok(at) => (at, Some(self.entry(at).record.head)),
            Err(at) => (at, None),
        };
        let after = successor(before, revision, change);
        match before {
            None => self.insert(at, key, &Record { head: after, past_count: 0, past: &[] }),
            Some(head) => self.push(at, head, after),
        }
        let was_live = before.is_some_and(|head| head.live().is_some());
        self.summary.live = self.summary.live + u64::from(after.live().is_some()) - u64::from(was_live);
        self.summary.newest_main = self.summary.newest_main.max(revision.main);
        self.summary.bytes = self.memory_bytes();
        (Written { before, after }, at)
    }

    /// Appends a key with its whole past, as the loader does; `record` was checked. [`Self::seal`] ends the loading.
    pub(super) fn load(&mut self, key: &[u8], record: &Record<'_>) {
        let at = self.len();
        let past_count = record.past_count % PAST_INLINE_MAX;
        let mut past = record.past();
        let mut newer = past.by_ref().take(past_count as usize).last().map_or(record.head.revision(), |p| p.revision);
        let inline = &record.past[..record.past.len() - past.rest().len()];
        self.insert(at, key, &Record { head: record.head, past_count, past: inline });
        let mut chunks = Vec::new();
        while !past.is_finished() {
            let start = past.rest();
            let oldest = past.by_ref().take(PAST_INLINE_MAX as usize).last().expect("the record was checked");
            chunks.push(Chunk::from_packed(newer, &start[..start.len() - past.rest().len()]));
            newer = oldest.revision;
        }
        chunks.into_iter().rev().for_each(|chunk| self.push_chunk(at, chunk));
    }

    /// Ends the loading.
    pub(super) fn seal(&mut self) {
        self.keys.shrink_to_fit();
        self.chunks.shrink_to_fit();
        self.refresh();
    }

    /// Cuts off the keys from `at` on.
    pub(super) fn split_off(&mut self, at: usize) -> Self {
        let first_slot = self.chunks.partition_point(|slot| (slot.entry as usize) < at);
        let mut chunks = self.chunks.split_off(first_slot);
        self.chunks.shrink_to_fit();
        chunks.iter_mut().for_each(|slot| slot.entry -= at as u32);
        let mut right = Self { keys: self.keys.slice(at..self.len()), chunks, ..Self::default() };
        self.keys = self.keys.slice(0..at);
        self.refresh();
        right.refresh();
        right
    }

    /// Takes over the keys of `right`, which are all greater.
    pub(super) fn absorb(&mut self, right: &Self) {
        let shift = self.len() as u32;
        let moved = right.chunks.iter().map(|slot| ChunkSlot { entry: slot.entry + shift, chunk: slot.chunk.clone() });
        self.chunks.extend(moved);
        self.keys = self.keys.concat(&right.keys);
        self.refresh();
    }

    /// Drops what a compaction at `at` drops; appends the dropped revisions and the removed keys.
    pub(super) fn compact(&mut self, compact_at: i64, step: &mut CompactStep) {
        let mut at = 0;
        while at < self.len() {
            at += usize::from(self.compact_entry(at, compact_at, step));
        }
        self.seal();
    }

    /// Keys among `range` that are live at revision `at`.
    pub(super) fn count(&self, range: Range<usize>, at: i64) -> u64 {
        let is_head = self.summary.newest_main <= at;
        if is_head && self.summary.live == self.len() as u64 {
            return range.len() as u64;
        }
        let count = match is_head {
            true => range.filter(|entry| Record::payload_is_live(self.keys.payload(*entry))).count(),
            false => range.filter(|entry| self.entry(*entry).live_at(at).is_some()).count(),
        };
        count as u64
    }

    /// Returns whether the entry is still there.
    fn compact_entry(&mut self, at: usize, compact_at: i64, step: &mut CompactStep) -> bool {
        let dropped = &mut step.dropped;
        let entry = self.entry(at);
        let Some(limit) = entry.drop_limit(compact_at) else { return true };
        let dropped_before = dropped.len();
        dropped.extend(entry.oldest_first().map(|past| past.revision).take_while(|revision| *revision < limit));
        if dropped.len() == dropped_before {
            return true;
        }
        let head = entry.record.head;
        if head.revision() < limit {
            step.removed_keys.push(self.keys.key(at));
            self.remove(at);
            return false;
        }
        let packed = entry.record.past;
        let (past_count, kept_len) = kept(head.revision(), packed, limit);
        let payload = Record { head, past_count, past: &packed[..kept_len] }.encode();
        self.keys.set_payload(at, &payload);
        self.trim_chunks(at, limit);
        true
    }

    /// Drops the revisions below `limit` from the chunks of an entry; those wholly above it stay shared.
    fn trim_chunks(&mut self, at: usize, limit: Revision) {
        let slots = self.slots(at);
        let trimmed = self.chunks[slots.clone()].iter().filter_map(|slot| {
            let oldest = slot.chunk.oldest_first().next()?;
            let chunk = if oldest.revision >= limit { slot.chunk.clone() } else { Arc::new(slot.chunk.from(limit)?) };
            Some(ChunkSlot { entry: slot.entry, chunk })
        });
        let trimmed: Vec<_> = trimmed.collect();
        self.chunks.splice(slots, trimmed);
    }

    fn slots(&self, at: usize) -> Range<usize> {
        let start = self.chunks.partition_point(|slot| (slot.entry as usize) < at);
        let len = self.chunks[start..].iter().take_while(|slot| slot.entry as usize == at).count();
        start..start + len
    }

    fn insert(&mut self, at: usize, key: &[u8], record: &Record<'_>) {
        let first_moved = self.chunks.partition_point(|slot| (slot.entry as usize) < at);
        self.chunks[first_moved..].iter_mut().for_each(|slot| slot.entry += 1);
        self.keys.insert(at, key, &record.encode());
        self.summary.stored += 1;
    }

    fn remove(&mut self, at: usize) {
        let slots = self.slots(at);
        let first_moved = slots.start;
        self.chunks.drain(slots);
        self.chunks[first_moved..].iter_mut().for_each(|slot| slot.entry -= 1);
        self.keys.remove(at);
    }

    /// Makes `after` the newest revision of the key at `at`, and `head` its latest past one.
    fn push(&mut self, at: usize, head: Head, after: Head) {
        let entry = self.entry(at);
        let (record, is_first) = (entry.record, entry.record.past_count == 0 && entry.chunks.is_empty());
        let mut past = Vec::with_capacity(record.past.len() + 8);
        put_past(&mut past, after.revision(), head.to_past());
        past.extend_from_slice(record.past);
        let past_count = record.past_count + 1;
        if past_count < PAST_INLINE_MAX {
            let payload = Record { head: after, past_count, past: &past }.encode();
            self.keys.set_payload(at, &payload);
        } else {
            let payload = Record { head: after, past_count: 0, past: &[] }.encode();
            self.keys.set_payload(at, &payload);
            self.push_chunk(at, Chunk::from_packed(after.revision(), &past));
        }
        if is_first {
            self.summary.drop_from = self.summary.drop_from.min(self.entry(at).drop_from());
        }
    }

    /// Adds a chunk newer than those of the key, merged with them as a binary counter carries: a merge at least
    /// makes half as much again of the larger, so that a revision is copied O(log versions) times.
    fn push_chunk(&mut self, at: usize, mut chunk: Chunk) {
        let mut slots = self.slots(at);
        while let Some(last) = self.chunks[slots.clone()].last() {
            if last.chunk.blocks_len() >= 2 * chunk.blocks_len() {
                break;
            }
            let Some(merged) = Chunk::merged(&last.chunk, &chunk) else { break };
            chunk = merged;
            slots.end -= 1;
            self.chunk_bytes -= self.chunks[slots.end].chunk.memory_bytes();
            self.chunks.remove(slots.end);
        }
        self.chunk_bytes += chunk.memory_bytes();
        self.chunks.reserve_exact(1);
        self.chunks.insert(slots.end, ChunkSlot { entry: at as u32, chunk: Arc::new(chunk) });
    }

    fn memory_bytes(&self) -> u64 {
        let node = 2 * size_of::<usize>() + size_of::<Self>();
        let slots = self.chunks.capacity() * size_of::<ChunkSlot>();
        (node + self.keys.heap_bytes() + slots + self.chunk_bytes) as u64
    }

    /// Computes the summary anew from all entries.
    fn refresh(&mut self) {
        self.chunk_bytes = self.chunks.iter().map(|slot| slot.chunk.memory_bytes()).sum();
        let mut summary = Summary { stored: self.len() as u64, bytes: self.memory_bytes(), ..Summary::default() };
        for entry in (0..self.len()).map(|at| self.entry(at)) {
            summary.live += u64::from(entry.record.head.live().is_some());
            summary.newest_main = summary.newest_main.max(entry.record.head.revision().main);
            summary.drop_from = summary.drop_from.min(entry.drop_from());
        }
        self.summary = summary;
    }
}

fn successor(before: Option<Head>, revision: Revision, change: Change) -> Head {
    match (change, before.and_then(|head| head.live())) {
        (Change::Delete, _) => Head::Tombstone(revision),
        (Change::Restore { create_revision, version, lease }, _) => {
            Head::Live(KeyState { create_revision, mod_revision: revision, version, lease })
        }
        (Change::Put { lease }, None) => {
            Head::Live(KeyState { create_revision: revision.main, mod_revision: revision, version: 1, lease })
        }
        (Change::Put { lease }, Some(state)) => {
            // Saturating: a loaded record may claim any version, and that must not stop the node here.
            let version = state.version.saturating_add(1);
            Head::Live(KeyState { mod_revision: revision, version, lease, ..state })
        }
    }
}
