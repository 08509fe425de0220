//! The bytes of index pages and of the map root page; both are a header and entries about the level below.

use bytes::Bytes;

use super::extent::TransactionId;
use super::layout::{EXTENT_PAGES_MAX, MAP_FANOUT, PAGE_SIZE, Slot};

pub(super) const MAGIC: [u8; 4] = *b"bMAP";
pub(super) const VERSION: u16 = 1;
pub(super) const CRC_AT: usize = 8;
pub(super) const HEADER_LEN: usize = 64;
pub(super) const ENTRY_LEN: usize = 16;

const _: () = assert!(HEADER_LEN + MAP_FANOUT * ENTRY_LEN == PAGE_SIZE);

/// Which level of the map a page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    Root = 1,
    Index = 2,
}

/// What a page knows about one page of the level below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MapEntry {
    /// CRC of that page.
    pub(super) crc: u32,
    /// Free pages below it.
    pub(super) free_pages: u32,
    /// Upper bound of the longest free run below it.
    pub(super) longest_run: u16,
    /// Where its valid copy stands.
    pub(super) slot: Slot,
}

/// An index page or the map root page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MapPage {
    pub(super) level: Level,
    /// Number of the index page; 0 in the root.
    pub(super) number: u32,
    /// The commit that wrote it.
    pub(super) transaction: TransactionId,
    /// Pages of the file; 0 in an index page.
    pub(super) file_pages: u64,
    /// Free pages of all entries.
    pub(super) free_pages: u64,
    pub(super) entries: Vec<MapEntry>,
}

impl MapPage {
    /// The page's bytes and CRC.
    pub(super) fn encode(&self) -> (Bytes, u32) {
        assert!(self.entries.len() <= MAP_FANOUT, "{} entries in a map page", self.entries.len());
        let mut page = vec![0; PAGE_SIZE];
        page[..4].copy_from_slice(&MAGIC);
        page[4..6].copy_from_slice(&VERSION.to_le_bytes());
        page[6] = self.level as u8;
        page[12..16].copy_from_slice(&self.number.to_le_bytes());
        page[16..24].copy_from_slice(&self.transaction.0.to_le_bytes());
        page[24..28].copy_from_slice(&(self.entries.len() as u32).to_le_bytes());
        page[32..40].copy_from_slice(&self.file_pages.to_le_bytes());
        page[40..48].copy_from_slice(&self.free_pages.to_le_bytes());
        for (entry, place) in self.entries.iter().zip(page[HEADER_LEN..].chunks_exact_mut(ENTRY_LEN)) {
            place[..4].copy_from_slice(&entry.crc.to_le_bytes());
            place[4..8].copy_from_slice(&entry.free_pages.to_le_bytes());
            place[8..10].copy_from_slice(&entry.longest_run.to_le_bytes());
            place[10] = entry.slot.to_byte();
        }
        let crc = page_crc(&page);
        page[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        (page.into(), crc)
    }

    /// Reads a page of which the level above says `crc`.
    ///
    /// # Errors
    /// What does not hold.
    pub(super) fn decode(bytes: &[u8], crc: u32) -> Result<Self, &'static str> {
        if bytes.len() != PAGE_SIZE || bytes[..4] != MAGIC {
            return Err("not a map page");
        }
        if u32_at(bytes, CRC_AT) != crc || page_crc(bytes) != crc {
            return Err("CRC mismatch");
        }
        if bytes[4..6] != VERSION.to_le_bytes() {
            return Err("unknown version");
        }
        let level = match bytes[6] {
            1 => Level::Root,
            2 => Level::Index,
            _ => return Err("unknown level"),
        };
        let count = u32_at(bytes, 24) as usize;
        if count > MAP_FANOUT {
            return Err("too many entries");
        }
        let entries = bytes[HEADER_LEN..].chunks_exact(ENTRY_LEN).take(count).map(decode_entry);
        let page = Self {
            level,
            number: u32_at(bytes, 12),
            transaction: TransactionId(u64_at(bytes, 16)),
            file_pages: u64_at(bytes, 32),
            free_pages: u64_at(bytes, 40),
            entries: entries.collect::<Result<_, _>>()?,
        };
        let free_pages: u64 = page.entries.iter().map(|entry| u64::from(entry.free_pages)).sum();
        if free_pages != page.free_pages {
            return Err("free pages do not add up");
        }
        Ok(page)
    }
}

fn decode_entry(bytes: &[u8]) -> Result<MapEntry, &'static str> {
    let slot = Slot::from_byte(bytes[10]).ok_or("unknown slot")?;
    if bytes[11] != 0 {
        return Err("unknown flags");
    }
    let longest_run = u16::from_le_bytes([bytes[8], bytes[9]]);
    if u32::from(longest_run) > EXTENT_PAGES_MAX {
        return Err("impossible run");
    }
    Ok(MapEntry { crc: u32_at(bytes, 0), free_pages: u32_at(bytes, 4), longest_run, slot })
}

/// CRC of a map page, its own field read as zeros.
fn page_crc(page: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&page[..CRC_AT]);
    hasher.update(&[0; 4]);
    hasher.update(&page[CRC_AT + 4..]);
    hasher.finalize()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
