//! The map of a whole file: regions, index pages and root, loaded on demand and written where dirty.

use std::ops::Range;

use bytes::Bytes;

use super::bitmap::BITS;
use super::error::AllocatorError;
use super::extent::{Extent, TransactionId};
use super::layout::{
    EXTENT_PAGES_MAX, FILE_PAGES_MAX, GROWTH_PAGES, MAP_FANOUT, MapPlace, REGION_HEAD_PAGES, REGION_PAGES, Slot,
    regions_of,
};
use super::map_page::{Level, MapEntry, MapPage};
use super::map_root::MapRoot;
use super::region::{Bitmaps, Region};
use super::run_tree::{BLOCK_PAGES, REGION_BLOCKS, RunTree};

/// An index page.
struct Index {
    /// What the durable map root page says of it: `None` until that is loaded, or if the index page is younger.
    entry: Option<MapEntry>,
    /// Whether its regions know their entries.
    loaded: bool,
}

/// What a commit writes of the map, and what becomes true once it is durable.
pub(super) struct Staged {
    pub(super) writes: Vec<(u64, Bytes)>,
    pub(super) root: MapRoot,
    regions: Vec<(usize, MapEntry)>,
    indexes: Vec<(usize, MapEntry)>,
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

    /// Takes over a map page that an [`AllocatorError::Load`] asked for; one that is already loaded is ignored.
    pub(super) fn load(&mut self, page: u64, bytes: &[u8]) -> Result<(), AllocatorError> {
        let loaded = match MapPlace::of_page(page).ok_or(AllocatorError::NotInMap(page))? {
            MapPlace::Root(slot) => self.load_root(slot, bytes),
            MapPlace::Index(index, slot) => self.load_index(index, slot, bytes),
            MapPlace::Bitmap(region, slot) => self.load_bitmap(region, slot, bytes),
        };
        match loaded {
            Ok(true) => Ok(()),
            Ok(false) => Err(AllocatorError::NotInMap(page)),
            Err(reason) => Err(AllocatorError::Damaged { page, reason }),
        }
    }

    /// Whether the root is of the durable map; its error is what does not hold.
    fn load_root(&mut self, slot: Slot, bytes: &[u8]) -> Result<bool, &'static str> {
        let Some(root) = self.durable.as_ref().filter(|root| root.slot == slot) else { return Ok(false) };
        let page = MapPage::decode(bytes, root.crc)?;
        if page.level != Level::Root || page.transaction != root.transaction {
            return Err("another page");
        }
        if page.file_pages != root.file_pages || page.free_pages != root.free_pages {
            return Err("another size than its root says");
        }
        let regions = regions_of(root.file_pages);
        if page.entries.len() != regions.div_ceil(MAP_FANOUT) {
            return Err("wrong number of entries");
        }
        for (index, entry) in page.entries.into_iter().enumerate() {
            if self.indexes[index].entry.is_none() {
                self.indexes[index].entry = Some(entry);
                let first = index * MAP_FANOUT;
                self.bound_runs(first..(first + MAP_FANOUT).min(regions), entry.longest_run);
            }
        }
        Ok(true)
    }

    fn load_index(&mut self, index: usize, slot: Slot, bytes: &[u8]) -> Result<bool, &'static str> {
        let Some(known) = self.indexes.get(index) else { return Ok(false) };
        let Some(entry) = known.entry.filter(|entry| entry.slot == slot) else { return Ok(false) };
        if known.loaded {
            return Ok(true);
        }
        let page = MapPage::decode(bytes, entry.crc)?;
        if page.level != Level::Index || page.number as usize != index {
            return Err("another page");
        }
        if page.free_pages != u64::from(entry.free_pages) {
            return Err("free pages do not add up");
        }
        let regions = self.regions_of_index(index);
        if page.entries.len() != regions.len() {
            return Err("wrong number of entries");
        }
        for (region, entry) in regions.zip(page.entries) {
            self.regions[region].entry = Some(entry);
            self.bound_runs(region..region + 1, entry.longest_run);
        }
        self.indexes[index].loaded = true;
        Ok(true)
    }

    fn load_bitmap(&mut self, region: usize, slot: Slot, bytes: &[u8]) -> Result<bool, &'static str> {
        let pages = self.pages_of(region);
        let Some(known) = self.regions.get_mut(region) else { return Ok(false) };
        if known.entry.is_none_or(|entry| entry.slot != slot) {
            return Ok(false);
        }
        if known.bitmaps.is_none() {
            known.load(pages, bytes)?;
        }
        Ok(true)
    }

    /// The bitmaps of a region of the file.
    ///
    /// # Errors
    /// [`AllocatorError::Load`] with the next page on the way to them.
    pub(super) fn bitmaps(&mut self, region: usize) -> Result<&mut Bitmaps, AllocatorError> {
        if self.regions[region].bitmaps.is_none() {
            return Err(AllocatorError::Load(self.missing(region).page()));
        }
        Ok(self.regions[region].bitmaps.as_mut().expect("checked above"))
    }

    /// The next map page to load on the way to the bitmaps of `region`.
    fn missing(&self, region: usize) -> MapPlace {
        let index = region / MAP_FANOUT;
        if let Some(entry) = self.regions[region].entry {
            return MapPlace::Bitmap(region, entry.slot);
        }
        match self.indexes[index].entry {
            Some(entry) => MapPlace::Index(index, entry.slot),
            None => MapPlace::Root(self.durable.as_ref().expect("only a durable map is not loaded").slot),
        }
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

    /// What a commit must write; nothing if the durable map still holds.
    pub(super) fn stage(&self, transaction: TransactionId) -> Staged {
        let mut writes = Vec::new();
        let mut regions = Vec::new();
        for (number, region) in self.regions.iter().enumerate().filter(|(_, region)| region.is_dirty()) {
            let bitmap = &region.bitmaps.as_ref().expect("dirty implies loaded").free;
            let (slot, bytes) = (region.next_slot(), bitmap.encode());
            let entry = MapEntry {
                crc: crc32fast::hash(&bytes),
                free_pages: bitmap.count(),
                longest_run: bitmap.longest_run() as u16,
                slot,
            };
            writes.push((MapPlace::Bitmap(number, slot).page(), bytes));
            regions.push((number, entry));
        }
        let mut indexes = Vec::new();
        for same_index in regions.chunk_by(|(one, _), (other, _)| one / MAP_FANOUT == other / MAP_FANOUT) {
            let index = same_index[0].0 / MAP_FANOUT;
            indexes.push((index, self.stage_index(index, same_index, transaction, &mut writes)));
        }
        let root = match &self.durable {
            Some(root) if indexes.is_empty() => root.clone(),
            _ => self.stage_root(&indexes, transaction, &mut writes),
        };
        Staged { writes, root, regions, indexes }
    }

    fn stage_index(
        &self,
        index: usize,
        changed: &[(usize, MapEntry)],
        transaction: TransactionId,
        writes: &mut Vec<(u64, Bytes)>,
    ) -> MapEntry {
        assert!(self.indexes[index].loaded, "index page {index} has dirty regions but is not loaded");
        let known = self.regions_of_index(index).map(|region| (region, self.regions[region].entry));
        let entries = overlay(known, changed);
        let page = MapPage {
            level: Level::Index,
            number: index as u32,
            transaction,
            file_pages: 0,
            free_pages: entries.iter().map(|entry| u64::from(entry.free_pages)).sum(),
            entries,
        };
        let slot = self.indexes[index].entry.map_or(Slot::A, |entry| entry.slot.other());
        let (bytes, crc) = page.encode();
        writes.push((MapPlace::Index(index, slot).page(), bytes));
        let longest_run = page.entries.iter().map(|entry| entry.longest_run).max().unwrap_or(0);
        MapEntry { crc, free_pages: page.free_pages as u32, longest_run, slot }
    }

    fn stage_root(
        &self,
        changed: &[(usize, MapEntry)],
        transaction: TransactionId,
        writes: &mut Vec<(u64, Bytes)>,
    ) -> MapRoot {
        let page = MapPage {
            level: Level::Root,
            number: 0,
            transaction,
            file_pages: self.file_pages,
            free_pages: self.free_pages,
            entries: overlay(self.indexes.iter().map(|index| index.entry).enumerate(), changed),
        };
        let sum: u64 = page.entries.iter().map(|entry| u64::from(entry.free_pages)).sum();
        assert!(sum == self.free_pages, "the map counts {sum} free pages, its sum is {}", self.free_pages);
        let slot = self.durable.as_ref().map_or(Slot::A, |root| root.slot.other());
        let (bytes, crc) = page.encode();
        writes.push((MapPlace::Root(slot).page(), bytes));
        MapRoot { slot, crc, file_pages: self.file_pages, free_pages: self.free_pages, transaction }
    }

    /// Makes what [`Self::stage`] returned the durable map.
    pub(super) fn install(&mut self, staged: Staged) {
        for (region, entry) in staged.regions {
            self.regions[region].entry = Some(entry);
            self.regions[region].touched = false;
        }
        for (index, entry) in staged.indexes {
            self.indexes[index].entry = Some(entry);
        }
        self.durable = Some(staged.root);
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

/// The entries of a level, `changed` ones in place of `known` ones; both ascend by number.
fn overlay(known: impl Iterator<Item = (usize, Option<MapEntry>)>, changed: &[(usize, MapEntry)]) -> Vec<MapEntry> {
    let mut changed = changed.iter().peekable();
    known
        .map(|(number, entry)| match changed.next_if(|(other, _)| *other == number) {
            Some((_, entry)) => *entry,
            None => entry.expect("what did not change is loaded, for a sibling did"),
        })
        .collect()
}
