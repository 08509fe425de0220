//! From the disk: root page, index pages, bitmaps, each when it is first needed.

use super::SpaceMap;
use crate::pages::allocator::error::AllocatorError;
use crate::pages::allocator::layout::{MAP_FANOUT, MapPlace, Slot, regions_of};
use crate::pages::allocator::map_page::{Level, MapPage};
use crate::pages::allocator::region::Bitmaps;

impl SpaceMap {
    /// Takes over a map page that an [`AllocatorError::Load`] asked for; one that is already loaded is ignored.
    pub(in crate::pages::allocator) fn load(&mut self, page: u64, bytes: &[u8]) -> Result<(), AllocatorError> {
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
    pub(in crate::pages::allocator) fn bitmaps(&mut self, region: usize) -> Result<&mut Bitmaps, AllocatorError> {
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
}
