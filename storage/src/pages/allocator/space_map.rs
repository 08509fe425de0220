//! The map of a whole file: what is free and what may be handed out. [`loading`] and [`staging`] are its way from and
//! to the disk.

mod loading;
mod staging;

use std::ops::Range;

use super::bitmap::BITS;
use super::error::AllocatorError;
use super::extent::Extent;
use super::layout::{
    EXTENT_PAGES_MAX, FILE_PAGES_MAX, GROWTH_PAGES, MAP_FANOUT, REGION_HEAD_PAGES, REGION_PAGES, regions_of,
};
use super::map_page::MapEntry;
use super::map_root::MapRoot;
use super::region::{Bitmaps, Region};
use super::run_tree::{BLOCK_PAGES, REGION_BLOCKS, RunTree};

pub(super) use staging::Staged;

/// An index page.
struct Index {
    /// What the durable map root page says of it: `None` until that is loaded, or if the index page is younger.
    entry: Option<MapEntry>,
    /// Whether its regions know their entries.
    loaded: bool,
}

/// The end of a file that was given up.
pub(super) struct Shrunk {
    /// Its pages within the last region, but for the head of one.
    span: Range<usize>,
    /// The last region and index page, if they went with it.
    region: Option<Region>,
    index: Option<Index>,
}

/// Which pages are free.
pub(super) struct SpaceMap {
    durable: Option<MapRoot>,
    indexes: Vec<Index>,
    regions: Vec<Region>,
    runs: RunTree,
    file_pages: u64,
    free_pages: u64,
}

impl SpaceMap {
    /// The map of a new file.
    pub(super) fn create() -> Self {
        let mut map = Self {
            durable: None,
            indexes: Vec::new(),
            regions: Vec::new(),
            runs: RunTree::new(REGION_BLOCKS),
            file_pages: 0,
            free_pages: 0,
        };
        map.grow().expect("a new file needs no load and has room");
        map
    }

    /// The durable map `root`, of which nothing is loaded.
    pub(super) fn open(root: MapRoot) -> Result<Self, AllocatorError> {
        root.check()?;
        let regions = regions_of(root.file_pages);
        let indexes = regions.div_ceil(MAP_FANOUT);
        let mut map = Self {
            indexes: (0..indexes).map(|_| Index { entry: None, loaded: false }).collect(),
            regions: (0..regions).map(|_| Region::unloaded()).collect(),
            runs: RunTree::new(regions * REGION_BLOCKS),
            file_pages: root.file_pages,
            free_pages: root.free_pages,
            durable: None,
        };
        let bound = root.free_pages.min(u64::from(EXTENT_PAGES_MAX)) as u16;
        map.bound_runs(0..regions, bound);
        map.durable = Some(root);
        Ok(map)
    }

    pub(super) fn file_pages(&self) -> u64 {
        self.file_pages
    }

    pub(super) fn free_pages(&self) -> u64 {
        self.free_pages
    }

    pub(super) fn regions(&self) -> usize {
        self.regions.len()
    }

    /// The lowest extent of so many pages within `blocks`, in a region that `skip` does not name.
    pub(super) fn first_fit(
        &mut self,
        blocks: Range<usize>,
        pages: u32,
        skip: impl Fn(usize) -> bool,
    ) -> Result<Option<Extent>, AllocatorError> {
        let hint = u16::try_from(pages).expect("an extent's pages fit a hint");
        let mut from = blocks.start;
        while let Some(block) = self.runs.first_at_least(from, hint).filter(|block| *block < blocks.end) {
            let region = block / REGION_BLOCKS;
            if skip(region) {
                from = (region + 1) * REGION_BLOCKS;
                continue;
            }
            let start = block % REGION_BLOCKS * BLOCK_PAGES;
            match self.bitmaps(region)?.available.first_run(start..start + BLOCK_PAGES, pages as usize) {
                Ok(found) => return Ok(Some(Extent { page: region as u64 * REGION_PAGES + found as u64, pages })),
                Err(longest) => self.runs.set(block, longest as u16),
            }
            from = block;
        }
        Ok(None)
    }

    /// An extent of so many pages in the highest block that has one.
    pub(super) fn last_fit(&mut self, pages: u32) -> Result<Option<Extent>, AllocatorError> {
        let hint = u16::try_from(pages).expect("an extent's pages fit a hint");
        let mut before = self.regions.len() * REGION_BLOCKS;
        while let Some(block) = self.runs.last_at_least(before, hint) {
            let region = block / REGION_BLOCKS;
            let start = block % REGION_BLOCKS * BLOCK_PAGES;
            match self.bitmaps(region)?.available.first_run(start..start + BLOCK_PAGES, pages as usize) {
                Ok(found) => return Ok(Some(Extent { page: region as u64 * REGION_PAGES + found as u64, pages })),
                Err(longest) => self.runs.set(block, longest as u16),
            }
            before = block;
        }
        Ok(None)
    }

    /// Marks available pages as used.
    pub(super) fn take(&mut self, extent: Extent) {
        let bitmaps = self.loaded(extent);
        assert!(bitmaps.available.all_set(extent.span()), "{extent:?} is handed out but not available");
        bitmaps.available.clear(extent.span());
        bitmaps.free.clear(extent.span());
        self.regions[extent.region()].touched = true;
        self.free_pages -= u64::from(extent.pages);
    }

    /// Marks used pages as free in the next map, but not available.
    pub(super) fn set_free(&mut self, extent: Extent) {
        let bitmaps = self.loaded(extent);
        assert!(bitmaps.free.first_set(extent.span()).is_none(), "{extent:?} is already free");
        bitmaps.free.set(extent.span());
        self.regions[extent.region()].touched = true;
        self.free_pages += u64::from(extent.pages);
    }

    /// Undoes [`Self::set_free`].
    pub(super) fn unset_free(&mut self, extent: Extent) {
        let bitmaps = self.loaded(extent);
        assert!(bitmaps.free.all_set(extent.span()), "{extent:?} is not free");
        bitmaps.free.clear(extent.span());
        self.free_pages -= u64::from(extent.pages);
    }

    /// Makes free pages available.
    pub(super) fn release(&mut self, extent: Extent) {
        let bitmaps = self.loaded(extent);
        assert!(bitmaps.free.all_set(extent.span()), "{extent:?} is released but not free");
        bitmaps.available.set(extent.span());
        let run = bitmaps.available.run_around(extent.span().start);
        let first_block = extent.region() * REGION_BLOCKS;
        for block in run.start / BLOCK_PAGES..run.end.div_ceil(BLOCK_PAGES) {
            let length = run.end - run.start.max(block * BLOCK_PAGES);
            self.runs.raise(first_block + block, length as u16);
        }
    }

    fn loaded(&mut self, extent: Extent) -> &mut Bitmaps {
        self.regions[extent.region()].bitmaps.as_mut().expect("an extent in hand lies in a loaded region")
    }

    /// Adds [`GROWTH_PAGES`] at the end of the file.
    ///
    /// # Errors
    /// [`AllocatorError::Full`]; [`AllocatorError::Load`] before anything changed.
    pub(super) fn grow(&mut self) -> Result<(), AllocatorError> {
        if self.file_pages == FILE_PAGES_MAX {
            return Err(AllocatorError::Full);
        }
        if let Some(last) = self.regions.len().checked_sub(1) {
            // Even if a new region begins: the commit writes the index page that both may share.
            self.bitmaps(last)?;
        }
        let region = (self.file_pages / REGION_PAGES) as usize;
        let mut page = self.file_pages;
        if region == self.regions.len() {
            page += REGION_HEAD_PAGES;
            self.regions.push(Region::fresh());
            self.runs.reserve(self.regions.len() * REGION_BLOCKS);
            if region.is_multiple_of(MAP_FANOUT) {
                self.indexes.push(Index { entry: None, loaded: true });
            }
        }
        self.file_pages += GROWTH_PAGES;
        let grown = Extent { page, pages: (self.file_pages - page) as u32 };
        self.set_free(grown);
        self.release(grown);
        Ok(())
    }

    /// Gives up the last [`GROWTH_PAGES`] of the file, if every page there may be handed out and it is not all there is.
    ///
    /// # Errors
    /// [`AllocatorError::Load`] before anything changed, and what loading met.
    pub(super) fn shrink_step(&mut self) -> Result<Option<Shrunk>, AllocatorError> {
        let kept = self.file_pages - GROWTH_PAGES;
        let (region, start) = ((kept / REGION_PAGES) as usize, (kept % REGION_PAGES) as usize);
        if kept == 0 {
            return Ok(None);
        }
        let span = start.max(if start == 0 { REGION_HEAD_PAGES as usize } else { 0 })..start + GROWTH_PAGES as usize;
        if start == 0 {
            // The commit writes the index page anew, and so a bitmap that stays.
            self.bitmaps(region - 1)?;
        }
        let bitmaps = self.bitmaps(region)?;
        if !bitmaps.available.all_set(span.clone()) {
            return Ok(None);
        }
        bitmaps.available.clear(span.clone());
        bitmaps.free.clear(span.clone());
        self.free_pages -= span.len() as u64;
        self.file_pages = kept;
        let mut shrunk = Shrunk { span, region: None, index: None };
        if start == 0 {
            self.bound_runs(region..region + 1, 0);
            shrunk.region = self.regions.pop();
            if region.is_multiple_of(MAP_FANOUT) {
                shrunk.index = self.indexes.pop();
            }
        }
        self.regions.last_mut().expect("a part of the file stays").touched = true;
        Ok(Some(shrunk))
    }

    /// Undoes [`Self::shrink_step`]; the last step first.
    pub(super) fn unshrink(&mut self, shrunk: Shrunk) {
        self.indexes.extend(shrunk.index);
        self.regions.extend(shrunk.region);
        self.file_pages += GROWTH_PAGES;
        self.free_pages += shrunk.span.len() as u64;
        let last = self.regions.len() - 1;
        let bitmaps = self.regions[last].bitmaps.as_mut().expect("it was loaded to be shrunk");
        bitmaps.free.set(shrunk.span.clone());
        bitmaps.available.set(shrunk.span);
        self.bound_runs(last..last + 1, EXTENT_PAGES_MAX as u16);
    }

    /// Undoes growth beyond `file_pages`, all of whose pages are available again, and forgets which regions were
    /// touched: their bitmaps are as the durable map has them.
    pub(super) fn restore(&mut self, file_pages: u64) {
        for region in (file_pages / REGION_PAGES) as usize..self.regions.len() {
            let Some(bitmaps) = self.regions[region].bitmaps.as_mut() else { continue };
            let kept = file_pages.saturating_sub(region as u64 * REGION_PAGES).min(REGION_PAGES) as usize;
            let before = bitmaps.free.count();
            bitmaps.free.clear(kept..BITS);
            bitmaps.available.clear(kept..BITS);
            self.free_pages -= u64::from(before - bitmaps.free.count());
        }
        let regions = regions_of(file_pages);
        self.bound_runs(regions..self.regions.len(), 0);
        self.regions.truncate(regions);
        self.indexes.truncate(regions.div_ceil(MAP_FANOUT));
        self.file_pages = file_pages;
        self.regions.iter_mut().for_each(|region| region.touched = false);
    }

    /// The regions that an index page describes.
    fn regions_of_index(&self, index: usize) -> Range<usize> {
        let first = index * MAP_FANOUT;
        first..(first + MAP_FANOUT).min(self.regions.len())
    }

    /// How many pages of a region lie in the file.
    fn pages_of(&self, region: usize) -> usize {
        self.file_pages.saturating_sub(region as u64 * REGION_PAGES).min(REGION_PAGES) as usize
    }

    /// Sets the hint of every block of `regions`.
    fn bound_runs(&mut self, regions: Range<usize>, hint: u16) {
        for block in regions.start * REGION_BLOCKS..regions.end * REGION_BLOCKS {
            self.runs.set(block, hint);
        }
    }
}
