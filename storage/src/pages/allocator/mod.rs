//! The free-page allocator of one page file: which 4 KiB pages are in use, and who may have the next ones.
//!
//! It is pure: it reads and writes nothing. A call that needs a page of the map answers
//! [`AllocatorError::Load`] before it changed anything; the caller reads that page, hands it to
//! [`Allocator::load`] and calls again. [`Allocator::prepare`] hands out the pages to write.
//!
//! ```text
//!   MapRoot ──► map root page ──► index pages ──► bitmap pages        region, 32,768 pages = 128 MiB
//!  (manifest)      (A / B)     (252 regions, A/B)  (one a region, A/B)   ┌ head, 8 pages ┬ data ... ┐
//! ```
//!
//! The map is a tree of fixed shape and fixed places (`docs/disk-format-pages-map.md`), so that it never allocates
//! for itself: every map page has two slots, and a commit writes only dirty pages, each into the slot that the last
//! durable root does not use. In memory a region that was touched keeps two bitmaps, 8 KiB; the others keep a hint.
//!
//! One write transaction at a time:
//!
//! ```text
//!   begin ─► allocate / free ... ─► prepare ─► [write, sync, manifest durable] ─► committed
//!                    └───────────────┴──────────────────────────────────────────► abandoned
//! ```
//!
//! Invariants:
//! * What the last durable root needs is never handed out: a page that a transaction frees is allocatable only after
//!   its [`Allocator::committed`], and only once no reader that could see it is left.
//! * A reader at transaction `r` needs a page iff `birth <= r < freed in`. A long reader pins only what was alive at
//!   its start.
//! * On disk a freed page counts as free in the map of the commit that freed it: after a restart there are no readers.
//! * The available pages are a subset of the free ones. An extent never crosses a region and never covers a head.
//! * A hint may say too much, never too little.
//!
//! # Shrinking
//! A commit that is to shrink the file takes all extents from its beginning ([`Allocator::pack`]), moves what stands at
//! its end by ordinary copy on write, and gives up the steps at the end in which every page is available
//! ([`Allocator::shrink`]): no durable map and no reader needs them, so that the caller may cut the file as soon as the
//! manifest is durable.
//!
//! It does not split a request over several extents (`docs/decisions/0009-an-extent-is-one-run.md`), does not evict loaded
//! bitmaps, and knows nothing of trees.

mod bitmap;
mod deadlists;
mod error;
mod extent;
mod extent_allocator;
#[cfg(test)]
mod growth_tests;
mod layout;
mod map_page;
mod map_root;
#[cfg(test)]
mod model_tests;
mod readers;
mod region;
mod run_tree;
mod space_map;
#[cfg(test)]
mod tests;

pub use error::AllocatorError;
pub use extent::{Extent, Stream, TransactionId};
pub use extent_allocator::{Allocator, Prepared};
pub use layout::{EXTENT_PAGES_MAX, FILE_PAGES_MAX, GROWTH_PAGES, PAGE_SIZE, REGION_HEAD_PAGES, REGION_PAGES};
pub use map_root::{MAP_ROOT_LEN, MapRoot};
pub use readers::{ReaderPin, Readers};
