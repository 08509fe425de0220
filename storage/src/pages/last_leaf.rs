//! The last leaf, if an append goes on in it.

use std::ops::Range;

use bytes::Bytes;

use super::allocator::Stream;
use super::error::PagesError;
use super::leaf::{LEAF_BYTES, LEAF_SLOTS_MAX, NewEntry, NewLeaf};
use super::page_header::PAGE_HEADER_BYTES;
use super::repack::{DurableLeaf, PlannedLeaf};
use super::tree_edit::{Path, TreeEdit};

/// A last leaf that is not full, read so that it can be packed anew with what comes behind it.
#[derive(Debug)]
pub(super) struct LastLeaf {
    pub branch: Path,
    pub item: usize,
    pub leaf: DurableLeaf,
    pub bytes: Bytes,
}

impl LastLeaf {
    /// The last leaf, if the first of `appended` fits behind what lives in it.
    pub fn with_room(edit: &mut TreeEdit, appended: &[NewEntry]) -> Option<Self> {
        let first = appended.first()?;
        let (branch, last) = edit.last_leaf_branch();
        let item = last.items.len().checked_sub(1)?;
        let entry = &last.items[item].entry;
        let filled = (PAGE_HEADER_BYTES as u64).saturating_add(entry.live_bytes);
        let fits = filled.saturating_add(first.stored_bytes() as u64) <= LEAF_BYTES as u64
            && (1..LEAF_SLOTS_MAX as u64).contains(&entry.live_entries);
        fits.then(|| Self { branch, item, leaf: DurableLeaf::new(&last.items[item]), bytes: Bytes::new() })
    }

    fn items(&self) -> Range<usize> {
        self.item..self.item + 1
    }
}

/// Packs what lives in the last leaf, if the append goes on in it, and what is appended, into new leaves.
pub(super) fn append(edit: &mut TreeEdit, last: Option<LastLeaf>, appended: Vec<NewEntry>) -> Result<(), PagesError> {
    let live = last.as_ref().map(|last| last.leaf.live_entries(&last.bytes)).transpose()?.unwrap_or_default();
    let leaves = NewLeaf::pack(live.into_iter().chain(appended)).into_iter().map(PlannedLeaf::New);
    let leaves = edit.add_leaves(Stream::Append, leaves);
    match last {
        Some(last) => edit.replace(&last.branch, last.items(), leaves),
        None => edit.append(leaves),
    }
    Ok(())
}
