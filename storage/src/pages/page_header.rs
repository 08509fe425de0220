//! What every page of a tree begins with, and how its parent names it.

use super::allocator::{Extent, PAGE_SIZE, TransactionId};
use super::little_endian::{put, u16_at, u32_at, u64_at};

/// Version of the page layout that this program writes; a newer one is refused.
pub const PAGE_FORMAT_VERSION: u16 = 1;
/// Bytes of a page header; what follows is the slot table of a leaf or the entries of a branch.
pub const PAGE_HEADER_BYTES: usize = 72;

const CRC: usize = 0;
const VERSION: usize = 4;
const KIND: usize = 6;
const CODEC: usize = 7;
const PAGE: usize = 8;
const BIRTH: usize = 16;
const LENGTH: usize = 24;
const COUNT: usize = 28;
const KEY_ID: usize = 32;
const LEVEL: usize = 36;
const ZERO: usize = 37;
const RESERVED: usize = 40;
const RESERVED_BYTES: usize = 32;
const _: () = assert!(RESERVED + RESERVED_BYTES == PAGE_HEADER_BYTES);

const KIND_LEAF: u8 = 1;
const KIND_BRANCH: u8 = 2;

/// How a parent names a page: where it is, what its head must sum to, and since when it is there. A page that does
/// not answer to all three is a lost, misdirected or torn write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRef {
    /// The pages it takes.
    pub extent: Extent,
    /// CRC-32 of its head: header and slot table of a leaf, header and entries of a branch.
    pub crc: u32,
    /// The transaction that wrote it.
    pub birth: TransactionId,
}

impl PageRef {
    /// Where it begins in the file.
    pub fn offset(&self) -> u64 {
        self.extent.page * PAGE_SIZE as u64
    }

    /// How many bytes of the file it takes.
    pub fn bytes(&self) -> usize {
        self.extent.pages as usize * PAGE_SIZE
    }
}

/// What is wrong with the bytes of a page.
pub(super) type Flaw = &'static str;

/// The fields of a header that differ from page to page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PageHeader {
    /// 0 for a leaf, the distance to the leaves for a branch.
    pub level: u8,
    pub page: u64,
    pub birth: TransactionId,
    /// Bytes used of the extent.
    pub length: u32,
    /// Slots of a leaf, entries of a branch.
    pub count: u32,
}

impl PageHeader {
    /// Writes the header over the first bytes of `head` and then its CRC over all of `head`; returns the CRC.
    pub fn seal(&self, head: &mut [u8]) -> u32 {
        head[..PAGE_HEADER_BYTES].fill(0);
        put(head, VERSION, &PAGE_FORMAT_VERSION.to_le_bytes());
        head[KIND] = if self.level == 0 { KIND_LEAF } else { KIND_BRANCH };
        head[LEVEL] = self.level;
        put(head, PAGE, &self.page.to_le_bytes());
        put(head, BIRTH, &self.birth.0.to_le_bytes());
        put(head, LENGTH, &self.length.to_le_bytes());
        put(head, COUNT, &self.count.to_le_bytes());
        let crc = crc32fast::hash(&head[VERSION..]);
        put(head, CRC, &crc.to_le_bytes());
        crc
    }

    /// Reads and checks a page's head. `head_bytes` tells from the header how long the head is.
    pub fn open(
        reference: &PageRef,
        level: u8,
        bytes: &[u8],
        head_bytes: impl Fn(&Self) -> usize,
    ) -> Result<Self, Flaw> {
        if bytes.len() < PAGE_HEADER_BYTES {
            return Err("shorter than a header");
        }
        let header = Self {
            level: bytes[LEVEL],
            page: u64_at(bytes, PAGE),
            birth: TransactionId(u64_at(bytes, BIRTH)),
            length: u32_at(bytes, LENGTH),
            count: u32_at(bytes, COUNT),
        };
        let length = header.length as usize;
        let head = head_bytes(&header);
        if head < PAGE_HEADER_BYTES || head > length || length > reference.bytes() || head > bytes.len() {
            return Err("lengths do not fit the page");
        }
        let crc = u32_at(bytes, CRC);
        if crc != crc32fast::hash(&bytes[VERSION..head]) {
            return Err("checksum mismatch");
        }
        if crc != reference.crc || header.page != reference.extent.page || header.birth != reference.birth {
            return Err("another page, or an older one, than its parent names");
        }
        if u16_at(bytes, VERSION) != PAGE_FORMAT_VERSION {
            return Err("unknown format version");
        }
        if bytes[CODEC] != 0 || u32_at(bytes, KEY_ID) != 0 || bytes[ZERO..PAGE_HEADER_BYTES].iter().any(|&b| b != 0) {
            return Err("unknown codec, key or feature");
        }
        let kind = if level == 0 { KIND_LEAF } else { KIND_BRANCH };
        if bytes[KIND] != kind || header.level != level {
            return Err("wrong kind or level");
        }
        Ok(header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> (PageRef, Vec<u8>) {
        let header = PageHeader { level: 1, page: 9, birth: TransactionId(4), length: 100, count: 0 };
        let mut bytes = vec![7; 100];
        let crc = header.seal(&mut bytes);
        (PageRef { extent: Extent { page: 9, pages: 1 }, crc, birth: TransactionId(4) }, bytes)
    }

    #[test]
    fn every_flipped_bit_of_a_head_is_seen() {
        let (reference, bytes) = page();
        let open = |bytes: &[u8]| PageHeader::open(&reference, 1, bytes, |header| header.length as usize);
        assert!(open(&bytes).is_ok());
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn an_intact_page_in_the_wrong_place_is_seen() {
        let (reference, bytes) = page();
        let open = |reference: &PageRef| PageHeader::open(reference, 1, &bytes, |header| header.length as usize);
        assert!(open(&PageRef { extent: Extent { page: 8, pages: 1 }, ..reference }).is_err());
        assert!(open(&PageRef { birth: TransactionId(5), ..reference }).is_err());
        assert!(open(&PageRef { crc: reference.crc ^ 1, ..reference }).is_err());
    }
}
