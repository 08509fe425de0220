//! The revisions of one shard that no checkpoint holds yet: append-only, in revision order, read without locks.
//!
//! One writer appends; a [`DeltaView`] sees what was there when it was taken, for as long as it lives. The memory
//! of a revision is the delta's own ([`DeltaEntry::key_value`] is encoded once at apply).
//!
//! Invariants:
//! * Revisions ascend strictly.
//! * A slot is set once and never changes; a view never looks at a slot at or above its length.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::revision::Revision;

/// Slots a chunk holds: large enough that growing is rare, small enough that an idle shard costs little.
const CHUNK_ENTRIES: usize = 512;

/// What an entry costs beside its bytes: its slot and an allocation's overhead.
const ENTRY_OVERHEAD_BYTES: usize = size_of::<OnceLock<DeltaEntry>>() + 32;

/// One stored revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeltaEntry {
    /// When it was written.
    pub revision: Revision,
    /// Whether it deletes its key.
    pub tombstone: bool,
    /// The live version of the same key that it replaced or deleted.
    pub previous: Option<Revision>,
    /// The encoded KeyValue; a tombstone's holds the key only, as in etcd.
    pub key_value: Bytes,
}

struct Chunk {
    slots: Box<[OnceLock<DeltaEntry>]>,
}

/// The writer's side.
#[derive(Default)]
pub struct Delta {
    view: DeltaView,
}

/// The revisions that were there at one instant. Cheap to clone.
#[derive(Clone, Default)]
pub struct DeltaView {
    chunks: Arc<Vec<Arc<Chunk>>>,
    entries: usize,
    bytes: usize,
}

impl Delta {
    /// Appends one revision.
    ///
    /// # Panics
    /// When it does not lie above all that are there.
    pub fn append(&mut self, entry: DeltaEntry) {
        if let Some(last) = self.view.last() {
            assert!(entry.revision > last.revision, "revision {:?} after {:?}", entry.revision, last.revision);
        }
        let slot = self.view.entries % CHUNK_ENTRIES;
        if slot == 0 {
            let slots = (0..CHUNK_ENTRIES).map(|_| OnceLock::new()).collect();
            Arc::make_mut(&mut self.view.chunks).push(Arc::new(Chunk { slots }));
        }
        self.view.bytes += entry.key_value.len() + ENTRY_OVERHEAD_BYTES;
        let chunk = self.view.chunks.last().expect("a chunk was pushed for slot 0");
        chunk.slots[slot].set(entry).expect("a slot at the length was never set");
        self.view.entries += 1;
    }

    /// What is there now.
    pub fn view(&self) -> DeltaView {
        self.view.clone()
    }

    /// What is there now, for a look in passing.
    pub fn view_ref(&self) -> &DeltaView {
        &self.view
    }

    /// Takes all revisions out and leaves an empty delta.
    pub fn freeze(&mut self) -> DeltaView {
        std::mem::take(&mut self.view)
    }
}

impl DeltaView {
    /// Revisions held.
    pub fn len(&self) -> usize {
        self.entries
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// Memory held, bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The newest revision.
    pub fn last(&self) -> Option<&DeltaEntry> {
        self.entries.checked_sub(1).and_then(|position| self.at(position))
    }

    /// The entry of exactly this revision. O(log n).
    pub fn get(&self, revision: Revision) -> Option<&DeltaEntry> {
        let entry = self.at(self.lower_bound(revision))?;
        (entry.revision == revision).then_some(entry)
    }

    /// Entries from `revision` on, ascending.
    pub fn from(&self, revision: Revision) -> impl Iterator<Item = &DeltaEntry> {
        (self.lower_bound(revision)..self.entries).map_while(|position| self.at(position))
    }

    /// All entries, ascending.
    pub fn iter(&self) -> impl Iterator<Item = &DeltaEntry> {
        self.from(Revision::default())
    }

    fn at(&self, position: usize) -> Option<&DeltaEntry> {
        if position >= self.entries {
            return None;
        }
        self.chunks[position / CHUNK_ENTRIES].slots[position % CHUNK_ENTRIES].get()
    }

    /// Position of the first entry at or above `revision`.
    fn lower_bound(&self, revision: Revision) -> usize {
        let (mut low, mut high) = (0, self.entries);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.at(middle) {
                Some(entry) if entry.revision < revision => low = middle + 1,
                _ => high = middle,
            }
        }
        low
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(main: i64, sub: i64) -> DeltaEntry {
        let revision = Revision::new(main, sub);
        DeltaEntry { revision, tombstone: false, previous: None, key_value: Bytes::from_static(b"kv") }
    }

    #[test]
    fn a_view_keeps_its_instant_and_finds_by_revision() {
        let mut delta = Delta::default();
        for main in 1..2000 {
            delta.append(entry(main * 2, 0));
        }
        let view = delta.view();
        delta.append(entry(9000, 0));
        assert_eq!(view.len(), 1999);
        assert!(view.get(Revision::new(9000, 0)).is_none());
        assert_eq!(delta.view().get(Revision::new(9000, 0)), Some(&entry(9000, 0)));
        assert_eq!(view.get(Revision::new(1000, 0)), Some(&entry(1000, 0)));
        assert_eq!(view.get(Revision::new(1001, 0)), None);
        assert_eq!(view.from(Revision::new(3995, 0)).count(), 2);
        assert_eq!(view.iter().count(), 1999);
    }

    #[test]
    fn freezing_leaves_an_empty_delta() {
        let mut delta = Delta::default();
        delta.append(entry(2, 0));
        let frozen = delta.freeze();
        assert_eq!((frozen.len(), delta.view().len()), (1, 0));
        delta.append(entry(3, 0));
        assert_eq!(frozen.len(), 1);
    }

    #[test]
    #[should_panic(expected = "after")]
    fn revisions_never_go_back() {
        let mut delta = Delta::default();
        delta.append(entry(3, 0));
        delta.append(entry(2, 0));
    }
}
