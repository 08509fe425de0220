//! The single writer of a page file.

use std::sync::Arc;

use super::allocator::{Allocator, AllocatorError, MapRoot, PAGE_SIZE, Readers, TransactionId};
use super::commit::Commit;
use super::leaf_rewrite::RewriteLimits;
use super::page_file::Pages;
use super::page_header::PageRef;
use super::tidying::Tidying;
use super::tree_changes::TreeChanges;
use super::tree_root::{PinnedRoot, SharedRoot, TreeRoot};
use crate::disk::Io;

/// Owns the free pages and the newest root of one file.
///
/// ```text
///   commit ─► [job: read, mark, pack, reserve, write, sync] ─► Committed ─► [manifest] ─► committed
///                        └─► CommitError, undone ─┐                └──────────────────► abandoned
///                                                 └─► writer, as before
/// ```
///
/// * Nothing that the last durable root reaches is overwritten, map pages included, until [`Self::committed`].
/// * Between a [`Commit`]'s end and [`Self::committed`] or [`Self::abandoned`] no other commit may begin.
pub struct PageWriter {
    pub(super) pages: Pages,
    pub(super) allocator: Allocator,
    pub(super) root: TreeRoot,
    /// Pages of the file whose space is reserved.
    pub(super) reserved_pages: u64,
    pub(super) tidying: Tidying,
    /// Commits in a row that were to shrink the file and did not.
    vain_shrinks: u8,
    /// Pages of the file after the last commit.
    committed_pages: u64,
    /// Pages that the newest root does without, which only readers of older ones may still ask for.
    pub(super) left_behind: Vec<PageRef>,
    /// What becomes current when the manifest is durable.
    pub(super) outcome: Option<Outcome>,
}

impl std::fmt::Debug for PageWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PageWriter").field("root", &self.root).finish_non_exhaustive()
    }
}

/// The state after a commit.
#[derive(Debug)]
pub(super) struct Outcome {
    pub root: TreeRoot,
    pub tidying: Tidying,
    /// Pages that it does without.
    pub freed: Vec<PageRef>,
    /// Whether it was to shrink the file.
    pub shrinks: bool,
}

/// More commits than any file lives to see; those that follow must have numbers too.
const TRANSACTION_MAX: u64 = 1 << 62;

/// So many commits in a row may be in vain before a file counts as short as it gets: what one frees another can use, and
/// a third can give up what that has left.
const VAIN_SHRINKS_MAX: u8 = 3;

impl PageWriter {
    /// The writer of an empty file. Nothing is written before the first commit.
    pub fn create(pages: Pages) -> Self {
        Self { reserved_pages: 0, ..Self::new(pages, Allocator::create(), TreeRoot::EMPTY, Tidying::done()) }
    }

    /// A writer whose file has the pages that its allocator knows.
    fn new(pages: Pages, allocator: Allocator, root: TreeRoot, tidying: Tidying) -> Self {
        Self {
            pages,
            root,
            reserved_pages: allocator.file_pages(),
            tidying,
            vain_shrinks: 0,
            committed_pages: allocator.file_pages(),
            allocator,
            left_behind: Vec::new(),
            outcome: None,
        }
    }

    /// The writer of a file at the roots that the manifest names. Nothing is read.
    ///
    /// It knows no pins of an earlier writer: in a running process, open a file anew (after its writer was lost in a
    /// commit that was given up) only when no root of it is read any more.
    ///
    /// # Errors
    /// [`AllocatorError::MalformedRoot`].
    pub fn open(pages: Pages, root: TreeRoot, map_root: MapRoot) -> Result<Self, AllocatorError> {
        if map_root.transaction() > root.transaction {
            return Err(AllocatorError::MalformedRoot("of a later commit than its tree"));
        }
        if root.transaction.0 > TRANSACTION_MAX {
            return Err(AllocatorError::MalformedRoot("of a commit that no file came to"));
        }
        let allocator = Allocator::open(map_root)?;
        let all_live = root.live_bytes == root.stored_bytes;
        let tidying = if all_live { Tidying::done() } else { Tidying::unknown() };
        Ok(Self::new(pages, allocator, root, tidying))
    }

    /// Writes `changes` and makes them durable, but for the manifest.
    ///
    /// `transaction` is above that of every earlier commit; the number of an abandoned one may be taken again. The
    /// job reads and writes in waves of at most 8 MiB or one entry and does one wave a step; the budget's unit is a
    /// leaf to be marked or a branch to be looked at.
    ///
    /// # Panics
    /// If the last commit was neither [`Self::committed`] nor [`Self::abandoned`], or `transaction` is not newer.
    pub fn commit(mut self, transaction: TransactionId, changes: TreeChanges) -> Commit {
        assert!(self.outcome.is_none(), "the last commit was not ended");
        assert!(transaction > self.root.transaction, "transaction {} is not newer", transaction.0);
        self.allocator.begin(transaction);
        Commit::new(self, transaction, changes)
    }

    /// The manifest that names the last commit's roots is durable: they are current, and what only older ones need
    /// is free once no reader is there.
    ///
    /// # Panics
    /// If no commit ended.
    pub fn committed(&mut self) {
        let outcome = self.outcome.take().expect("committed without a commit");
        self.allocator.committed();
        self.root = outcome.root;
        self.tidying = outcome.tidying;
        self.left_behind = outcome.freed;
        let before = std::mem::replace(&mut self.committed_pages, self.allocator.file_pages());
        let in_vain = outcome.shrinks && self.committed_pages >= before;
        self.vain_shrinks = if in_vain { self.vain_shrinks.saturating_add(1) } else { 0 };
    }

    /// The request that cuts off what the file has behind the pages that the last commit left it, if it has. To be performed
    /// when [`Self::committed`] was called; if it fails, the file stays longer than it need be, up to the next start.
    pub fn cut(&mut self) -> Option<Io> {
        let pages = self.allocator.file_pages();
        let surplus = self.reserved_pages > pages;
        self.reserved_pages = self.reserved_pages.min(pages);
        surplus.then(|| Io::Truncate { file: self.pages.file(), length: pages * PAGE_SIZE as u64 })
    }

    /// The last commit's roots will never be in a manifest: it is as if it had not been.
    ///
    /// # Panics
    /// If no commit ended.
    pub fn abandoned(&mut self) {
        self.outcome.take().expect("abandoned without a commit");
        self.allocator.abandoned();
    }

    /// The newest durable root.
    pub fn root(&self) -> &TreeRoot {
        &self.root
    }

    /// The newest durable root, pinned for readers.
    pub fn pinned_root(&self) -> SharedRoot {
        Arc::new(PinnedRoot { root: self.root.clone(), pin: self.allocator.readers().pin(self.root.transaction) })
    }

    /// Where readers of this file pin their transactions.
    pub fn readers(&self) -> Arc<Readers> {
        self.allocator.readers()
    }

    /// The reading face of the file.
    pub fn pages(&self) -> &Pages {
        &self.pages
    }

    /// Pages that the file has by the roots that it was opened at; what lies behind them is nobody's.
    pub fn reserved_pages(&self) -> u64 {
        self.reserved_pages
    }

    /// Pages of the file.
    pub fn file_pages(&self) -> u64 {
        self.allocator.file_pages()
    }

    /// Pages in use, the heads of regions included.
    pub fn used_pages(&self) -> u64 {
        self.allocator.used_pages()
    }

    /// Whether no leaf waits to be rewritten, by the measure of the last commit.
    pub fn is_tidy(&self) -> bool {
        self.tidying.is_done()
    }

    /// Whether a commit of `limits` finds nothing to rewrite or to give up. If not, commits without changes go on with it.
    pub fn is_tidy_by(&self, limits: &RewriteLimits) -> bool {
        self.tidying.is_done_by(limits.live_percent) && !(limits.shrinks && self.may_shrink())
    }

    /// Whether the file is longer than it need be, as far as anybody knows.
    pub(super) fn may_shrink(&self) -> bool {
        self.vain_shrinks < VAIN_SHRINKS_MAX && self.allocator.packed_pages() < self.allocator.file_pages()
    }
}
