//! What is known of one region.

use std::ops::Range;

use super::bitmap::Bitmap;
use super::layout::{REGION_HEAD_PAGES, Slot};
use super::map_page::MapEntry;

/// The bitmaps of a region that was touched since open.
pub(super) struct Bitmaps {
    /// What may be handed out now: a subset of `free`.
    pub(super) available: Bitmap,
    /// What the next commit's map says is free: `available`, and what waits for a commit or a reader.
    pub(super) free: Bitmap,
}

/// One region; nothing is loaded until it is needed.
pub(super) struct Region {
    /// What the durable map says of it: `None` as long as that is not loaded, or if the region is younger.
    pub(super) entry: Option<MapEntry>,
    pub(super) bitmaps: Option<Box<Bitmaps>>,
    /// Whether `free` differs from the durable map.
    pub(super) touched: bool,
}

impl Region {
    /// A region of the durable map, not loaded.
    pub(super) fn unloaded() -> Self {
        Self { entry: None, bitmaps: None, touched: false }
    }

    /// A region that the file just grew into: no page free yet.
    pub(super) fn fresh() -> Self {
        let bitmaps = Bitmaps { available: Bitmap::empty(), free: Bitmap::empty() };
        Self { entry: None, bitmaps: Some(Box::new(bitmaps)), touched: true }
    }

    /// Whether its bitmap must be written by the next commit.
    pub(super) fn is_dirty(&self) -> bool {
        self.bitmaps.is_some() && (self.touched || self.entry.is_none())
    }

    /// Where the next commit writes its bitmap: not where the durable map has it.
    pub(super) fn next_slot(&self) -> Slot {
        self.entry.map_or(Slot::A, |entry| entry.slot.other())
    }

    /// Takes over the bitmap page of which the durable map says `entry`. `pages` is the part of the region that lies
    /// in the file.
    ///
    /// # Errors
    /// What does not hold.
    pub(super) fn load(&mut self, pages: usize, bytes: &[u8]) -> Result<(), &'static str> {
        let entry = self.entry.ok_or("the index page is not loaded")?;
        let free = Bitmap::decode(bytes).ok_or("wrong length")?;
        if crc32fast::hash(bytes) != entry.crc {
            return Err("CRC mismatch");
        }
        if free.count() != entry.free_pages {
            return Err("free pages do not add up");
        }
        let outside = |span: Range<usize>| free.first_set(span).is_some();
        if outside(0..REGION_HEAD_PAGES as usize) || outside(pages..super::bitmap::BITS) {
            return Err("a page that cannot be free is free");
        }
        if free.longest_run() > usize::from(entry.longest_run) {
            return Err("a run is longer than its bound");
        }
        self.bitmaps = Some(Box::new(Bitmaps { available: free.clone(), free }));
        Ok(())
    }
}
