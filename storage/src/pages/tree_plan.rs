//! What a changed tree will look like: which branches are written, bottom-up, and what becomes of the root.

use super::allocator::{PAGE_SIZE, Stream};
use super::branch::{BRANCH_ENTRIES_BYTES, BRANCH_ENTRY_BYTES_MAX, BranchEntry};
use super::dead_marks::DeadMarks;
use super::page_header::{PAGE_HEADER_BYTES, PageRef};
use super::repack::PlannedLeaf;
use super::tree_edit::{Below, EditItem, TreeEdit, UNPLACED};

/// A child of a branch to be written.
#[derive(Debug)]
pub(super) struct PlannedItem {
    pub entry: BranchEntry,
    pub source: Source,
}

/// Where the page stands that a planned entry names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// Where it always stood.
    Durable,
    /// Where this new leaf is put.
    Leaf(usize),
    /// Where this planned branch is put; it stands before its parent in the list.
    Branch(usize),
}

/// A branch to be written.
#[derive(Debug)]
pub(super) struct PlannedBranch {
    pub level: u8,
    pub items: Vec<PlannedItem>,
}

impl PlannedBranch {
    /// Pages it takes.
    pub fn pages(&self) -> u32 {
        let bytes: usize = self.items.iter().map(|item| item.entry.encoded_bytes()).sum();
        (PAGE_HEADER_BYTES + bytes).div_ceil(PAGE_SIZE) as u32
    }

    fn entry(&self) -> BranchEntry {
        let sum = |field: fn(&BranchEntry) -> u64| {
            self.items.iter().map(|item| field(&item.entry)).fold(0, u64::saturating_add)
        };
        BranchEntry {
            first: self.items[0].entry.first,
            child: UNPLACED,
            entries: sum(|entry| entry.entries),
            live_entries: sum(|entry| entry.live_entries),
            live_bytes: sum(|entry| entry.live_bytes),
            stored_bytes: sum(|entry| entry.stored_bytes),
            dead: DeadMarks::default(),
        }
    }
}

/// All that a commit does to the pages of the tree.
#[derive(Debug)]
pub(super) struct TreePlan {
    pub leaves: Vec<(Stream, PlannedLeaf)>,
    /// Children before parents.
    pub branches: Vec<PlannedBranch>,
    pub freed: Vec<PageRef>,
    /// The root and the height below which it stands; `None` for an empty tree.
    pub root: Option<(PlannedItem, u8)>,
}

impl TreePlan {
    /// Settles a changed tree: neighbouring changed branches are packed together, so that they split when marks made
    /// them grow and merge when their leaves went; a root with one branch below it is left out.
    pub fn new(mut edit: TreeEdit) -> Self {
        edit.top.spread_changed();
        let TreeEdit { top, leaves, freed } = edit;
        let mut plan = Self { leaves, branches: Vec::new(), freed, root: None };
        let mut level = top.level;
        let mut items = plan.settle(level, top.items, true);
        // `items` stand below a branch of `level`, which is the one above the root.
        while items.len() > 1 || (level == 1 && !items.is_empty()) {
            items = plan.pack(level, items, true);
            level += 1;
        }
        plan.root = items.pop().map(|item| plan.collapse(item, level - 1));
        plan
    }

    /// The children of a branch of `level` as they will be.
    fn settle(&mut self, level: u8, items: Vec<EditItem>, last: bool) -> Vec<PlannedItem> {
        let mut settled = Vec::with_capacity(items.len());
        // Grandchildren, of a run of changed children.
        let mut run = Vec::new();
        let end = items.len();
        for (index, item) in items.into_iter().enumerate() {
            match item.below {
                Below::Branch(child) if child.changed => {
                    self.freed.extend(child.origin);
                    run.extend(self.settle(child.level, child.items, last && index + 1 == end));
                }
                Below::Page | Below::Branch(_) => {
                    settled.extend(self.pack(level - 1, std::mem::take(&mut run), false));
                    settled.push(PlannedItem { entry: item.entry, source: Source::Durable });
                }
                Below::Leaves(new) => settled.extend(
                    new.into_iter()
                        .map(|leaf| PlannedItem { entry: self.leaves[leaf].1.entry(), source: Source::Leaf(leaf) }),
                ),
            }
        }
        settled.extend(self.pack(level.saturating_sub(1), run, last));
        settled
    }

    /// Cuts children into branches of `level`. At the right edge of the tree they are packed full, because only
    /// there something is added; elsewhere they are cut evenly, which leaves room for dead marks.
    fn pack(&mut self, level: u8, items: Vec<PlannedItem>, last: bool) -> Vec<PlannedItem> {
        let bytes: usize = items.iter().map(|item| item.entry.encoded_bytes()).sum();
        let branches = bytes.div_ceil(BRANCH_ENTRIES_BYTES - BRANCH_ENTRY_BYTES_MAX).max(1);
        let target = if last { BRANCH_ENTRIES_BYTES } else { bytes.div_ceil(branches) };
        let mut packed = Vec::with_capacity(branches);
        let (mut open, mut filled) = (Vec::new(), 0);
        for item in items {
            let length = item.entry.encoded_bytes();
            if !open.is_empty() && (filled >= target || filled + length > BRANCH_ENTRIES_BYTES) {
                packed.push(self.plan_branch(level, std::mem::take(&mut open)));
                filled = 0;
            }
            filled += length;
            open.push(item);
        }
        if !open.is_empty() {
            packed.push(self.plan_branch(level, open));
        }
        packed
    }

    fn plan_branch(&mut self, level: u8, items: Vec<PlannedItem>) -> PlannedItem {
        let branch = PlannedBranch { level, items };
        let item = PlannedItem { entry: branch.entry(), source: Source::Branch(self.branches.len()) };
        self.branches.push(branch);
        item
    }

    /// Goes down from a planned root as long as it would have a single branch below it.
    fn collapse(&mut self, mut root: PlannedItem, mut height: u8) -> (PlannedItem, u8) {
        while let Source::Branch(index) = root.source
            && height > 1
            && self.branches[index].items.len() == 1
        {
            assert_eq!(index + 1, self.branches.len(), "the root is planned last");
            let mut branch = self.branches.pop().expect("it was just looked at");
            root = branch.items.pop().expect("it has one item");
            height -= 1;
        }
        (root, height)
    }
}
