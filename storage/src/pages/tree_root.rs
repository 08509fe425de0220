//! The root of one tree, as the manifest keeps it.

use std::sync::Arc;

use crate::revision::Revision;

use super::allocator::{Extent, PAGE_SIZE, ReaderPin, TransactionId};
use super::branch::{BRANCH_BYTES, BranchEntry, HEIGHT_MAX, extent_in_range};
use super::dead_marks::DeadMarks;
use super::error::PagesError;
use super::little_endian::{i64_at, put, u16_at, u32_at, u64_at};
use super::page_header::PageRef;

/// Version of the root's layout; a newer one is refused.
pub const TREE_ROOT_VERSION: u16 = 1;
/// Bytes of an encoded root. It carries no checksum: the manifest that holds it has one.
pub const TREE_ROOT_BYTES: usize = 96;

const VERSION: usize = 0;
const HEIGHT: usize = 2;
const CRC: usize = 4;
const PAGE: usize = 8;
const PAGES: usize = 16;
const BIRTH: usize = 24;
const TRANSACTION: usize = 32;
const ENTRIES: usize = 40;
const LIVE_ENTRIES: usize = 48;
const LIVE_BYTES: usize = 56;
const STORED_BYTES: usize = 64;
const LAST_MAIN: usize = 72;
const LAST_SUB: usize = 80;
const ZERO: usize = 88;

/// One state of a tree: everything below it is immutable while it is pinned or durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeRoot {
    /// The commit that made it.
    pub transaction: TransactionId,
    /// Levels of branches; 0 for an empty tree.
    pub height: u8,
    /// The root branch; `None` for an empty tree.
    pub page: Option<PageRef>,
    /// Revisions stored, dead ones that still exist included.
    pub entries: u64,
    /// Revisions not marked dead.
    pub live_entries: u64,
    /// Bytes of slots and KeyValues of revisions not marked dead.
    pub live_bytes: u64,
    /// Bytes of slots and KeyValues stored.
    pub stored_bytes: u64,
    /// The highest revision ever appended, also if it was dropped since; [`Revision::default`] if none was.
    pub last_revision: Revision,
}

impl TreeRoot {
    /// The root of a tree that nothing was written to.
    pub const EMPTY: Self = Self {
        transaction: TransactionId(0),
        height: 0,
        page: None,
        entries: 0,
        live_entries: 0,
        live_bytes: 0,
        stored_bytes: 0,
        last_revision: Revision::new(0, 0),
    };

    /// The form that the manifest keeps.
    pub fn encode(&self) -> [u8; TREE_ROOT_BYTES] {
        let mut bytes = [0; TREE_ROOT_BYTES];
        put(&mut bytes, VERSION, &TREE_ROOT_VERSION.to_le_bytes());
        bytes[HEIGHT] = self.height;
        if let Some(page) = &self.page {
            put(&mut bytes, CRC, &page.crc.to_le_bytes());
            put(&mut bytes, PAGE, &page.extent.page.to_le_bytes());
            put(&mut bytes, PAGES, &page.extent.pages.to_le_bytes());
            put(&mut bytes, BIRTH, &page.birth.0.to_le_bytes());
        }
        put(&mut bytes, TRANSACTION, &self.transaction.0.to_le_bytes());
        put(&mut bytes, ENTRIES, &self.entries.to_le_bytes());
        put(&mut bytes, LIVE_ENTRIES, &self.live_entries.to_le_bytes());
        put(&mut bytes, LIVE_BYTES, &self.live_bytes.to_le_bytes());
        put(&mut bytes, STORED_BYTES, &self.stored_bytes.to_le_bytes());
        put(&mut bytes, LAST_MAIN, &self.last_revision.main.to_le_bytes());
        put(&mut bytes, LAST_SUB, &self.last_revision.sub.to_le_bytes());
        bytes
    }

    /// Reads an encoded root.
    ///
    /// # Errors
    /// [`PagesError::MalformedRoot`] if the bytes cannot be a root that this program wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, PagesError> {
        if bytes.len() != TREE_ROOT_BYTES {
            return Err(PagesError::MalformedRoot("wrong length"));
        }
        if u16_at(bytes, VERSION) != TREE_ROOT_VERSION {
            return Err(PagesError::MalformedRoot("unknown version"));
        }
        let extent = Extent { page: u64_at(bytes, PAGE), pages: u32_at(bytes, PAGES) };
        let page = PageRef { extent, crc: u32_at(bytes, CRC), birth: TransactionId(u64_at(bytes, BIRTH)) };
        let height = bytes[HEIGHT];
        let root = Self {
            transaction: TransactionId(u64_at(bytes, TRANSACTION)),
            height,
            page: (height > 0).then_some(page),
            entries: u64_at(bytes, ENTRIES),
            live_entries: u64_at(bytes, LIVE_ENTRIES),
            live_bytes: u64_at(bytes, LIVE_BYTES),
            stored_bytes: u64_at(bytes, STORED_BYTES),
            last_revision: Revision::new(i64_at(bytes, LAST_MAIN), i64_at(bytes, LAST_SUB)),
        };
        // A root that says something this layout has no room for is encoded differently.
        if root.encode() != bytes || bytes[ZERO..].iter().any(|&byte| byte != 0) || !root.is_sound() {
            return Err(PagesError::MalformedRoot("it contradicts itself"));
        }
        Ok(root)
    }

    fn is_sound(&self) -> bool {
        let page = self.page.is_none_or(|page| {
            (1..=(BRANCH_BYTES / PAGE_SIZE) as u32).contains(&page.extent.pages)
                && extent_in_range(page.extent)
                && page.birth <= self.transaction
        });
        let counts = self.live_entries <= self.entries && self.live_bytes <= self.stored_bytes;
        page && counts && self.height <= HEIGHT_MAX && (self.height > 0) == (self.entries > 0)
    }

    /// The root as an entry of a branch above it would name it.
    pub(super) fn as_entry(&self) -> Option<BranchEntry> {
        self.page.map(|child| BranchEntry {
            first: Revision::new(i64::MIN, i64::MIN),
            child,
            entries: self.entries,
            live_entries: self.live_entries,
            live_bytes: self.live_bytes,
            stored_bytes: self.stored_bytes,
            dead: DeadMarks::default(),
        })
    }
}

/// A root whose pages stay where they are until this is dropped.
#[derive(Debug)]
pub struct PinnedRoot {
    /// The state to read.
    pub root: TreeRoot,
    /// Keeps the allocator from handing out pages of that state.
    pub pin: ReaderPin,
}

/// A root shared by its readers.
pub type SharedRoot = Arc<PinnedRoot>;

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> TreeRoot {
        TreeRoot {
            transaction: TransactionId(7),
            height: 2,
            page: Some(PageRef { extent: Extent { page: 5, pages: 4 }, crc: 77, birth: TransactionId(6) }),
            entries: 10,
            live_entries: 9,
            live_bytes: 900,
            stored_bytes: 1000,
            last_revision: Revision::new(4, 2),
        }
    }

    #[test]
    fn encoded_roots_read_back() {
        for root in [root(), TreeRoot::EMPTY] {
            assert_eq!(TreeRoot::decode(&root.encode()).unwrap(), root);
        }
    }

    #[test]
    fn impossible_roots_are_refused() {
        assert!(TreeRoot::decode(&[]).is_err());
        let broken = |at: usize, byte: u8| {
            let mut bytes = root().encode();
            bytes[at] = byte;
            TreeRoot::decode(&bytes)
        };
        assert!(broken(VERSION, 2).is_err());
        assert!(broken(HEIGHT, 0).is_err());
        assert!(broken(HEIGHT, HEIGHT_MAX + 1).is_err());
        assert!(broken(PAGE + 7, 0x80).is_err());
        assert!(broken(PAGES, 0).is_err());
        assert!(broken(LIVE_ENTRIES, 11).is_err());
        assert!(broken(ZERO, 1).is_err());
    }
}
