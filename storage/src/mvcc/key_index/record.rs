//! The packed state of one key: its newest revision, then its past ones.
//!
//! ```text
//!   flags │ main │ sub? │ live: main - create, version, lease? │ past: count, count x (below, sub)
//! ```
//! In a leaf a record holds the latest past revisions only and chunks the rest; in a checkpoint it holds all.

use crate::revision::Revision;

use super::past::{Past, PastIter};
use super::varint::{put_i64, put_u64, take_i64, take_u64};

pub(super) const TOMBSTONE: u8 = 1;
pub(super) const HAS_SUB: u8 = 1 << 1;
pub(super) const HAS_LEASE: u8 = 1 << 2;
pub(super) const HAS_PAST: u8 = 1 << 3;
const KNOWN_FLAGS: u8 = TOMBSTONE | HAS_SUB | HAS_LEASE | HAS_PAST;

/// A live key at head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyState {
    /// Main revision of the put that created the key.
    pub create_revision: i64,
    /// Revision of the latest put.
    pub mod_revision: Revision,
    /// How many puts since the creation, 1 for the first.
    pub version: i64,
    /// The lease the key is attached to; 0 for none.
    pub lease: i64,
}

/// The newest revision of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Head {
    Live(KeyState),
    Tombstone(Revision),
}

impl Head {
    pub(super) fn revision(&self) -> Revision {
        match self {
            Self::Live(state) => state.mod_revision,
            Self::Tombstone(revision) => *revision,
        }
    }

    pub(super) fn live(&self) -> Option<KeyState> {
        match self {
            Self::Live(state) => Some(*state),
            Self::Tombstone(_) => None,
        }
    }

    /// What is left of it once a newer revision stands.
    pub(super) fn to_past(self) -> Past {
        Past { revision: self.revision(), tombstone: matches!(self, Self::Tombstone(_)) }
    }
}

/// A key's newest revision and its packed past ones, newest first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record<'a> {
    pub(super) head: Head,
    pub(super) past_count: u64,
    pub(super) past: &'a [u8],
}

impl<'a> Record<'a> {
    /// Reads the packed form; `None` for bytes that this module did not write. The past is not looked into:
    /// see [`Self::past_is_valid`].
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (&flags, mut rest) = bytes.split_first()?;
        if flags & !KNOWN_FLAGS != 0 {
            return None;
        }
        let main = take_i64(&mut rest).filter(|main| *main >= 1)?;
        let sub = if flags & HAS_SUB != 0 { take_i64(&mut rest).filter(|sub| *sub > 0)? } else { 0 };
        let revision = Revision::new(main, sub);
        let head = match flags & TOMBSTONE {
            0 => Head::Live(parse_live(revision, flags, &mut rest)?),
            _ if flags & HAS_LEASE != 0 => return None,
            _ => Head::Tombstone(revision),
        };
        let past_count = if flags & HAS_PAST != 0 { take_u64(&mut rest).filter(|count| *count > 0)? } else { 0 };
        Some(Self { head, past_count, past: rest })
    }

    /// A record of a leaf.
    pub(super) fn of_leaf(payload: &'a [u8]) -> Self {
        Self::parse(payload).expect("a leaf holds records that encode wrote or that the loader checked")
    }

    /// Whether a packed record is a live key's: its first byte decides.
    pub(super) fn payload_is_live(payload: &[u8]) -> bool {
        payload.first().is_some_and(|flags| flags & TOMBSTONE == 0)
    }

    /// Whether the past revisions are as many as counted, descend, and fill the bytes exactly.
    pub(super) fn past_is_valid(&self) -> bool {
        let mut past = self.past();
        let count = past.by_ref().count() as u64;
        count == self.past_count && past.is_finished()
    }

    /// The packed past revisions, newest first.
    pub(super) fn past(&self) -> PastIter<'a> {
        PastIter::new(self.head.revision(), self.past)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(32 + self.past.len());
        let revision = self.head.revision();
        let lease = self.head.live().map_or(0, |state| state.lease);
        let flag = |flag: u8, set: bool| if set { flag } else { 0 };
        out.push(
            flag(TOMBSTONE, self.head.live().is_none())
                | flag(HAS_SUB, revision.sub != 0)
                | flag(HAS_LEASE, lease != 0)
                | flag(HAS_PAST, self.past_count != 0),
        );
        put_i64(&mut out, revision.main);
        if revision.sub != 0 {
            put_i64(&mut out, revision.sub);
        }
        if let Some(state) = self.head.live() {
            put_i64(&mut out, revision.main - state.create_revision);
            put_i64(&mut out, state.version);
            if lease != 0 {
                out.extend_from_slice(&lease.to_le_bytes());
            }
        }
        if self.past_count != 0 {
            put_u64(&mut out, self.past_count);
        }
        out.extend_from_slice(self.past);
        out
    }
}

fn parse_live(mod_revision: Revision, flags: u8, rest: &mut &[u8]) -> Option<KeyState> {
    let since_creation = take_i64(rest).filter(|since| *since < mod_revision.main)?;
    let version = take_i64(rest).filter(|version| *version >= 1)?;
    let mut lease = 0;
    if flags & HAS_LEASE != 0 {
        let (bytes, tail) = rest.split_first_chunk::<8>()?;
        lease = i64::from_le_bytes(*bytes);
        *rest = tail;
        if lease == 0 {
            return None;
        }
    }
    Some(KeyState { create_revision: mod_revision.main - since_creation, mod_revision, version, lease })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extremes_round_trip() {
        let far = Revision::new(i64::MAX, i64::MAX);
        let state = KeyState { create_revision: 1, mod_revision: far, version: i64::MAX, lease: i64::MIN };
        for head in [Head::Live(state), Head::Tombstone(far), Head::Tombstone(Revision::new(1, 0))] {
            let bytes = Record { head, past_count: 0, past: &[] }.encode();
            let read = Record::parse(&bytes).unwrap();
            assert_eq!((read.head, read.past_count, read.past), (head, 0, [].as_slice()));
            for end in 0..bytes.len() {
                let cut = Record::parse(&bytes[..end]);
                assert!(cut.is_none(), "cut at {end}: {cut:?}");
            }
        }
    }

    #[test]
    fn an_impossible_creation_or_flag_is_refused() {
        assert!(Record::parse(&[0, 5, 4, 1]).is_some());
        assert!(Record::parse(&[0, 5, 5, 1]).is_none(), "created at revision 0");
        assert!(Record::parse(&[0, 5, 4, 0]).is_none(), "version 0");
        assert!(Record::parse(&[0x80, 5, 4, 1]).is_none(), "unknown flag");
        assert!(Record::parse(&[TOMBSTONE | HAS_LEASE, 5]).is_none(), "tombstone with a lease");
        assert!(!Record::parse(&[HAS_PAST, 5, 4, 1, 2, 2, 0]).unwrap().past_is_valid(), "one of two past revisions");
    }
}
