//! To the disk: dirty pages of the map, each into the slot that the durable map does not use.

use bytes::Bytes;

use super::SpaceMap;
use crate::pages::allocator::extent::TransactionId;
use crate::pages::allocator::layout::{MAP_FANOUT, MapPlace, Slot};
use crate::pages::allocator::map_page::{Level, MapEntry, MapPage};
use crate::pages::allocator::map_root::MapRoot;

/// What a commit writes of the map, and what becomes true once it is durable.
pub(in crate::pages::allocator) struct Staged {
    pub(in crate::pages::allocator) writes: Vec<(u64, Bytes)>,
    pub(in crate::pages::allocator) root: MapRoot,
    regions: Vec<(usize, MapEntry)>,
    indexes: Vec<(usize, MapEntry)>,
}

impl SpaceMap {
    /// What a commit must write; nothing if the durable map still holds.
    pub(in crate::pages::allocator) fn stage(&self, transaction: TransactionId) -> Staged {
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
    pub(in crate::pages::allocator) fn install(&mut self, staged: Staged) {
        for (region, entry) in staged.regions {
            self.regions[region].entry = Some(entry);
            self.regions[region].touched = false;
        }
        for (index, entry) in staged.indexes {
            self.indexes[index].entry = Some(entry);
        }
        self.durable = Some(staged.root);
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
