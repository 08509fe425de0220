//! The meta record: which pages hold the root of a file, and how many there are.
//!
//! Two copies stand on pages 0 and 1; the valid one with the higher transaction counts. Offsets within the record,
//! which begins after the page header (bbolt `internal/common/meta.go`):
//!
//! ```text
//! 0 magic u32 | 4 version u32 | 8 page size u32 | 12 flags u32 | 16 root page u64 | 24 root sequence u64
//! 32 freelist page u64 | 40 pages u64 | 48 transaction u64 | 56 FNV-1a 64 of bytes 0..56 u64
//! ```

use super::page::{FLAG_META, HEADER_BYTES, PAGE_BYTES, PageHeader, u32_at, u64_at};

const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;
const CHECKED_BYTES: usize = 56;
/// Bytes of page header and meta record together.
pub(super) const META_BYTES: usize = HEADER_BYTES + CHECKED_BYTES + 8;

/// Page sizes that bbolt itself looks for when the first copy is bad (`getPageSizeFromSecondMeta`).
pub(super) const PAGE_SIZES: std::ops::RangeInclusive<u32> = 1024..=1024 << 14;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    pub page_size: u32,
    pub root_page: u64,
    pub freelist_page: u64,
    /// First page number that is not in use; the file holds at least so many pages.
    pub page_count: u64,
    pub transaction: u64,
}

impl Meta {
    /// A whole page with this record on it.
    pub fn encode_page(self, id: u64) -> Vec<u8> {
        let mut page = PageHeader { id, flags: FLAG_META, count: 0, overflow: 0 }.encode().to_vec();
        page.extend_from_slice(&MAGIC.to_le_bytes());
        page.extend_from_slice(&VERSION.to_le_bytes());
        page.extend_from_slice(&self.page_size.to_le_bytes());
        page.extend_from_slice(&0u32.to_le_bytes());
        for field in [self.root_page, 0, self.freelist_page, self.page_count, self.transaction] {
            page.extend_from_slice(&field.to_le_bytes());
        }
        let checksum = fnv1a_64(&page[HEADER_BYTES..]);
        page.extend_from_slice(&checksum.to_le_bytes());
        page.resize(PAGE_BYTES, 0);
        page
    }

    /// Reads header and record; `None` unless magic, version, checksum and page size are right.
    pub fn decode_page(bytes: &[u8]) -> Option<Self> {
        let record = bytes.get(HEADER_BYTES..META_BYTES)?;
        let meta = Self {
            page_size: u32_at(record, 8)?,
            root_page: u64_at(record, 16)?,
            freelist_page: u64_at(record, 32)?,
            page_count: u64_at(record, 40)?,
            transaction: u64_at(record, 48)?,
        };
        let valid = u32_at(record, 0)? == MAGIC
            && u32_at(record, 4)? == VERSION
            && u64_at(record, CHECKED_BYTES)? == fnv1a_64(&record[..CHECKED_BYTES])
            && meta.page_size.is_power_of_two()
            && PAGE_SIZES.contains(&meta.page_size);
        valid.then_some(meta)
    }
}

fn fnv1a_64(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fnv_matches_its_published_vectors() {
        assert_eq!(fnv1a_64(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a_64(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn a_changed_byte_makes_the_record_invalid() {
        let meta = Meta { page_size: 4096, root_page: 9, freelist_page: 2, page_count: 10, transaction: 2 };
        let mut page = meta.encode_page(0);
        assert_eq!(Meta::decode_page(&page), Some(meta));
        page[HEADER_BYTES + 40] ^= 1;
        assert_eq!(Meta::decode_page(&page), None);
    }
}
