//! The writes of a commit: read, where leaves are repacked, and encoded in waves, so that memory holds one wave and not
//! the whole commit.

use std::collections::HashMap;

use bytes::{Bytes, BytesMut};

use crate::disk::{FileId, Io};
use crate::revision::Revision;

use super::allocator::{Extent, PAGE_SIZE, TransactionId};
use super::branch::{Branch, BranchEntry};
use super::error::PagesError;
use super::page_file::NodeRef;
use super::page_header::PageRef;
use super::placement::Placement;
use super::repack::PlannedLeaf;
use super::tree_plan::{PlannedItem, Source, TreePlan};

/// Bytes encoded and handed out at the same time, unless one leaf is larger; and so many are read for it.
const WAVE_BYTES: usize = 8 * 1024 * 1024;
/// Pages that stand in a row are written together up to this.
const WRITE_BYTES: usize = 256 * 1024;

/// Encodes a placed plan: leaves, then branches bottom-up, then the map.
#[derive(Debug)]
pub(super) struct PageWrites {
    plan: TreePlan,
    placement: Placement,
    birth: TransactionId,
    /// The pages encoded so far.
    leaves: Vec<Encoded>,
    branches: Vec<Encoded>,
    /// Durable leaves that were read for the leaves to be encoded next, by page number.
    read: HashMap<u64, Bytes>,
    /// Map pages and their places, last first.
    map: Vec<(u64, Bytes)>,
}

/// What a parent has to know of a page that was encoded.
#[derive(Clone, Copy, Debug)]
struct Encoded {
    page: PageRef,
    first: Revision,
}

impl PageWrites {
    pub fn new(plan: TreePlan, placement: Placement, birth: TransactionId, mut map: Vec<(u64, Bytes)>) -> Self {
        map.reverse();
        let (leaves, branches, read) = (Vec::new(), Vec::new(), HashMap::new());
        Self { plan, placement, birth, leaves, branches, read, map }
    }

    /// The leaves that are to be read before the next [`Self::next_wave`]; none if it can go on without.
    pub fn wanted(&self) -> Vec<NodeRef> {
        let (mut wanted, mut bytes) = (Vec::new(), 0);
        for (_, leaf) in &self.plan.leaves[self.leaves.len()..] {
            match leaf {
                PlannedLeaf::Repack(repack) if !repack.is_read(&self.read) => {
                    bytes += repack.source_bytes();
                    if !wanted.is_empty() && bytes > WAVE_BYTES {
                        break;
                    }
                    wanted.extend(repack.sources.iter().map(|source| source.at));
                }
                _ => break,
            }
        }
        wanted
    }

    /// Takes a leaf that was read.
    pub fn take(&mut self, at: &NodeRef, bytes: Bytes) {
        self.read.insert(at.page.extent.page, bytes);
    }

    /// The next writes; `None` when everything was handed out.
    ///
    /// # Errors
    /// [`PagesError`] when a leaf that was read is not what it should be.
    pub fn next_wave(&mut self, file: FileId) -> Result<Option<Vec<Io>>, PagesError> {
        let mut wave = Wave { file, writes: Vec::new(), offset: 0, open: BytesMut::new(), bytes: 0 };
        while wave.bytes < WAVE_BYTES && self.encode_next(&mut wave)? {}
        wave.close();
        Ok((!wave.writes.is_empty()).then_some(wave.writes))
    }

    /// Encodes one page; false at the end of the wave.
    fn encode_next(&mut self, wave: &mut Wave) -> Result<bool, PagesError> {
        if let Some((_, leaf)) = self.plan.leaves.get(self.leaves.len()) {
            let extent = self.placement.leaves[self.leaves.len()];
            let repacked;
            let leaf = match leaf {
                PlannedLeaf::New(leaf) => leaf,
                PlannedLeaf::Repack(repack) if repack.is_read(&self.read) => {
                    repacked = repack.pack(&mut self.read)?;
                    &repacked
                }
                PlannedLeaf::Repack(_) => return Ok(false),
            };
            let page = leaf.encode(extent, self.birth, wave.at(extent));
            self.leaves.push(Encoded { page, first: leaf.first() });
        } else if let Some(branch) = self.plan.branches.get(self.branches.len()) {
            let extent = self.placement.branches[self.branches.len()];
            let entries: Vec<_> = branch.items.iter().map(|item| self.entry(item)).collect();
            let page = Branch::encode(branch.level, &entries, extent, self.birth, wave.at(extent));
            self.branches.push(Encoded { page, first: entries[0].first });
        } else if let Some((page, bytes)) = self.map.pop() {
            wave.at(Extent { page, pages: 1 }).extend_from_slice(&bytes);
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    /// Pages that the new tree does without.
    pub fn into_freed(self) -> Vec<PageRef> {
        self.plan.freed
    }

    /// A planned entry with its page, which was encoded before, and the first revision that is really there.
    fn entry(&self, item: &PlannedItem) -> BranchEntry {
        let Encoded { page, first } = match item.source {
            Source::Durable => return item.entry.clone(),
            Source::Leaf(leaf) => self.leaves[leaf],
            Source::Branch(branch) => self.branches[branch],
        };
        BranchEntry { child: page, first, ..item.entry.clone() }
    }

    /// The entry of the root page and the height of the tree, once everything was handed out.
    pub fn root(&self) -> Option<(BranchEntry, u8)> {
        self.plan.root.as_ref().map(|(item, height)| (self.entry(item), *height))
    }
}

/// Writes being gathered; pages in a row become one.
struct Wave {
    file: FileId,
    writes: Vec<Io>,
    offset: u64,
    open: BytesMut,
    bytes: usize,
}

impl Wave {
    /// The buffer whose end is the beginning of `extent`; the caller appends exactly the extent's bytes.
    fn at(&mut self, extent: Extent) -> &mut BytesMut {
        let offset = extent.page * PAGE_SIZE as u64;
        if self.offset + self.open.len() as u64 != offset || self.open.len() >= WRITE_BYTES {
            self.close();
            self.offset = offset;
        }
        self.bytes += extent.pages as usize * PAGE_SIZE;
        &mut self.open
    }

    fn close(&mut self) {
        if !self.open.is_empty() {
            let bytes = self.open.split().freeze();
            self.writes.push(Io::Write { file: self.file, offset: self.offset, bytes });
        }
    }
}
