//! A leaf to be written: of entries in memory, or of what lives in leaves that are read when its turn comes.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::revision::Revision;

use super::branch::BranchEntry;
use super::dead_marks::DeadMarks;
use super::error::PagesError;
use super::leaf::{LeafHead, NewEntry, NewLeaf, leaf_pages};
use super::page_file::NodeRef;
use super::tree_edit::{EditItem, UNPLACED};

/// A leaf of the new tree.
#[derive(Debug)]
pub(super) enum PlannedLeaf {
    /// Its entries are in memory.
    New(NewLeaf),
    /// Its entries are those that live in durable leaves.
    Repack(Repack),
}

/// What lives in a run of durable leaves, and fits one. How much that is their parents say, so that it is placed before
/// anything is read, and a commit that rewrites gigabytes holds one wave of them.
#[derive(Debug)]
pub(super) struct Repack {
    pub sources: Vec<DurableLeaf>,
    entries: u64,
    bytes: u64,
    /// No entry is below it.
    from: Revision,
}

/// A durable leaf and what is dead in it.
#[derive(Debug)]
pub(super) struct DurableLeaf {
    pub at: NodeRef,
    dead: DeadMarks,
}

impl PlannedLeaf {
    /// Pages it takes.
    pub fn pages(&self) -> u32 {
        match self {
            Self::New(leaf) => leaf.pages(),
            Self::Repack(repack) => leaf_pages(repack.bytes),
        }
    }

    /// What its parent says about it; where it stands is not known yet, and of a repacked one only a bound of its first
    /// revision.
    pub fn entry(&self) -> BranchEntry {
        let (first, entries, bytes) = match self {
            Self::New(leaf) => (leaf.first(), leaf.entries.len() as u64, leaf.stored_bytes()),
            Self::Repack(repack) => (repack.from, repack.entries, repack.bytes),
        };
        BranchEntry {
            first,
            child: UNPLACED,
            entries,
            live_entries: entries,
            live_bytes: bytes,
            stored_bytes: bytes,
            dead: DeadMarks::default(),
        }
    }
}

impl DurableLeaf {
    pub fn new(item: &EditItem) -> Self {
        Self { at: NodeRef::child(1, &item.entry), dead: item.entry.dead.clone() }
    }

    /// The entries that are not dead, each checked: nothing corrupt is carried on under a fresh checksum.
    pub fn live_entries(&self, bytes: &Bytes) -> Result<Vec<NewEntry>, PagesError> {
        let leaf: Arc<LeafHead> = self.at.decode_leaf(bytes)?;
        let live = leaf.slots().enumerate().filter(|(index, _)| !self.dead.is_dead(*index));
        let checked = live.map(|(_, slot)| {
            let corrupt = |_| PagesError::CorruptEntry { page: self.at.page.extent.page, revision: slot.revision };
            leaf.entry(&slot, bytes).map_err(corrupt)
        });
        checked.collect()
    }
}

impl Repack {
    /// Of the leaves that are `items`, at least one of which has a live entry.
    pub fn new(items: &[EditItem]) -> Self {
        let sum = |field: fn(&BranchEntry) -> u64| items.iter().map(|item| field(&item.entry)).sum();
        Self {
            sources: items.iter().map(DurableLeaf::new).collect(),
            entries: sum(|entry| entry.live_entries),
            bytes: sum(|entry| entry.live_bytes),
            from: items[0].entry.first,
        }
    }

    /// Bytes of the leaves that are read for it.
    pub fn source_bytes(&self) -> usize {
        self.sources.iter().map(|source| source.at.page.bytes()).sum()
    }

    /// Whether all its leaves are in `read`.
    pub fn is_read(&self, read: &HashMap<u64, Bytes>) -> bool {
        self.sources.iter().all(|source| read.contains_key(&source.at.page.extent.page))
    }

    /// Packs it, taking its leaves out of `read` (by page number).
    pub fn pack(&self, read: &mut HashMap<u64, Bytes>) -> Result<NewLeaf, PagesError> {
        let mut entries = Vec::with_capacity(self.entries as usize);
        for source in &self.sources {
            let bytes = read.remove(&source.at.page.extent.page).expect("every leaf that is repacked was read");
            entries.extend(source.live_entries(&bytes)?);
        }
        let leaf = NewLeaf { entries };
        if (leaf.entries.len() as u64, leaf.stored_bytes()) != (self.entries, self.bytes) {
            return Err(self.sources[0].at.corrupt("what lives in it is not what its parent says"));
        }
        Ok(leaf)
    }
}
