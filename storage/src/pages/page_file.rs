//! The reading face of one page file.

use std::sync::Arc;

use bytes::Bytes;

use crate::disk::FileId;
use crate::revision::Revision;

use super::allocator::{MapRoot, PAGE_SIZE};
use super::branch::{Branch, BranchEntry};
use super::error::PagesError;
use super::fetch::Fetch;
use super::leaf::{LeafHead, Slot, leaf_head_bytes};
use super::page_cache::{FileTag, Node, PageCache};
use super::page_header::{Flaw, PageRef};
use super::read_queue::ReadQueue;
use super::scan::Scan;
use super::tree_root::SharedRoot;
use super::verify::Verify;

/// Reads trees of one file; cheap to clone, used by any number of readers at once.
#[derive(Clone, Debug)]
pub struct Pages {
    file: FileId,
    tag: FileTag,
    cache: Arc<PageCache>,
}

impl Pages {
    /// Reads `file`, which no other file of `cache` shares its `tag` with, not even one that is gone.
    pub fn new(file: FileId, tag: FileTag, cache: Arc<PageCache>) -> Self {
        Self { file, tag, cache }
    }

    /// The KeyValues of `revisions`, in their order; duplicates are fine.
    ///
    /// An answer is `None` if the tree has no such revision: it was never there, lies above the root, or was dropped
    /// after it was marked dead. Marked entries that still exist are answered, and one that was dropped may still be
    /// while the cache holds it: a caller asks only for what its index says is there.
    ///
    /// If the cache holds them all, the first step is the last (given the budget). Else the ways down are read level by
    /// level, in the order of the disk, neighbours joined; a leaf of which many entries are wanted is read as a whole.
    /// Memory: the answers, and at most 32 reads of 1 MiB (or one entry) each. The budget's unit is a revision.
    pub fn fetch(&self, root: SharedRoot, revisions: Vec<Revision>) -> Fetch {
        Fetch::new(self.clone(), root, revisions)
    }

    /// The slots from `from` to `to` inclusive, at most `limit` (at least 1) of them; with `values`, their KeyValues.
    ///
    /// Without `values` only slot tables are read. With them whole leaves are, past the cache, and the KeyValues are
    /// slices of reads of up to 1 MiB: copy what is to live long. The budget's unit is a slot.
    pub fn scan(&self, root: SharedRoot, from: Revision, to: Revision, limit: usize, values: bool) -> Scan {
        Scan::new(self.clone(), root, from, to, limit, values)
    }

    /// Reads and checks the whole tree past the cache, and that `map_root`, of the same commit, agrees with it.
    ///
    /// A step reads at most 4 MiB or one leaf, whatever the budget.
    pub fn verify(&self, root: SharedRoot, map_root: MapRoot) -> Verify {
        Verify::new(self.clone(), root, map_root)
    }

    /// As [`Self::verify`], but goes on behind damage and gives all entries: see [`Verify::take_surveyed`], to be asked
    /// after each step. It ends with an error only if this program is at fault.
    pub fn survey(&self, root: SharedRoot, map_root: MapRoot) -> Verify {
        Verify::survey(self.clone(), root, map_root)
    }

    /// The file it reads.
    pub fn file(&self) -> FileId {
        self.file
    }

    /// The entry of `revision`, if the cache holds it.
    pub(super) fn cached_entry(&self, revision: Revision) -> Option<Bytes> {
        self.cache.entry(self.tag, revision)
    }

    /// Has the cache let go of the entries of revisions that are dead.
    pub(super) fn forget_entries(&self, dead: &[Revision]) {
        self.cache.forget_entries(self.tag, dead);
    }

    #[cfg(test)]
    pub(super) fn cached_bytes(&self) -> u64 {
        self.cache.stats().bytes
    }

    /// Has the cache let go of pages that no newer root reaches.
    pub(super) fn forget_nodes(&self, pages: &[PageRef]) {
        self.cache.forget_nodes(self.tag, pages);
    }

    /// The page `at`, if the cache holds it.
    pub(super) fn cached_node(&self, at: &NodeRef) -> Option<Node> {
        self.cache.node(self.tag, &at.page)
    }

    /// Checks what was read for [`NodeRef::want`], and keeps it.
    pub(super) fn admit_node(&self, at: &NodeRef, bytes: &[u8]) -> Result<Node, PagesError> {
        let node = at.decode(bytes)?;
        self.cache.keep_node(self.tag, node.clone());
        Ok(node)
    }

    /// Checks an entry and keeps it; the copy owns its allocation.
    pub(super) fn admit_entry(&self, leaf: &PageRef, slot: &Slot, key_value: &[u8]) -> Result<Bytes, PagesError> {
        if !slot.matches(key_value) {
            return Err(PagesError::CorruptEntry { page: leaf.extent.page, revision: slot.revision });
        }
        let owned = Bytes::copy_from_slice(key_value);
        self.cache.keep_entry(self.tag, slot.revision, owned.clone());
        Ok(owned)
    }
}

/// A page as its parent names it: all that is needed to read it.
#[derive(Clone, Copy, Debug)]
pub(super) struct NodeRef {
    pub page: PageRef,
    /// 0 for a leaf.
    pub level: u8,
    /// Slots below: of a leaf, its own.
    pub slots: u64,
}

impl NodeRef {
    /// The root page of a tree.
    pub fn root(root: &super::tree_root::TreeRoot) -> Option<Self> {
        root.page.map(|page| Self { page, level: root.height, slots: root.entries })
    }

    /// The child that an entry of a branch of `level` names.
    pub fn child(level: u8, entry: &BranchEntry) -> Self {
        Self { page: entry.child, level: level - 1, slots: entry.entries }
    }

    /// Asks for as much of the page as [`Self::decode`] needs: of a leaf only the blocks of its slot table.
    pub fn want<T>(&self, reads: &mut ReadQueue<T>, token: T) {
        let bytes = match self.level {
            0 => leaf_head_bytes(self.slots as usize).next_multiple_of(PAGE_SIZE).min(self.page.bytes()),
            _ => self.page.bytes(),
        };
        reads.want(self.page.offset(), bytes, token);
    }

    /// Asks for all of the page.
    pub fn want_whole<T>(&self, reads: &mut ReadQueue<T>, token: T) {
        reads.want(self.page.offset(), self.page.bytes(), token);
    }

    /// Checks and decodes it.
    pub fn decode(&self, bytes: &[u8]) -> Result<Node, PagesError> {
        match self.level {
            0 => self.decode_leaf(bytes).map(Node::Leaf),
            level => {
                let branch = Branch::decode(&self.page, level, bytes).map_err(|flaw| self.corrupt(flaw))?;
                Ok(Node::Branch(Arc::new(branch)))
            }
        }
    }

    /// Checks and decodes the head of a leaf.
    pub fn decode_leaf(&self, bytes: &[u8]) -> Result<Arc<LeafHead>, PagesError> {
        let leaf = LeafHead::decode(&self.page, self.slots, bytes).map_err(|flaw| self.corrupt(flaw))?;
        Ok(Arc::new(leaf))
    }

    /// The error that this page is not what it should be.
    pub fn corrupt(&self, flaw: Flaw) -> PagesError {
        PagesError::Corrupt { page: self.page.extent.page, flaw }
    }
}
