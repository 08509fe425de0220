//! Older revisions of a key, packed: within a record newest first, and in immutable chunks of blocks.
//!
//! One past revision is two integers: how far `main` lies below the next newer revision (shifted, with the tombstone
//! flag), and `sub`. So the newest is prepended without touching the others, and a compaction, which always drops the
//! oldest, truncates.

use crate::revision::Revision;

use super::varint::{put_i64, put_u64, take_i64, take_u64};

/// A stored revision of a key: of a value, or of the tombstone that a delete leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Past {
    pub(super) revision: Revision,
    pub(super) tombstone: bool,
}

/// Appends `past`, whose next newer revision is `newer`.
pub(super) fn put_past(out: &mut Vec<u8>, newer: Revision, past: Past) {
    assert!(past.revision < newer, "revisions of a key ascend: {:?} before {newer:?}", past.revision);
    let below = (newer.main - past.revision.main) as u64;
    put_u64(out, below << 1 | u64::from(past.tombstone));
    put_i64(out, past.revision.sub);
}

/// Reads packed past revisions, newest first; ends early at bytes that are none, see [`PastIter::is_finished`].
#[derive(Clone, Debug)]
pub(super) struct PastIter<'a> {
    newer: Revision,
    bytes: &'a [u8],
}

impl<'a> PastIter<'a> {
    /// The revisions packed in `bytes` below `newer`.
    pub(super) fn new(newer: Revision, bytes: &'a [u8]) -> Self {
        Self { newer, bytes }
    }

    /// Whether every byte was read: if not after the end, the bytes are malformed.
    pub(super) fn is_finished(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The bytes not read yet.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.bytes
    }
}

impl Iterator for PastIter<'_> {
    type Item = Past;

    fn next(&mut self) -> Option<Past> {
        let mut rest = self.bytes;
        let below_and_flag = take_u64(&mut rest)?;
        let sub = take_i64(&mut rest)?;
        let main = self.newer.main.checked_sub_unsigned(below_and_flag >> 1)?;
        let revision = Revision::new(main, sub);
        if main < 1 || revision >= self.newer {
            return None;
        }
        (self.newer, self.bytes) = (revision, rest);
        Some(Past { revision, tombstone: below_and_flag & 1 == 1 })
    }
}

/// Up to [`super::PAST_INLINE_MAX`] past revisions of a chunk; its bytes end where those of the next block start.
#[derive(Clone, Copy, Debug)]
struct Block {
    newest: Past,
    start: u32,
}

/// Many past revisions of one key: blocks, oldest first, each packed newest first. Never changed once made.
#[derive(Debug)]
pub(super) struct Chunk {
    blocks: Box<[Block]>,
    bytes: Box<[u8]>,
}

impl Chunk {
    /// One block of the revisions packed in `bytes` below `newer`; at least one.
    pub(super) fn from_packed(newer: Revision, bytes: &[u8]) -> Self {
        let mut past = PastIter::new(newer, bytes);
        let newest = past.next().expect("a chunk is made of packed revisions, of at least one");
        Self { blocks: Box::new([Block { newest, start: 0 }]), bytes: past.rest().into() }
    }

    /// The revisions of both; `None` if the bytes would not fit 32-bit offsets.
    pub(super) fn merged(older: &Self, newer: &Self) -> Option<Self> {
        let shift = u32::try_from(older.bytes.len()).ok()?;
        u32::try_from(older.bytes.len() + newer.bytes.len()).ok()?;
        let moved = newer.blocks.iter().map(|block| Block { start: block.start + shift, ..*block });
        Some(Self {
            blocks: older.blocks.iter().copied().chain(moved).collect(),
            bytes: [&*older.bytes, &*newer.bytes].concat().into(),
        })
    }

    pub(super) fn blocks_len(&self) -> usize {
        self.blocks.len()
    }

    /// Bytes allocated, this struct and its reference counts included.
    pub(super) fn memory_bytes(&self) -> usize {
        2 * size_of::<usize>() + size_of::<Self>() + size_of_val(&*self.blocks) + self.bytes.len()
    }

    /// The newest revision up to `last`. O(log blocks + one block).
    pub(super) fn up_to(&self, last: Revision) -> Option<Past> {
        let whole = self.blocks.partition_point(|block| block.newest.revision <= last);
        let within = (whole < self.blocks.len()).then(|| self.block(whole).find(|past| past.revision <= last));
        within.flatten().or_else(|| Some(self.blocks[whole.checked_sub(1)?].newest))
    }

    /// All revisions, newest first.
    pub(super) fn newest_first(&self) -> impl Iterator<Item = Past> + '_ {
        (0..self.blocks.len()).rev().flat_map(|block| self.block(block))
    }

    /// All revisions, oldest first; reads one block at a time.
    pub(super) fn oldest_first(&self) -> impl Iterator<Item = Past> + '_ {
        (0..self.blocks.len()).flat_map(|block| self.block(block).collect::<Vec<_>>().into_iter().rev())
    }

    /// What is left without the revisions below `limit`; `None` if nothing.
    pub(super) fn from(&self, limit: Revision) -> Option<Self> {
        let first = self.blocks.partition_point(|block| block.newest.revision < limit);
        let boundary = *self.blocks.get(first)?;
        let packed = self.packed(first);
        let (_, kept_len) = kept(boundary.newest.revision, packed, limit);
        let start = boundary.start as usize;
        let mut bytes = packed[..kept_len].to_vec();
        let next = start + packed.len();
        let gone = next - kept_len;
        bytes.extend_from_slice(&self.bytes[next..]);
        let later = self.blocks[first + 1..].iter().map(|block| Block { start: block.start - gone as u32, ..*block });
        let blocks = std::iter::once(Block { start: 0, ..boundary }).chain(later).collect();
        Some(Self { blocks, bytes: bytes.into() })
    }

    fn packed(&self, block: usize) -> &[u8] {
        let end = self.blocks.get(block + 1).map_or(self.bytes.len(), |next| next.start as usize);
        &self.bytes[self.blocks[block].start as usize..end]
    }

    fn block(&self, block: usize) -> impl Iterator<Item = Past> + '_ {
        let newest = self.blocks[block].newest;
        std::iter::once(newest).chain(PastIter::new(newest.revision, self.packed(block)))
    }
}

/// How many of the revisions packed in `bytes` below `newer` are at or above `limit`, and how many bytes they take.
pub(super) fn kept(newer: Revision, bytes: &[u8], limit: Revision) -> (u64, usize) {
    let (mut past, mut count, mut len) = (PastIter::new(newer, bytes), 0, 0);
    while past.next().is_some_and(|past| past.revision >= limit) {
        count += 1;
        len = bytes.len() - past.rest().len();
    }
    (count, len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(mains: std::ops::Range<i64>) -> Chunk {
        let above = Revision::new(mains.end, 0);
        let (mut bytes, mut newer) = (Vec::new(), above);
        for main in mains.rev() {
            let past = Past { revision: Revision::new(main, main % 3), tombstone: main % 5 == 0 };
            put_past(&mut bytes, newer, past);
            newer = past.revision;
        }
        Chunk::from_packed(above, &bytes)
    }

    #[test]
    fn a_merged_chunk_answers_and_truncates_at_every_revision() {
        let all = Chunk::merged(&chunk(10..20), &Chunk::merged(&chunk(20..21), &chunk(21..40)).unwrap()).unwrap();
        let newest: Vec<_> = all.newest_first().map(|past| past.revision.main).collect();
        assert_eq!(newest, (10..40).rev().collect::<Vec<_>>());
        assert!(all.oldest_first().map(|past| past.revision.main).eq(10..40));
        assert_eq!(all.up_to(Revision::new(9, i64::MAX)), None);
        for at in 10..45 {
            let past = all.up_to(Revision::new(at, i64::MAX)).unwrap();
            assert_eq!(past.revision.main, at.min(39));
            assert_eq!(past.tombstone, at.min(39) % 5 == 0);
            let rest = all.from(Revision::new(at, 0));
            let left: Vec<_> = rest.iter().flat_map(Chunk::oldest_first).map(|past| past.revision.main).collect();
            assert_eq!(left, (at..40).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_widest_distance_fits() {
        let (newer, past) = (Revision::new(i64::MAX, 0), Revision::new(1, i64::MAX));
        let mut bytes = Vec::new();
        put_past(&mut bytes, newer, Past { revision: past, tombstone: true });
        let mut read = PastIter::new(newer, &bytes);
        assert_eq!(read.next(), Some(Past { revision: past, tombstone: true }));
        assert!(read.is_finished());
        assert_eq!(PastIter::new(Revision::new(5, 0), &bytes).next(), None);
    }
}
