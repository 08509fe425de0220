//! The leaves that a commit writes anew: which they are, what lives in them, and what becomes of it.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;

use crate::revision::Revision;

use super::allocator::Stream;
use super::error::PagesError;
use super::leaf::{LEAF_BYTES, LEAF_SLOTS_MAX, LeafHead, NewEntry, NewLeaf};
use super::leaf_rewrite::{Rewrite, choose};
use super::page_file::NodeRef;
use super::page_header::PAGE_HEADER_BYTES;
use super::tree_changes::TreeChanges;
use super::tree_edit::{Path, TreeEdit};

/// Runs of sparse leaves, and the last leaf if the append goes on in it.
#[derive(Debug)]
pub(super) struct Gathering {
    runs: Vec<Rewrite>,
    /// The branch of the last leaf and its item there.
    reopened: Option<(Path, usize)>,
    /// What was read, by page number.
    whole: HashMap<u64, (Arc<LeafHead>, Bytes)>,
}

impl Gathering {
    /// Picks the leaves, after all marks were made; with them the first revisions of sparse leaves that have to wait.
    pub fn choose(edit: &mut TreeEdit, changes: &TreeChanges) -> (Self, BTreeSet<Revision>) {
        let reopened = changes.appended.first().and_then(|first| last_leaf_with_room(edit, first));
        let keep = reopened.as_ref().map(|(path, item)| (path, *item));
        let rewrites = choose(edit, &changes.rewrite, keep);
        (Self { runs: rewrites.runs, reopened, whole: HashMap::new() }, rewrites.waiting)
    }

    /// The leaves to be read.
    pub fn leaves(&self, edit: &mut TreeEdit) -> Vec<NodeRef> {
        let runs = self.runs.iter().map(|run| (&run.branch, run.items.clone()));
        let last = self.reopened.iter().map(|(path, item)| (path, *item..*item + 1));
        let mut leaves = Vec::new();
        for (path, items) in runs.chain(last) {
            leaves.extend(edit.branch_mut(path).items[items].iter().map(|item| NodeRef::child(1, &item.entry)));
        }
        leaves
    }

    /// Takes a leaf that was read.
    pub fn take(&mut self, at: &NodeRef, bytes: Bytes) -> Result<(), PagesError> {
        self.whole.insert(at.page.extent.page, (at.decode_leaf(&bytes)?, bytes));
        Ok(())
    }

    /// Packs what lives in the leaves, and behind the last one what is appended, into new leaves.
    pub fn pack(self, edit: &mut TreeEdit, appended: Vec<NewEntry>) -> Result<(), PagesError> {
        for run in &self.runs {
            let mut live = Vec::new();
            for item in run.items.clone() {
                live.extend(self.live_entries(edit, &run.branch, item)?);
            }
            let leaves = edit.add_leaves(Stream::Rewrite, NewLeaf::pack(live));
            edit.replace(&run.branch, run.items.clone(), leaves);
        }
        match &self.reopened {
            Some((path, item)) => {
                let live = self.live_entries(edit, path, *item)?;
                let leaves = edit.add_leaves(Stream::Append, NewLeaf::pack(live.into_iter().chain(appended)));
                edit.replace(path, *item..*item + 1, leaves);
            }
            None => {
                let leaves = edit.add_leaves(Stream::Append, NewLeaf::pack(appended));
                edit.append(leaves);
            }
        }
        Ok(())
    }

    /// The entries of a leaf that are not dead, each checked: nothing corrupt is carried on under a fresh checksum.
    fn live_entries(&self, edit: &mut TreeEdit, path: &[usize], item: usize) -> Result<Vec<NewEntry>, PagesError> {
        let entry = &edit.branch_mut(path).items[item].entry;
        let page = entry.child.extent.page;
        let (leaf, bytes) = self.whole.get(&page).expect("every leaf that is written anew was read");
        let live = leaf.slots().enumerate().filter(|(index, _)| !entry.dead.is_dead(*index));
        let checked = live.map(|(_, slot)| {
            let corrupt = |_| PagesError::CorruptEntry { page, revision: slot.revision };
            leaf.entry(&slot, bytes).map_err(corrupt)
        });
        checked.collect()
    }
}

/// The last leaf, if `first` fits behind what lives in it.
fn last_leaf_with_room(edit: &mut TreeEdit, first: &NewEntry) -> Option<(Path, usize)> {
    let (path, branch) = edit.last_leaf_branch();
    let item = branch.items.len().checked_sub(1)?;
    let entry = &branch.items[item].entry;
    let filled = (PAGE_HEADER_BYTES as u64).saturating_add(entry.live_bytes);
    let fits = filled.saturating_add(first.stored_bytes() as u64) <= LEAF_BYTES as u64
        && (1..LEAF_SLOTS_MAX as u64).contains(&entry.live_entries);
    fits.then_some((path, item))
}
