//! What a batch is made of.

use bytes::{BufMut, Bytes, BytesMut};

use super::little_endian::u64_at;

pub(super) const TYPE_ENTRY: u8 = 1;
pub(super) const TYPE_HARD_STATE: u8 = 2;
pub(super) const TYPE_TRUNCATE_FROM: u8 = 3;
pub(super) const TYPE_START_AFTER: u8 = 4;

/// Encoded size of an entry without its data: type, kind, index, term, data length.
pub(super) const ENTRY_FIXED_BYTES: usize = 1 + 1 + 8 + 8 + 4;
/// Encoded size of a hard state: type, term, vote, commit.
pub(super) const HARD_STATE_BYTES: usize = 1 + 8 + 8 + 8;
/// Encoded size of a truncation: type, index, term of the entry before.
pub(super) const TRUNCATE_FROM_BYTES: usize = 1 + 8 + 8;
/// Encoded size of a new start: type, index, term.
pub(super) const START_AFTER_BYTES: usize = 1 + 8 + 8;

/// One log entry; what `kind` and `data` mean is the caller's business.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Position in the log, from 1.
    pub index: u64,
    /// Term of the leader that made it.
    pub term: u64,
    /// Raft's entry type.
    pub kind: u8,
    /// Its content.
    pub data: Bytes,
}

/// What a Raft member must never forget beside its entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// Newest term seen.
    pub term: u64,
    /// Member voted for in `term`, 0 for none.
    pub vote: u64,
    /// Highest index known to be committed.
    pub commit: u64,
}

/// One thing to remember. Records take effect in the order in which they were appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Continues the log by exactly one index.
    Entry(Entry),
    /// Replaces the hard state.
    HardState(HardState),
    /// Drops the entries from `index` on: they were never committed and a leader sent others. Not an entry is
    /// touched in place.
    TruncateFrom {
        /// First index that is dropped; at most one above the last.
        index: u64,
    },
    /// Drops all entries; the log goes on behind a snapshot that ends with this entry.
    StartAfter {
        /// Index of the last entry in the snapshot.
        index: u64,
        /// Its term.
        term: u64,
    },
}

impl Record {
    pub(super) fn encoded_bytes(&self) -> usize {
        match self {
            Self::Entry(entry) => ENTRY_FIXED_BYTES + entry.data.len(),
            Self::HardState(_) => HARD_STATE_BYTES,
            Self::TruncateFrom { .. } => TRUNCATE_FROM_BYTES,
            Self::StartAfter { .. } => START_AFTER_BYTES,
        }
    }
}

/// A record as it stands on disk. A truncation carries the term of the entry before it, because the segments that
/// hold that entry may be recycled by the time the record is replayed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum StoredRecord {
    Entry(Entry),
    HardState(HardState),
    TruncateFrom { index: u64, previous_term: u64 },
    StartAfter { index: u64, term: u64 },
}

impl StoredRecord {
    pub(super) fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Entry(entry) => {
                out.put_u8(TYPE_ENTRY);
                out.put_u8(entry.kind);
                out.put_u64_le(entry.index);
                out.put_u64_le(entry.term);
                out.put_u32_le(u32::try_from(entry.data.len()).expect("a batch is far below 4 GiB"));
                out.put_slice(&entry.data);
            }
            Self::HardState(state) => {
                out.put_u8(TYPE_HARD_STATE);
                out.put_u64_le(state.term);
                out.put_u64_le(state.vote);
                out.put_u64_le(state.commit);
            }
            Self::TruncateFrom { index, previous_term } => {
                out.put_u8(TYPE_TRUNCATE_FROM);
                out.put_u64_le(*index);
                out.put_u64_le(*previous_term);
            }
            Self::StartAfter { index, term } => {
                out.put_u8(TYPE_START_AFTER);
                out.put_u64_le(*index);
                out.put_u64_le(*term);
            }
        }
    }

    /// Takes one record off the front of `bytes`. Entry data is copied, so that no entry keeps a segment alive.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub(super) fn decode(bytes: &mut &[u8]) -> Result<Self, &'static str> {
        match *bytes.first().ok_or("record missing")? {
            TYPE_ENTRY => {
                let fixed = take(bytes, ENTRY_FIXED_BYTES)?;
                let length = u32::from_le_bytes(super::little_endian::array(fixed, 18)) as usize;
                let data = Bytes::copy_from_slice(take(bytes, length)?);
                Ok(Self::Entry(Entry { kind: fixed[1], index: u64_at(fixed, 2), term: u64_at(fixed, 10), data }))
            }
            TYPE_HARD_STATE => {
                let fixed = take(bytes, HARD_STATE_BYTES)?;
                let (term, vote, commit) = (u64_at(fixed, 1), u64_at(fixed, 9), u64_at(fixed, 17));
                Ok(Self::HardState(HardState { term, vote, commit }))
            }
            TYPE_TRUNCATE_FROM => {
                let fixed = take(bytes, TRUNCATE_FROM_BYTES)?;
                Ok(Self::TruncateFrom { index: u64_at(fixed, 1), previous_term: u64_at(fixed, 9) })
            }
            TYPE_START_AFTER => {
                let fixed = take(bytes, START_AFTER_BYTES)?;
                Ok(Self::StartAfter { index: u64_at(fixed, 1), term: u64_at(fixed, 9) })
            }
            _ => Err("unknown record type"),
        }
    }
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Result<&'a [u8], &'static str> {
    let (taken, rest) = bytes.split_at_checked(length).ok_or("record cut short")?;
    *bytes = rest;
    Ok(taken)
}
