//! Branches: what lies below, from which revision on, how much of it lives, and the dead marks of leaves.

use bytes::BytesMut;

use crate::revision::Revision;

use super::allocator::{Extent, PAGE_SIZE, TransactionId};
use super::dead_marks::DeadMarks;
use super::leaf::{LEAF_PAGES_MAX, LEAF_SLOTS_MAX};
use super::little_endian::{i64_at, put, u16_at, u32_at, u64_at};
use super::page_header::{Flaw, PAGE_HEADER_BYTES, PageHeader, PageRef};

/// Bytes a branch takes at most.
pub const BRANCH_BYTES: usize = 16 * 1024;
/// Bytes of a branch entry without dead marks.
pub const BRANCH_ENTRY_BYTES: usize = 80;
/// Bytes of the largest branch entry.
pub(super) const BRANCH_ENTRY_BYTES_MAX: usize = BRANCH_ENTRY_BYTES + DeadMarks::bytes_for(LEAF_SLOTS_MAX);
/// Bytes of entries that a branch can hold.
pub(super) const BRANCH_ENTRIES_BYTES: usize = BRANCH_BYTES - PAGE_HEADER_BYTES;
/// Levels of branches a tree may have; with at least 100 entries a branch, more than any disk can fill.
pub const HEIGHT_MAX: u8 = 8;
const _: () = assert!(BRANCH_ENTRIES_BYTES / BRANCH_ENTRY_BYTES_MAX > 100);

const FIRST_MAIN: usize = 0;
const FIRST_SUB: usize = 8;
const CHILD_PAGE: usize = 16;
const CHILD_PAGES: usize = 24;
const CHILD_CRC: usize = 28;
const CHILD_BIRTH: usize = 32;
const ENTRIES: usize = 40;
const LIVE_ENTRIES: usize = 48;
const LIVE_BYTES: usize = 56;
const STORED_BYTES: usize = 64;
const DEAD_BYTES: usize = 72;
const ZERO: usize = 74;

/// One child of a branch and what lies below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BranchEntry {
    /// The first revision below.
    pub first: Revision,
    pub child: PageRef,
    /// Slots below.
    pub entries: u64,
    /// Slots below that are not marked dead.
    pub live_entries: u64,
    /// Their bytes.
    pub live_bytes: u64,
    /// Bytes of all slots below.
    pub stored_bytes: u64,
    /// The dead overlay of a leaf; always empty above branches.
    pub dead: DeadMarks,
}

impl BranchEntry {
    /// Bytes it takes in a page.
    pub fn encoded_bytes(&self) -> usize {
        BRANCH_ENTRY_BYTES + self.dead.as_bytes().len()
    }

    fn encode(&self, out: &mut BytesMut) {
        let begin = out.len();
        out.resize(begin + BRANCH_ENTRY_BYTES, 0);
        let entry = &mut out[begin..];
        put(entry, FIRST_MAIN, &self.first.main.to_le_bytes());
        put(entry, FIRST_SUB, &self.first.sub.to_le_bytes());
        put(entry, CHILD_PAGE, &self.child.extent.page.to_le_bytes());
        put(entry, CHILD_PAGES, &self.child.extent.pages.to_le_bytes());
        put(entry, CHILD_CRC, &self.child.crc.to_le_bytes());
        put(entry, CHILD_BIRTH, &self.child.birth.0.to_le_bytes());
        put(entry, ENTRIES, &self.entries.to_le_bytes());
        put(entry, LIVE_ENTRIES, &self.live_entries.to_le_bytes());
        put(entry, LIVE_BYTES, &self.live_bytes.to_le_bytes());
        put(entry, STORED_BYTES, &self.stored_bytes.to_le_bytes());
        put(entry, DEAD_BYTES, &(self.dead.as_bytes().len() as u16).to_le_bytes());
        out.extend_from_slice(self.dead.as_bytes());
    }

    /// Reads the entry at the beginning of `bytes`.
    fn decode(bytes: &[u8], level: u8) -> Result<Self, Flaw> {
        if bytes.len() < BRANCH_ENTRY_BYTES {
            return Err("entries run past the end");
        }
        let marks = u16_at(bytes, DEAD_BYTES) as usize;
        let dead = bytes.get(BRANCH_ENTRY_BYTES..BRANCH_ENTRY_BYTES + marks).ok_or("entries run past the end")?;
        let extent = Extent { page: u64_at(bytes, CHILD_PAGE), pages: u32_at(bytes, CHILD_PAGES) };
        let birth = TransactionId(u64_at(bytes, CHILD_BIRTH));
        let entry = Self {
            first: Revision::new(i64_at(bytes, FIRST_MAIN), i64_at(bytes, FIRST_SUB)),
            child: PageRef { extent, crc: u32_at(bytes, CHILD_CRC), birth },
            entries: u64_at(bytes, ENTRIES),
            live_entries: u64_at(bytes, LIVE_ENTRIES),
            live_bytes: u64_at(bytes, LIVE_BYTES),
            stored_bytes: u64_at(bytes, STORED_BYTES),
            dead: DeadMarks::from_bytes(dead),
        };
        let zero = bytes[ZERO..BRANCH_ENTRY_BYTES].iter().all(|&byte| byte == 0);
        if zero && entry.is_sound(level) { Ok(entry) } else { Err("an entry contradicts itself") }
    }

    fn is_sound(&self, level: u8) -> bool {
        let counts = self.live_entries <= self.entries && self.live_bytes <= self.stored_bytes;
        let marks = match (level, self.dead.as_bytes().len()) {
            (_, 0) => level > 1 || self.live_entries == self.entries,
            (1, bytes) => {
                let dead = self.entries.checked_sub(self.live_entries);
                bytes as u64 == self.entries.div_ceil(8) && dead == Some(self.dead.count())
            }
            _ => false,
        };
        let pages_max = if level == 1 { LEAF_PAGES_MAX } else { (BRANCH_BYTES / PAGE_SIZE) as u32 };
        let slots = level > 1 || (1..=LEAF_SLOTS_MAX as u64).contains(&self.entries);
        let extent = self.child.extent;
        counts && marks && slots && (1..=pages_max).contains(&extent.pages) && extent_in_range(extent)
    }
}

/// Whether the extent's bytes have 64-bit offsets.
pub(super) fn extent_in_range(extent: Extent) -> bool {
    extent.page.checked_add(u64::from(extent.pages)).is_some_and(|end| end <= i64::MAX as u64 / PAGE_SIZE as u64)
}

/// A branch, checked and decoded.
#[derive(Debug)]
pub(super) struct Branch {
    pub level: u8,
    pub entries: Vec<BranchEntry>,
    reference: PageRef,
}

impl Branch {
    /// Checks the bytes of the branch `reference`.
    pub fn decode(reference: &PageRef, level: u8, bytes: &[u8]) -> Result<Self, Flaw> {
        let header = PageHeader::open(reference, level, bytes, |header| header.length as usize)?;
        let mut rest = &bytes[PAGE_HEADER_BYTES..header.length as usize];
        let mut entries: Vec<BranchEntry> = Vec::with_capacity(rest.len() / BRANCH_ENTRY_BYTES);
        while !rest.is_empty() {
            let entry = BranchEntry::decode(rest, level)?;
            if entries.last().is_some_and(|last| entry.first <= last.first) {
                return Err("entries are not in order");
            }
            rest = &rest[entry.encoded_bytes()..];
            entries.push(entry);
        }
        if entries.is_empty() || entries.len() != header.count as usize {
            return Err("another number of entries than its header says");
        }
        Ok(Self { level, entries, reference: *reference })
    }

    /// Appends a branch of `entries` as it stands in `extent`, padded to whole pages; returns how the parent names it.
    pub fn encode(
        level: u8,
        entries: &[BranchEntry],
        extent: Extent,
        birth: TransactionId,
        out: &mut BytesMut,
    ) -> PageRef {
        let begin = out.len();
        out.resize(begin + PAGE_HEADER_BYTES, 0);
        entries.iter().for_each(|entry| entry.encode(out));
        let length = out.len() - begin;
        assert!(length <= extent.pages as usize * PAGE_SIZE, "a branch of {length} bytes in {extent:?}");
        let count = entries.len() as u32;
        let header = PageHeader { level, page: extent.page, birth, length: length as u32, count };
        let crc = header.seal(&mut out[begin..]);
        out.resize(begin + extent.pages as usize * PAGE_SIZE, 0);
        PageRef { extent, crc, birth }
    }

    /// The page it was read from.
    pub fn reference(&self) -> &PageRef {
        &self.reference
    }

    /// Index of the child that holds `revision` if anything does.
    pub fn child_of(&self, revision: Revision) -> Option<usize> {
        self.entries.partition_point(|entry| entry.first <= revision).checked_sub(1)
    }

    /// Bytes of memory it keeps.
    pub fn memory_bytes(&self) -> usize {
        let marks: usize = self.entries.iter().map(|entry| entry.dead.as_bytes().len()).sum();
        size_of::<Self>() + self.entries.capacity() * size_of::<BranchEntry>() + marks
    }
}
