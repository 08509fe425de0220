//! The page tree: all revisions of one shard that a checkpoint has made durable, in one file.
//!
//! A copy-on-write B+tree from [`Revision`](crate::revision::Revision) to the encoded KeyValue (DESIGN 3.3). New
//! revisions are always the highest, so leaves are packed full and never split; what a compaction drops is only
//! *marked* in the branch above, until little of a leaf lives and the rest of it is written elsewhere.
//!
//! ```text
//!   manifest ─► TreeRoot ─► branch ─► branch ─► leaf: header │ slots: revision, previous, place, crc │ KeyValues
//!                             │ entry: first revision, child and its crc, birth, counts, dead marks of a leaf
//!                          MapRoot ─► allocator: which pages are in use
//!
//!   Pages ── fetch, scan, verify ──► PageCache        PageWriter ── commit ──► new pages ─► new TreeRoot
//! ```
//!
//! Invariants:
//! * A page that a durable or pinned root reaches is never written. A commit writes new pages only, syncs once, and
//!   answers roots that count when a manifest names them; until then it can be taken back.
//! * Every byte that is answered was checked on its way from the disk: a page head against the CRC, birth and place
//!   that its parent names, an entry against the CRC-32C in its slot. The cache holds only what was checked.
//! * A revision's bytes never change, so an entry in the cache is right for every root that has it.
//! * Counts in a branch entry are the sums below it; the dead marks of a leaf are as many as its parent says.
//! * No job holds more in memory than its result, one wave of reads or writes, and the branches on its way.
//!
//! It does not know keys, leases or compaction rules: what is dead is told to it. It never repairs and never guesses.
//!
//! # Shrinking
//! Its place is `leaf_rewrite`: to empty the last region, leaves that stand there count as sparse and branches that
//! stand there as changed, a bounded number per commit; the allocator then hands out no page of that region, and when
//! it is empty the file is truncated after the manifest is durable. A hole that was punched has to be reserved again
//! before it is written.
//!
//! Reading order: the layouts (`docs/disk-format-pages.md`), then reading, then writing.

pub mod allocator;

mod branch;
mod dead_marks;
mod leaf;
mod little_endian;
mod page_header;
mod tree_root;

mod error;
mod fetch;
mod page_cache;
mod page_file;
mod read_queue;
mod scan;
mod verify;

mod commit;
mod last_leaf;
mod leaf_rewrite;
mod page_writer;
mod page_writes;
mod placement;
mod repack;
mod tidying;
mod tree_changes;
mod tree_edit;
mod tree_plan;

#[cfg(test)]
mod tests;

pub use branch::{BRANCH_BYTES, BRANCH_ENTRY_BYTES, HEIGHT_MAX};
pub use commit::Commit;
pub use dead_marks::DeadMarks;
pub use error::PagesError;
pub use fetch::Fetch;
pub use leaf::{ENTRY_BYTES_MAX, LEAF_BYTES, LEAF_SLOTS_MAX, NewEntry, SLOT_BYTES, entry_crc32c};
pub use leaf_rewrite::RewriteLimits;
pub use page_cache::{FileTag, PageCache, PageCacheStats};
pub use page_file::Pages;
pub use page_header::{PAGE_FORMAT_VERSION, PAGE_HEADER_BYTES, PageRef};
pub use page_writer::PageWriter;
pub use read_queue::{READ_GAP_BYTES_MAX, READ_JOINED_BYTES_MAX, READS_IN_FLIGHT_MAX};
pub use scan::{Scan, ScanChunk, ScannedSlot};
pub use tidying::SPARSE_LEAVES_MAX;
pub use tree_changes::{CommitError, CommitFailure, Committed, TreeChanges};
pub use tree_root::{PinnedRoot, SharedRoot, TREE_ROOT_BYTES, TREE_ROOT_VERSION, TreeRoot};
pub use verify::{Surveyed, SurveyedEntry, Verified, Verify, VerifyError};
