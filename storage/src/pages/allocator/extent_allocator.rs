//! The allocator: one write transaction at a time over a [`SpaceMap`].

use std::sync::Arc;

use bytes::Bytes;

use super::deadlists::{Dead, Deadlists};
use super::error::AllocatorError;
use super::extent::{Extent, Stream, TransactionId};
use super::layout::{EXTENT_PAGES_MAX, GROWTH_PAGES, REGION_HEAD_PAGES, REGION_PAGES};
use super::map_root::MapRoot;
use super::readers::Readers;
use super::run_tree::REGION_BLOCKS;
use super::space_map::{Shrunk, SpaceMap, Staged};

/// Pages of all but leaves of a single large value.
const SHORT_PAGES_MAX: u32 = 8;

/// What a commit must make durable before the manifest that names `root`.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// Map pages, each with its place in the file, in pages. Empty if the map did not change.
    pub writes: Vec<(u64, Bytes)>,
    /// The root that the manifest then names.
    pub root: MapRoot,
}

/// Hands out and takes back the pages of one file.
///
/// Calls out of order (an allocation without [`Self::begin`], a [`Self::committed`] without [`Self::prepare`]) are
/// bugs of ours and panic.
pub struct Allocator {
    map: SpaceMap,
    readers: Arc<Readers>,
    deadlists: Deadlists,
    /// The region where each stream allocates first.
    current: [Option<usize>; Stream::COUNT],
    newest: TransactionId,
    transaction: Option<Transaction>,
}

/// The open write transaction.
struct Transaction {
    id: TransactionId,
    /// What happened since `begin`, in order.
    changes: Vec<Change>,
    file_pages_before: u64,
    /// Whether all extents are taken from the beginning of the file.
    packs: bool,
    /// The end of the file was given up: nothing is handed out any more.
    shrunk: bool,
    staged: Option<Staged>,
}

enum Change {
    Allocated(Extent),
    Freed(Dead),
    Shrunk(Shrunk),
}

impl Allocator {
    /// The allocator of a new file, which is one growth step long and holds only the head of region 0.
    pub fn create() -> Self {
        Self::new(SpaceMap::create(), TransactionId(0))
    }

    /// The allocator of a file whose durable map is `root`. Nothing is read: O(regions) in memory.
    ///
    /// # Errors
    /// [`AllocatorError::MalformedRoot`].
    pub fn open(root: MapRoot) -> Result<Self, AllocatorError> {
        let newest = root.transaction;
        Ok(Self::new(SpaceMap::open(root)?, newest))
    }

    fn new(map: SpaceMap, newest: TransactionId) -> Self {
        let (deadlists, current) = (Deadlists::default(), [None; Stream::COUNT]);
        Self { map, readers: Readers::new(newest), deadlists, current, newest, transaction: None }
    }

    /// Opens a write transaction, and makes available what readers that are gone had kept.
    ///
    /// # Panics
    /// If one is open, or if `transaction` is not newer than the last commit.
    pub fn begin(&mut self, transaction: TransactionId) {
        assert!(self.transaction.is_none(), "a transaction is open already");
        assert!(transaction > self.newest, "transaction {} follows {}", transaction.0, self.newest.0);
        for extent in self.deadlists.collect(&self.readers.pinned()) {
            self.map.release(extent);
        }
        let file_pages_before = self.map.file_pages();
        let (changes, packs, shrunk, staged) = (Vec::new(), false, false, None);
        self.transaction = Some(Transaction { id: transaction, changes, file_pages_before, packs, shrunk, staged });
    }

    /// Lets this transaction take long extents from the beginning of the file too, so that its end can be given up.
    ///
    /// # Panics
    /// Without [`Self::begin`].
    pub fn pack(&mut self) {
        self.transaction.as_mut().expect("pack without begin").packs = true;
    }

    /// Gives up the end of the file, in whole growth steps, as far as nobody needs a page there: no tree, no durable map, no
    /// reader. The file may be cut when the manifest is durable. Nothing may be allocated after it.
    ///
    /// # Errors
    /// [`AllocatorError::Load`], after which it is called again, and what loading met.
    ///
    /// # Panics
    /// Without [`Self::begin`], or after [`Self::prepare`].
    pub fn shrink(&mut self) -> Result<(), AllocatorError> {
        self.transaction.as_mut().expect("shrink without begin").shrunk = true;
        while let Some(shrunk) = self.map.shrink_step()? {
            self.record(Change::Shrunk(shrunk));
        }
        self.forget_lost_regions();
        Ok(())
    }

    /// About how many pages a file needs that holds what this one holds: an eighth more, in whole growth steps.
    pub fn packed_pages(&self) -> u64 {
        let used = self.used_pages();
        (used + used / 8).next_multiple_of(GROWTH_PAGES)
    }

    fn forget_lost_regions(&mut self) {
        for current in &mut self.current {
            *current = current.filter(|region| *region < self.map.regions());
        }
    }

    /// Takes `pages` consecutive pages: the lowest that fit in the stream's current region, else the lowest of a
    /// region where no other stream is, else the lowest of all; only then the file grows.
    ///
    /// More than 8 are taken from the other end of the file, whatever the stream, so that short extents do not cut up
    /// the holes that long ones leave (`docs/decisions/0009-an-extent-is-one-run.md`).
    ///
    /// O(log regions) and a scan of 64 words; a hint that was too high costs another such scan, once.
    ///
    /// # Errors
    /// [`AllocatorError::Load`] and [`AllocatorError::Damaged`] of the map; [`AllocatorError::ExtentSize`];
    /// [`AllocatorError::Full`]. Nothing is taken then.
    pub fn allocate(&mut self, stream: Stream, pages: u32) -> Result<Extent, AllocatorError> {
        let transaction = self.transaction.as_ref().expect("allocate without begin");
        assert!(!transaction.shrunk, "allocate after shrink");
        if pages == 0 || pages > EXTENT_PAGES_MAX {
            return Err(AllocatorError::ExtentSize(pages));
        }
        let extent = loop {
            match self.find(stream, pages)? {
                Some(extent) => break extent,
                None => self.map.grow()?,
            }
        };
        assert!(self.lies_in_data(extent), "{extent:?} leaves the data of its region");
        self.map.take(extent);
        if pages <= SHORT_PAGES_MAX {
            self.current[stream as usize] = Some(extent.region());
        }
        self.record(Change::Allocated(extent));
        Ok(extent)
    }

    fn find(&mut self, stream: Stream, pages: u32) -> Result<Option<Extent>, AllocatorError> {
        let packs = self.transaction.as_ref().is_some_and(|transaction| transaction.packs);
        if pages > SHORT_PAGES_MAX && !packs {
            return self.map.last_fit(pages);
        }
        let current = self.current;
        if let Some(region) = current[stream as usize] {
            let blocks = region * REGION_BLOCKS..(region + 1) * REGION_BLOCKS;
            if let Some(extent) = self.map.first_fit(blocks, pages, |_| false)? {
                return Ok(Some(extent));
            }
        }
        let blocks = 0..self.map.regions() * REGION_BLOCKS;
        if let Some(extent) = self.map.first_fit(blocks.clone(), pages, |region| current.contains(&Some(region)))? {
            return Ok(Some(extent));
        }
        self.map.first_fit(blocks, pages, |_| false)
    }

    /// Gives back pages that `birth` allocated; a part of an extent may be given back too.
    ///
    /// They become available after [`Self::committed`], once no reader at a transaction from `birth` on is left.
    ///
    /// # Errors
    /// [`AllocatorError::DoubleFree`] if a page is free already, [`AllocatorError::BadExtent`],
    /// [`AllocatorError::Load`] and [`AllocatorError::Damaged`] of the map. Nothing is freed then.
    pub fn free(&mut self, extent: Extent, birth: TransactionId) -> Result<(), AllocatorError> {
        let transaction = self.transaction.as_ref().expect("free without begin").id;
        if !self.lies_in_data(extent) || birth > transaction {
            return Err(AllocatorError::BadExtent(extent));
        }
        if let Some(free) = self.map.bitmaps(extent.region())?.free.first_set(extent.span()) {
            let page = extent.page - extent.page % REGION_PAGES + free as u64;
            return Err(AllocatorError::DoubleFree { page, birth, transaction });
        }
        self.map.set_free(extent);
        self.record(Change::Freed(Dead { extent, birth }));
        Ok(())
    }

    /// Whether an allocation can have returned it.
    fn lies_in_data(&self, extent: Extent) -> bool {
        let (start, pages) = (extent.page % REGION_PAGES, u64::from(extent.pages));
        let in_region = pages > 0 && start >= REGION_HEAD_PAGES && start + pages <= REGION_PAGES;
        in_region && extent.page.checked_add(pages).is_some_and(|end| end <= self.map.file_pages())
    }

    fn record(&mut self, change: Change) {
        let transaction = self.transaction.as_mut().expect("checked by every caller");
        assert!(transaction.staged.is_none(), "changed after prepare");
        transaction.changes.push(change);
    }

    /// Takes over a page that an [`AllocatorError::Load`] asked for.
    ///
    /// # Errors
    /// [`AllocatorError::Damaged`] if its bytes are not what was written, [`AllocatorError::NotInMap`] if the map
    /// does not use that page.
    pub fn load(&mut self, page: u64, bytes: &[u8]) -> Result<(), AllocatorError> {
        self.map.load(page, bytes)
    }

    /// What this transaction must write of the map: dirty bitmap pages, their index pages, and the root page, each
    /// into the slot that the last durable root does not use. Nothing may be allocated or freed after it.
    ///
    /// # Errors
    /// None in this version: what a commit touches was loaded by the calls that touched it.
    ///
    /// # Panics
    /// Without [`Self::begin`].
    pub fn prepare(&mut self) -> Result<Prepared, AllocatorError> {
        let transaction = self.transaction.as_mut().expect("prepare without begin");
        let staged = self.map.stage(transaction.id);
        let prepared = Prepared { writes: staged.writes.clone(), root: staged.root.clone() };
        transaction.staged = Some(staged);
        Ok(prepared)
    }

    /// Ends the transaction: a manifest that names the prepared root is durable. What it freed becomes available as
    /// soon as no reader needs it.
    ///
    /// # Panics
    /// Without [`Self::prepare`].
    pub fn committed(&mut self) {
        let transaction = self.transaction.take().expect("committed without begin");
        self.map.install(transaction.staged.expect("committed without prepare"));
        self.newest = transaction.id;
        let pinned = self.readers.advance(transaction.id);
        let older = &pinned[..pinned.partition_point(|reader| *reader < transaction.id)];
        for change in transaction.changes {
            if let Change::Freed(dead) = change
                && let Some(extent) = self.deadlists.add(dead, older)
            {
                self.map.release(extent);
            }
        }
    }

    /// Ends the transaction as if it had never begun; the next one may have the same number, and writes into the same
    /// slots.
    ///
    /// # Panics
    /// Without [`Self::begin`].
    pub fn abandoned(&mut self) {
        let transaction = self.transaction.take().expect("abandoned without begin");
        for change in transaction.changes.into_iter().rev() {
            match change {
                Change::Freed(dead) => self.map.unset_free(dead.extent),
                Change::Allocated(extent) => {
                    self.map.set_free(extent);
                    self.map.release(extent);
                }
                Change::Shrunk(shrunk) => self.map.unshrink(shrunk),
            }
        }
        self.map.restore(transaction.file_pages_before);
        self.forget_lost_regions();
    }

    /// Where readers of this file pin their transaction.
    pub fn readers(&self) -> Arc<Readers> {
        Arc::clone(&self.readers)
    }

    /// Pages of the file, the open transaction's growth included.
    pub fn file_pages(&self) -> u64 {
        self.map.file_pages()
    }

    /// Pages that the open transaction's map, or without one the durable map, says are free; those that wait for a
    /// commit or a reader are among them.
    pub fn free_pages(&self) -> u64 {
        self.map.free_pages()
    }

    /// All other pages, region heads included.
    pub fn used_pages(&self) -> u64 {
        self.file_pages() - self.free_pages()
    }
}
