//! Which leaves a commit writes anew, because little of them lives.

use std::ops::Range;

use super::allocator::Stream;
use super::last_leaf::LastLeaf;
use super::leaf::{LEAF_BYTES, LEAF_SLOTS_MAX};
use super::page_header::PAGE_HEADER_BYTES;
use super::repack::{PlannedLeaf, Repack};
use super::tidying::Tidying;
use super::tree_edit::{Below, EditBranch, EditItem, TreeEdit};
use super::tree_root::TreeRoot;

/// Leaves rewritten in any commit, at least: 2 MiB.
const LEAVES_MIN: u64 = 64;
/// Bytes of leaves rewritten for each byte appended. A leaf of which [`PERCENT_PRESSED`] lives gives two fifths of what
/// is read of it, so that garbage does not grow while such leaves wait.
const REWRITTEN_PER_APPENDED: u64 = 3;
/// The part of what is too much that one commit pays off, and how much that is at most.
const DEBT_PART: u64 = 8;
const DEBT_BYTES_MAX: u64 = 64 << 20;
/// A leaf is sparse when less than this part of it lives, as long as nothing presses.
const PERCENT: u8 = 40;
/// When less than this part of all that is stored lives, leaves are sparse that are no better: there are some.
const PERCENT_PRESSED: u8 = 60;
/// As much when next to nothing is written: then space is worth more than writes.
const PERCENT_QUIET: u8 = 80;

/// How much a commit tidies up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RewriteLimits {
    /// A leaf is rewritten when less than this part of its bytes lives; 100 rewrites every partly dead leaf.
    pub live_percent: u8,
    /// Leaves read for rewriting in one commit, at most.
    pub leaves_max: usize,
    /// Branches of leaves that one commit visits only to look for sparse leaves; a sweep begins when a file is opened.
    pub sweep_branches_max: usize,
    /// Whether the file is to become as short as it can: what stands at its end is rewritten too, at its beginning.
    pub shrinks: bool,
    /// A leaf or branch that begins at or behind this page stands at the end; a commit that shrinks the file sets it.
    pub end_page: u64,
}

impl Default for RewriteLimits {
    fn default() -> Self {
        let (shrinks, end_page) = (false, u64::MAX);
        Self { live_percent: PERCENT, leaves_max: LEAVES_MIN as usize, sweep_branches_max: 4, shrinks, end_page }
    }
}

impl RewriteLimits {
    /// Every partly dead leaf, and the end of the file, in pieces of 256 MiB, so that what they leave is reused by the next
    /// piece.
    pub const ALL: Self =
        Self { live_percent: 100, leaves_max: 8192, sweep_branches_max: usize::MAX, shrinks: true, end_page: u64::MAX };

    /// As much as keeps the garbage in the tree of `root` bounded while `appended_bytes` are added to it
    /// (`docs/decisions/0008-rewriting-keeps-pace.md`).
    pub fn paced(root: &TreeRoot, appended_bytes: u64) -> Self {
        let garbage = root.stored_bytes.saturating_sub(root.live_bytes);
        let debt = (garbage.saturating_sub(root.live_bytes / 4) / DEBT_PART).min(DEBT_BYTES_MAX);
        let bytes = appended_bytes.saturating_mul(REWRITTEN_PER_APPENDED).max(debt);
        let leaves_max = (bytes / LEAF_BYTES as u64).max(LEAVES_MIN);
        let quiet = appended_bytes < LEAVES_MIN * LEAF_BYTES as u64;
        let live_percent = match u128::from(root.live_bytes) * 100 / u128::from(root.stored_bytes.max(1)) {
            _ if root.stored_bytes == 0 => PERCENT,
            0..80 if quiet => PERCENT_QUIET,
            0..60 => PERCENT_PRESSED,
            _ => PERCENT,
        };
        Self { live_percent, leaves_max: leaves_max as usize, sweep_branches_max: 64, ..Self::default() }
    }
}

/// Drops the leaves in which nothing lives, and puts a new leaf in the place of each run of sparse ones among the opened
/// branches. `tidying` learns what was looked at, and what has to wait.
///
/// `last` is the leaf that the append rewrites itself. What stands at the end of a file that is to shrink counts as sparse.
pub(super) fn rewrite_sparse(
    edit: &mut TreeEdit,
    limits: &RewriteLimits,
    last: Option<&LastLeaf>,
    tidying: &mut Tidying,
) {
    let mut left = limits.leaves_max;
    let (mut freed, mut runs) = (Vec::new(), Vec::new());
    edit.for_each_leaf_branch(&mut |path, branch| {
        if let [first, ..] = &branch.items[..] {
            tidying.seen(first.entry.first, branch.items[branch.items.len() - 1].entry.first);
        }
        for item in branch.items.iter_mut().filter(|item| item.entry.live_entries == 0) {
            item.below = Below::Leaves(Vec::new());
            freed.push(item.entry.child);
            branch.changed = true;
        }
        branch.changed |= stands_at_end(branch, limits);
        let end = match last {
            Some(last) if last.branch == path => last.item,
            _ => branch.items.len(),
        };
        for items in sparse_runs(&branch.items[..end], limits) {
            let items = widened(branch, items, end);
            let now = items.start..items.end.min(items.start + left);
            left -= now.len();
            if now.end < items.end {
                tidying.wait(branch.items[now.end].entry.first);
            }
            if !now.is_empty() {
                runs.push((path.to_vec(), now));
            }
        }
    });
    edit.freed.extend(freed);
    for (path, items) in runs {
        let repack = Repack::new(&edit.branch_mut(&path).items[items.clone()]);
        let leaf = edit.add_leaves(Stream::Rewrite, [PlannedLeaf::Repack(repack)]);
        edit.replace(&path, items, leaf);
    }
}

/// How many leaves of an opened branch [`rewrite_sparse`] would drop or rewrite, and the branch itself.
pub(super) fn sparse_pages(branch: &EditBranch, limits: &RewriteLimits) -> usize {
    let sparse = |item: &&EditItem| item.entry.live_entries == 0 || is_sparse(item, limits);
    branch.items.iter().filter(sparse).count() + usize::from(stands_at_end(branch, limits))
}

fn stands_at_end(branch: &EditBranch, limits: &RewriteLimits) -> bool {
    branch.origin.is_some_and(|origin| origin.extent.page >= limits.end_page)
}

/// What lives in such a leaf fits a leaf, whatever a damaged parent says.
fn is_sparse(item: &EditItem, limits: &RewriteLimits) -> bool {
    let entry = &item.entry;
    let mostly_dead =
        u128::from(entry.live_bytes) * 100 < u128::from(entry.stored_bytes) * u128::from(limits.live_percent);
    // One large entry has a leaf of its own, and is never partly dead.
    let fits = fits_one_leaf(std::slice::from_ref(item));
    let large = entry.entries == 1 && entry.live_bytes == entry.stored_bytes;
    entry.live_entries > 0 && (mostly_dead && fits || entry.child.extent.page >= limits.end_page && (fits || large))
}

/// Runs of sparse leaves, each filling about one new leaf.
fn sparse_runs(items: &[EditItem], limits: &RewriteLimits) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for (index, item) in items.iter().enumerate() {
        if !matches!(item.below, Below::Page) || !is_sparse(item, limits) {
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
    let slots: u64 = items.iter().map(|item| item.entry.live_entries).fold(0, u64::saturating_add);
    bytes <= (LEAF_BYTES - PAGE_HEADER_BYTES) as u64 && slots <= LEAF_SLOTS_MAX as u64
}
