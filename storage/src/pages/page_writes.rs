//! The writes of a commit: encoded in waves, so that memory holds one wave and not the whole commit.

use bytes::{Bytes, BytesMut};

use crate::disk::{FileId, Io};

use super::allocator::{Extent, PAGE_SIZE, TransactionId};
use super::branch::{Branch, BranchEntry};
use super::page_header::PageRef;
use super::placement::Placement;
use super::tree_plan::{PlannedItem, Source, TreePlan};

/// Bytes encoded and handed out at the same time, unless one leaf is larger.
const WAVE_BYTES: usize = 8 * 1024 * 1024;
/// Pages that stand in a row are written together up to this.
const WRITE_BYTES: usize = 1024 * 1024;

/// Encodes a placed plan: leaves, then branches bottom-up, then the map.
#[derive(Debug)]
pub(super) struct PageWrites {
    plan: TreePlan,
    placement: Placement,
    birth: TransactionId,
    /// References of the pages encoded so far.
    leaves: Vec<PageRef>,
    branches: Vec<PageRef>,
    /// Map pages and their places, last first.
    map: Vec<(u64, Bytes)>,
}

impl PageWrites {
    pub fn new(plan: TreePlan, placement: Placement, birth: TransactionId, mut map: Vec<(u64, Bytes)>) -> Self {
        map.reverse();
        Self { plan, placement, birth, leaves: Vec::new(), branches: Vec::new(), map }
    }

    /// The next writes; `None` when everything was handed out.
    pub fn next_wave(&mut self, file: FileId) -> Option<Vec<Io>> {
        let mut wave = Wave { file, writes: Vec::new(), offset: 0, open: BytesMut::new(), bytes: 0 };
        while wave.bytes < WAVE_BYTES && self.encode_next(&mut wave) {}
        wave.close();
        (!wave.writes.is_empty()).then_some(wave.writes)
    }

    fn encode_next(&mut self, wave: &mut Wave) -> bool {
        if let Some((_, leaf)) = self.plan.leaves.get(self.leaves.len()) {
            let extent = self.placement.leaves[self.leaves.len()];
            self.leaves.push(leaf.encode(extent, self.birth, wave.at(extent)));
        } else if let Some(branch) = self.plan.branches.get(self.branches.len()) {
            let extent = self.placement.branches[self.branches.len()];
            let entries: Vec<_> = branch.items.iter().map(|item| self.entry(item)).collect();
            self.branches.push(Branch::encode(branch.level, &entries, extent, self.birth, wave.at(extent)));
        } else if let Some((page, bytes)) = self.map.pop() {
            wave.at(Extent { page, pages: 1 }).extend_from_slice(&bytes);
        } else {
            return false;
        }
        true
    }

    /// A planned entry with its page, which was encoded before.
    fn entry(&self, item: &PlannedItem) -> BranchEntry {
        let child = match item.source {
            Source::Durable => item.entry.child,
            Source::Leaf(leaf) => self.leaves[leaf],
            Source::Branch(branch) => self.branches[branch],
        };
        BranchEntry { child, ..item.entry.clone() }
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
