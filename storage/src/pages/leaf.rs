//! Leaves: header, slot table, entries. A leaf is written once, packed full, and never changed.

use bytes::{Bytes, BytesMut};

use crate::revision::Revision;

use super::allocator::{Extent, PAGE_SIZE, TransactionId};
use super::little_endian::{i64_at, put, u32_at};
use super::page_header::{Flaw, PAGE_HEADER_BYTES, PageHeader, PageRef};

/// Bytes a leaf is filled to. One entry that is larger gets a leaf of its own.
pub const LEAF_BYTES: usize = 32 * 1024;
/// Slots of a leaf; bounds its dead marks to 64 bytes in the branch above.
pub const LEAF_SLOTS_MAX: usize = 512;
/// Bytes of a slot.
pub const SLOT_BYTES: usize = 48;
/// Bytes of the largest KeyValue that is stored: far above any request, well below a region of the allocator.
pub const ENTRY_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Pages of the largest leaf.
pub(super) const LEAF_PAGES_MAX: u32 = (PAGE_HEADER_BYTES + SLOT_BYTES + ENTRY_BYTES_MAX).div_ceil(PAGE_SIZE) as u32;

const MAIN: usize = 0;
const SUB: usize = 8;
const PREVIOUS_MAIN: usize = 16;
const PREVIOUS_SUB: usize = 24;
const OFFSET: usize = 32;
const LENGTH: usize = 36;
const CRC32C: usize = 40;
const FLAGS: usize = 44;
const FLAG_TOMBSTONE: u32 = 1;
const _: () = assert!(FLAGS + 4 == SLOT_BYTES);

/// One version of one key, as the tree stores it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEntry {
    /// When it was written.
    pub revision: Revision,
    /// Whether it deletes its key.
    pub tombstone: bool,
    /// The version of the same key before it, if there was one.
    pub previous: Option<Revision>,
    /// The encoded `mvccpb.KeyValue`, at most [`ENTRY_BYTES_MAX`].
    pub key_value: Bytes,
}

impl NewEntry {
    /// Bytes it takes in a leaf, slot included: the unit of `live_bytes`.
    pub fn stored_bytes(&self) -> usize {
        SLOT_BYTES + self.key_value.len()
    }
}

/// CRC-32C over revision key and KeyValue: the checksum of an entry, and what HashKV combines (etcd-contract 52).
pub fn entry_crc32c(revision: Revision, tombstone: bool, key_value: &[u8]) -> u32 {
    let crc = if tombstone { crc32c::crc32c(&revision.to_tombstone_key()) } else { crc32c::crc32c(&revision.to_key()) };
    crc32c::crc32c_append(crc, key_value)
}

/// Bytes of header and slot table of a leaf with `slots` slots.
pub(super) const fn leaf_head_bytes(slots: usize) -> usize {
    PAGE_HEADER_BYTES + slots * SLOT_BYTES
}

/// Pages of a leaf whose slots and entries take `stored_bytes`.
pub(super) fn leaf_pages(stored_bytes: u64) -> u32 {
    let pages = (PAGE_HEADER_BYTES as u64 + stored_bytes).div_ceil(PAGE_SIZE as u64);
    u32::try_from(pages).expect("entries are at most ENTRY_BYTES_MAX")
}

/// What a leaf says about one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub revision: Revision,
    pub tombstone: bool,
    pub previous: Option<Revision>,
    /// Where the KeyValue begins, from the beginning of the leaf.
    pub offset: u32,
    pub length: u32,
    pub crc32c: u32,
}

impl Slot {
    /// As [`NewEntry::stored_bytes`].
    pub fn stored_bytes(&self) -> u64 {
        SLOT_BYTES as u64 + u64::from(self.length)
    }

    /// Whether `key_value` is what was stored.
    pub fn matches(&self, key_value: &[u8]) -> bool {
        entry_crc32c(self.revision, self.tombstone, key_value) == self.crc32c
    }

    fn encode(&self, slot: &mut [u8]) {
        let previous = self.previous.unwrap_or_default();
        put(slot, MAIN, &self.revision.main.to_le_bytes());
        put(slot, SUB, &self.revision.sub.to_le_bytes());
        put(slot, PREVIOUS_MAIN, &previous.main.to_le_bytes());
        put(slot, PREVIOUS_SUB, &previous.sub.to_le_bytes());
        put(slot, OFFSET, &self.offset.to_le_bytes());
        put(slot, LENGTH, &self.length.to_le_bytes());
        put(slot, CRC32C, &self.crc32c.to_le_bytes());
        put(slot, FLAGS, &u32::from(self.tombstone).to_le_bytes());
    }

    fn decode(slot: &[u8]) -> Self {
        let previous = Revision::new(i64_at(slot, PREVIOUS_MAIN), i64_at(slot, PREVIOUS_SUB));
        Self {
            revision: Revision::new(i64_at(slot, MAIN), i64_at(slot, SUB)),
            tombstone: u32_at(slot, FLAGS) & FLAG_TOMBSTONE != 0,
            previous: (previous != Revision::default()).then_some(previous),
            offset: u32_at(slot, OFFSET),
            length: u32_at(slot, LENGTH),
            crc32c: u32_at(slot, CRC32C),
        }
    }
}

/// Header and slot table of a leaf, checked. Slots are decoded where they stand: the cache holds nothing twice.
#[derive(Debug)]
pub(super) struct LeafHead {
    head: Bytes,
    reference: PageRef,
}

impl LeafHead {
    /// Checks the first bytes of the leaf `reference`, which its parent says has `slots` slots.
    pub fn decode(reference: &PageRef, slots: u64, bytes: &[u8]) -> Result<Self, Flaw> {
        let header = PageHeader::open(reference, 0, bytes, |header| {
            leaf_head_bytes((header.count as usize).min(LEAF_SLOTS_MAX + 1))
        })?;
        if u64::from(header.count) != slots || header.count == 0 || header.count as usize > LEAF_SLOTS_MAX {
            return Err("another number of slots than its parent says");
        }
        let head = Bytes::copy_from_slice(&bytes[..leaf_head_bytes(header.count as usize)]);
        let leaf = Self { head, reference: *reference };
        leaf.check_slots(u64::from(header.length))?;
        Ok(leaf)
    }

    fn check_slots(&self, length: u64) -> Result<(), Flaw> {
        let mut last = None;
        for (index, slot) in self.slots().enumerate() {
            if u32_at(&self.head, leaf_head_bytes(index) + FLAGS) & !FLAG_TOMBSTONE != 0 {
                return Err("unknown slot flags");
            }
            let end = u64::from(slot.offset) + u64::from(slot.length);
            if (slot.offset as usize) < self.head.len() || end > length {
                return Err("a slot points outside its leaf");
            }
            if last.is_some_and(|last| slot.revision <= last) {
                return Err("slots are not in order");
            }
            last = Some(slot.revision);
        }
        Ok(())
    }

    /// The page it was read from.
    pub fn reference(&self) -> &PageRef {
        &self.reference
    }

    /// How many slots it has.
    pub fn len(&self) -> usize {
        (self.head.len() - PAGE_HEADER_BYTES) / SLOT_BYTES
    }

    /// Slot `index`.
    pub fn slot(&self, index: usize) -> Slot {
        Slot::decode(&self.head[leaf_head_bytes(index)..leaf_head_bytes(index + 1)])
    }

    /// The revision of slot `index`; a search needs no more of it.
    fn revision(&self, index: usize) -> Revision {
        let slot = leaf_head_bytes(index);
        Revision::new(i64_at(&self.head, slot + MAIN), i64_at(&self.head, slot + SUB))
    }

    /// All slots, by revision.
    pub fn slots(&self) -> impl Iterator<Item = Slot> + '_ {
        (0..self.len()).map(|index| self.slot(index))
    }

    /// Index of the first slot at or above `revision`; the number of slots if there is none.
    pub fn lower_bound(&self, revision: Revision) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.revision(middle) < revision { low = middle + 1 } else { high = middle }
        }
        low
    }

    /// The slot of `revision` and its index.
    pub fn find(&self, revision: Revision) -> Option<(usize, Slot)> {
        let index = self.lower_bound(revision);
        let found = index < self.len() && self.revision(index) == revision;
        found.then(|| (index, self.slot(index)))
    }

    /// Bytes of memory it keeps.
    pub fn memory_bytes(&self) -> usize {
        self.head.len() + size_of::<Self>()
    }

    /// The entry of `slot`, cut out of the whole leaf's bytes and checked.
    pub fn entry(&self, slot: &Slot, leaf: &Bytes) -> Result<NewEntry, Flaw> {
        let range = slot.offset as usize..slot.offset as usize + slot.length as usize;
        if range.end > leaf.len() {
            return Err("a slot points outside its leaf");
        }
        let key_value = leaf.slice(range);
        if !slot.matches(&key_value) {
            return Err("entry checksum mismatch");
        }
        Ok(NewEntry { revision: slot.revision, tombstone: slot.tombstone, previous: slot.previous, key_value })
    }
}

/// The entries of one leaf to be written, at least one.
#[derive(Debug)]
pub(super) struct NewLeaf {
    pub entries: Vec<NewEntry>,
}

impl NewLeaf {
    /// Cuts a run of entries into leaves, each as full as it gets.
    pub fn pack(entries: impl IntoIterator<Item = NewEntry>) -> Vec<Self> {
        let mut leaves: Vec<Self> = Vec::new();
        let mut length = 0;
        for entry in entries {
            let fits = length + entry.stored_bytes() <= LEAF_BYTES;
            match leaves.last_mut() {
                Some(leaf) if fits && leaf.entries.len() < LEAF_SLOTS_MAX => {
                    length += entry.stored_bytes();
                    leaf.entries.push(entry);
                }
                _ => {
                    length = PAGE_HEADER_BYTES + entry.stored_bytes();
                    leaves.push(Self { entries: vec![entry] });
                }
            }
        }
        leaves
    }

    /// Bytes of its entries and slots.
    pub fn stored_bytes(&self) -> u64 {
        self.entries.iter().map(|entry| entry.stored_bytes() as u64).sum()
    }

    /// Pages it takes.
    pub fn pages(&self) -> u32 {
        leaf_pages(self.stored_bytes())
    }

    /// The first revision in it.
    pub fn first(&self) -> Revision {
        self.entries[0].revision
    }

    /// Appends the leaf as it stands in `extent`, padded to whole pages; returns how the parent names it.
    pub fn encode(&self, extent: Extent, birth: TransactionId, out: &mut BytesMut) -> PageRef {
        assert_eq!(extent.pages, self.pages(), "an extent of another size was allocated");
        let begin = out.len();
        let head_bytes = leaf_head_bytes(self.entries.len());
        out.resize(begin + head_bytes, 0);
        for (index, entry) in self.entries.iter().enumerate() {
            let slot = Slot {
                revision: entry.revision,
                tombstone: entry.tombstone,
                previous: entry.previous,
                offset: (out.len() - begin) as u32,
                length: entry.key_value.len() as u32,
                crc32c: entry_crc32c(entry.revision, entry.tombstone, &entry.key_value),
            };
            slot.encode(&mut out[begin + leaf_head_bytes(index)..begin + leaf_head_bytes(index + 1)]);
            out.extend_from_slice(&entry.key_value);
        }
        let length = (out.len() - begin) as u32;
        let count = self.entries.len() as u32;
        let header = PageHeader { level: 0, page: extent.page, birth, length, count };
        let crc = header.seal(&mut out[begin..begin + head_bytes]);
        out.resize(begin + extent.pages as usize * PAGE_SIZE, 0);
        PageRef { extent, crc, birth }
    }
}
