//! A tree in memory while a commit changes it: only the branches on the way to a change are opened.

use std::ops::Range;

use crate::revision::Revision;

use super::allocator::{Extent, Stream, TransactionId};
use super::branch::{Branch, BranchEntry};
use super::leaf::LeafHead;
use super::page_cache::Node;
use super::page_file::{NodeRef, Pages};
use super::page_header::{Flaw, PageRef};
use super::repack::PlannedLeaf;
use super::tree_root::TreeRoot;

/// A way down: positions of children from the top. Positions are stable until the plan is made.
pub(super) type Path = Vec<usize>;

/// A branch that was opened.
#[derive(Debug)]
pub(super) struct EditBranch {
    pub level: u8,
    /// The durable page it was read from; `None` only for the top.
    pub origin: Option<PageRef>,
    pub items: Vec<EditItem>,
    pub changed: bool,
}

/// A child of an opened branch.
#[derive(Debug)]
pub(super) struct EditItem {
    /// What the durable branch says, with the marks of this commit.
    pub entry: BranchEntry,
    pub below: Below,
}

/// What becomes of a child.
#[derive(Debug)]
pub(super) enum Below {
    /// It stays the durable page that the entry names.
    Page,
    /// It was opened.
    Branch(EditBranch),
    /// These new leaves stand in its place; none if it is dropped.
    Leaves(Vec<usize>),
}

/// Which of the dead revisions fall to one leaf.
#[derive(Debug)]
pub(super) struct MarkTask {
    pub branch: Path,
    pub item: usize,
    pub at: NodeRef,
    /// Their places in the list of all dead: the list is shared, because it may be as long as the tree.
    pub dead: Range<usize>,
}

/// The tree being changed, and the leaves that will be new in it.
#[derive(Debug)]
pub(super) struct TreeEdit {
    /// A branch above the root, so that the root is a child like any other. Of an empty tree it is a branch of
    /// leaves, without any.
    pub top: EditBranch,
    pub leaves: Vec<(Stream, PlannedLeaf)>,
    /// Pages that the new tree no longer reaches.
    pub freed: Vec<PageRef>,
}

impl TreeEdit {
    pub fn new(root: &TreeRoot) -> Self {
        let items = root.as_entry().map(|entry| EditItem { entry, below: Below::Page }).into_iter().collect();
        let top = EditBranch { level: root.height + 1, origin: None, items, changed: false };
        Self { top, leaves: Vec::new(), freed: Vec::new() }
    }

    /// Opens what the cache holds of the branches above `wanted` (ascending); returns those it lacks.
    pub fn open_cached(&mut self, wanted: &[Revision], pages: &Pages) -> Vec<(Path, NodeRef)> {
        let mut missing = Vec::new();
        open_below(&mut self.top, wanted, pages, &mut Vec::new(), &mut missing);
        missing
    }

    /// Puts a branch that was read where [`Self::open_cached`] missed it.
    pub fn open(&mut self, path: &[usize], branch: &Branch) {
        let (item, above) = path.split_last().expect("a missing branch has one above it");
        self.branch_mut(above).items[*item].below = Below::Branch(EditBranch::open(branch));
    }

    /// The opened branch at the end of `path`.
    pub fn branch_mut(&mut self, path: &[usize]) -> &mut EditBranch {
        path.iter().fold(&mut self.top, |branch, item| match &mut branch.items[*item].below {
            Below::Branch(child) => child,
            other => unreachable!("a path leads through {other:?}"),
        })
    }

    /// Calls `visit` for every opened branch of leaves, in order.
    pub fn for_each_leaf_branch(&mut self, visit: &mut impl FnMut(&[usize], &mut EditBranch)) {
        visit_leaf_branches(&mut self.top, &mut Vec::new(), visit);
    }

    /// The leaf that `dead[from]` falls to, with all of `dead` (ascending) that falls to it; `None` at the end. The
    /// branches above must be open.
    ///
    /// One descent a leaf, so that a caller can stop after any of them; nothing is kept but what it returns.
    pub fn next_mark(&self, dead: &[Revision], from: usize) -> Option<MarkTask> {
        let next = *dead.get(from)?;
        let (mut branch, mut path, mut before) = (&self.top, Path::new(), None);
        loop {
            let item = branch.child_of(next)?;
            before = branch.items.get(item + 1).map(|after| after.entry.first).or(before);
            match &branch.items[item].below {
                Below::Branch(child) => {
                    path.push(item);
                    branch = child;
                }
                Below::Page if branch.level == 1 => {
                    let at = NodeRef::child(1, &branch.items[item].entry);
                    let share = dead[from..].partition_point(|dead| before.is_none_or(|before| *dead < before));
                    return Some(MarkTask { branch: path, item, at, dead: from..from + share });
                }
                other => unreachable!("the way to a mark leads through {other:?}"),
            }
        }
    }

    /// Marks `dead` in the overlay of the leaf that `task` names. Revisions that are not there or marked already are
    /// left alone.
    pub fn mark(&mut self, task: &MarkTask, dead: &[Revision], leaf: &LeafHead) -> Result<(), Flaw> {
        let branch = self.branch_mut(&task.branch);
        let entry = &mut branch.items[task.item].entry;
        for revision in &dead[task.dead.clone()] {
            if let Some((index, slot)) = leaf.find(*revision)
                && entry.dead.mark(index, leaf.len())
            {
                let bytes = entry.live_bytes.checked_sub(slot.stored_bytes());
                entry.live_bytes = bytes.ok_or("fewer live bytes than its live slots have")?;
                entry.live_entries -= 1;
                branch.changed = true;
            }
        }
        Ok(())
    }

    /// The first revision under the branch of leaves after the one that `revision` falls in.
    pub fn leaf_branch_after(&self, revision: Revision) -> Option<Revision> {
        let (mut branch, mut next) = (&self.top, None);
        while branch.level > 1 {
            let after = branch.items.partition_point(|item| item.entry.first <= revision).max(1);
            next = branch.items.get(after).map(|item| item.entry.first).or(next);
            match branch.items.get(after - 1).map(|item| &item.below) {
                Some(Below::Branch(child)) => branch = child,
                _ => break,
            }
        }
        next
    }

    /// The opened branch of leaves that `revision` falls in, with its path; `None` if it is not open.
    pub fn leaf_branch(&mut self, revision: Revision) -> Option<(Path, &mut EditBranch)> {
        let (mut branch, mut path) = (&self.top, Path::new());
        while branch.level > 1 {
            let item = branch.child_of(revision)?;
            let Below::Branch(child) = &branch.items[item].below else { return None };
            path.push(item);
            branch = child;
        }
        let branch = self.branch_mut(&path);
        Some((path, branch))
    }

    /// Lets go of an opened branch that nothing changed.
    pub fn close(&mut self, path: &[usize]) {
        let Some((item, above)) = path.split_last() else { return };
        self.branch_mut(above).items[*item].below = Below::Page;
    }

    /// The rightmost branch of leaves, which must be open, and its path.
    pub fn last_leaf_branch(&mut self) -> (Path, &mut EditBranch) {
        let mut path = Path::new();
        let mut branch = &self.top;
        while branch.level > 1 {
            let item = branch.items.len() - 1;
            path.push(item);
            match &branch.items[item].below {
                Below::Branch(child) => branch = child,
                other => unreachable!("the rightmost path is open, not {other:?}"),
            }
        }
        let branch = self.branch_mut(&path);
        (path, branch)
    }

    /// Adds leaves to be written; returns their numbers.
    pub fn add_leaves(&mut self, stream: Stream, leaves: impl IntoIterator<Item = PlannedLeaf>) -> Vec<usize> {
        let first = self.leaves.len();
        self.leaves.extend(leaves.into_iter().map(|leaf| (stream, leaf)));
        (first..self.leaves.len()).collect()
    }

    /// Puts new leaves in the place of a run of durable ones.
    pub fn replace(&mut self, path: &[usize], items: Range<usize>, leaves: Vec<usize>) {
        let branch = self.branch_mut(path);
        branch.changed = true;
        let replaced = &mut branch.items[items];
        let pages: Vec<_> = replaced.iter().map(|item| item.entry.child).collect();
        replaced.iter_mut().for_each(|item| item.below = Below::Leaves(Vec::new()));
        replaced[0].below = Below::Leaves(leaves);
        self.freed.extend(pages);
    }

    /// Puts new leaves after all others. The rightmost path must be open.
    pub fn append(&mut self, leaves: Vec<usize>) {
        let Some(first) = leaves.first() else { return };
        let entry = self.leaves[*first].1.entry();
        let (_, branch) = self.last_leaf_branch();
        branch.changed = true;
        branch.items.push(EditItem { entry, below: Below::Leaves(leaves) });
    }
}

impl EditBranch {
    fn open(branch: &Branch) -> Self {
        let item = |entry: &BranchEntry| EditItem { entry: entry.clone(), below: Below::Page };
        let items = branch.entries.iter().map(item).collect();
        Self { level: branch.level, origin: Some(*branch.reference()), items, changed: false }
    }

    /// The child that `revision` falls to. What lies before the first child falls to it.
    fn child_of(&self, revision: Revision) -> Option<usize> {
        let item = self.items.partition_point(|item| item.entry.first <= revision).saturating_sub(1);
        (item < self.items.len()).then_some(item)
    }

    /// Which of `wanted` (ascending) falls to which child; children without any are left out.
    fn shares<'w>(&self, wanted: &'w [Revision]) -> Vec<(usize, &'w [Revision])> {
        let mut shares = Vec::new();
        let mut rest = wanted;
        while let Some(next) = rest.first() {
            let Some(item) = self.child_of(*next) else { break };
            let end = match self.items.get(item + 1) {
                Some(after) => rest.partition_point(|revision| *revision < after.entry.first),
                None => rest.len(),
            };
            shares.push((item, &rest[..end]));
            rest = &rest[end..];
        }
        shares
    }

    /// Notes in every opened branch whether anything below it changed.
    pub fn spread_changed(&mut self) -> bool {
        for item in &mut self.items {
            if let Below::Branch(child) = &mut item.below {
                self.changed |= child.spread_changed();
            }
        }
        self.changed
    }
}

/// Stands where the place of a page is not known yet; no page has it.
pub(super) const UNPLACED: PageRef = PageRef { extent: Extent { page: 0, pages: 0 }, crc: 0, birth: TransactionId(0) };

fn open_below(
    branch: &mut EditBranch,
    wanted: &[Revision],
    pages: &Pages,
    path: &mut Path,
    missing: &mut Vec<(Path, NodeRef)>,
) {
    if branch.level == 1 {
        return;
    }
    for (index, share) in branch.shares(wanted) {
        path.push(index);
        let item = &mut branch.items[index];
        if matches!(item.below, Below::Page) {
            let at = NodeRef::child(branch.level, &item.entry);
            match pages.cached_node(&at) {
                Some(Node::Branch(child)) => item.below = Below::Branch(EditBranch::open(&child)),
                _ => missing.push((path.clone(), at)),
            }
        }
        if let Below::Branch(child) = &mut item.below {
            open_below(child, share, pages, path, missing);
        }
        path.pop();
    }
}

fn visit_leaf_branches(branch: &mut EditBranch, path: &mut Path, visit: &mut impl FnMut(&[usize], &mut EditBranch)) {
    if branch.level == 1 {
        return visit(path, branch);
    }
    for (index, item) in branch.items.iter_mut().enumerate() {
        if let Below::Branch(child) = &mut item.below {
            path.push(index);
            visit_leaf_branches(child, path, visit);
            path.pop();
        }
    }
}
