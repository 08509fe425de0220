//! Which leaves a commit writes anew, because little of them lives.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::revision::Revision;

use super::branch::BranchEntry;
use super::leaf::{LEAF_BYTES, LEAF_SLOTS_MAX};
use super::page_header::PAGE_HEADER_BYTES;
use super::tree_edit::{Below, EditBranch, EditItem, Path, TreeEdit};

/// Sparse leaves that a writer remembers when it may not rewrite them yet; others are found again by the sweep.
pub const SPARSE_LEAVES_MAX: usize = 65_536;

/// How much a commit tidies up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RewriteLimits {
    /// A leaf is rewritten when less than this part of its bytes lives; 100 rewrites every partly dead leaf.
    pub live_percent: u8,
    /// Leaves read for rewriting in one commit, at most.
    pub leaves_max: usize,
    /// Branches of leaves that one commit visits only to look for sparse leaves; a sweep begins when a file is opened.
    pub sweep_branches_max: usize,
}

impl Default for RewriteLimits {
    fn default() -> Self {
        Self { live_percent: 40, leaves_max: 64, sweep_branches_max: 4 }
    }
}

/// A run of neighbouring leaves whose live entries are packed together.
#[derive(Debug)]
pub(super) struct Rewrite {
    pub branch: Path,
    pub items: Range<usize>,
}

/// What [`choose`] found.
#[derive(Debug, Default)]
pub(super) struct Rewrites {
    pub runs: Vec<Rewrite>,
    /// First revisions of sparse leaves that have to wait.
    pub waiting: BTreeSet<Revision>,
}

/// Drops the leaves in which nothing lives, and picks runs of sparse leaves among the opened branches.
///
/// `keep` is the item of the last branch that the append rewrites itself. Here is also the place for evacuating the
/// last region of a file that shrinks: a leaf that stands there would count as sparse, and a branch as changed.
pub(super) fn choose(edit: &mut TreeEdit, limits: &RewriteLimits, keep: Option<(&Path, usize)>) -> Rewrites {
    let mut rewrites = Rewrites::default();
    let mut left = limits.leaves_max;
    let mut freed = Vec::new();
    edit.for_each_leaf_branch(&mut |path, branch| {
        for item in branch.items.iter_mut().filter(|item| item.entry.live_entries == 0) {
            item.below = Below::Leaves(Vec::new());
            freed.push(item.entry.child);
            branch.changed = true;
        }
        let end = match keep {
            Some((last, item)) if last == path => item,
            _ => branch.items.len(),
        };
        for items in sparse_runs(&branch.items[..end], limits.live_percent) {
            let items = widened(branch, items, end);
            let now = items.start..items.end.min(items.start + left);
            left -= now.len();
            if now.end < items.end && rewrites.waiting.len() < SPARSE_LEAVES_MAX {
                rewrites.waiting.insert(branch.items[now.end].entry.first);
            }
            if !now.is_empty() {
                rewrites.runs.push(Rewrite { branch: path.to_vec(), items: now });
            }
        }
    });
    edit.freed.extend(freed);
    rewrites
}

fn is_sparse(entry: &BranchEntry, live_percent: u8) -> bool {
    entry.live_entries > 0
        && u128::from(entry.live_bytes) * 100 < u128::from(entry.stored_bytes) * u128::from(live_percent)
}

/// Runs of sparse leaves, each filling about one new leaf.
fn sparse_runs(items: &[EditItem], live_percent: u8) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for (index, item) in items.iter().enumerate() {
        if !matches!(item.below, Below::Page) || !is_sparse(&item.entry, live_percent) {
            continue;
        }
        match runs.last_mut() {
            Some(run) if run.end == index && fits_one_leaf(&items[run.start..=index]) => run.end = index + 1,
            _ => runs.push(index..index + 1),
        }
    }
    runs
}

/// Takes a small neighbour along, so that rewriting does not leave rows of tiny leaves.
fn widened(branch: &EditBranch, items: Range<usize>, end: usize) -> Range<usize> {
    let is_page = |item: usize| matches!(branch.items[item].below, Below::Page);
    if items.end < end && is_page(items.end) && fits_one_leaf(&branch.items[items.start..=items.end]) {
        return items.start..items.end + 1;
    }
    items
}

fn fits_one_leaf(items: &[EditItem]) -> bool {
    let bytes: u64 = items.iter().map(|item| item.entry.live_bytes).fold(0, u64::saturating_add);
    let slots: u64 = items.iter().map(|item| item.entry.live_entries).sum();
    bytes <= (LEAF_BYTES - PAGE_HEADER_BYTES) as u64 && slots <= LEAF_SLOTS_MAX as u64
}
