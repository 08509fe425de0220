//! A range of keys as etcd's requests name it.

use crate::planted::{Bug, is_planted};

/// Where a [`KeyRange`] ends.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RangeEnd {
    /// The start key alone.
    Single,
    /// All keys below this one. At or below the start key the range is empty.
    Before(Vec<u8>),
    /// No end: every key at or above the start (`range_end` = one zero byte, etcd-contract 17).
    Unbounded,
}

/// Keys from `start` on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyRange {
    /// The first key; may be empty in ranges of our own, never in a client's.
    pub start: Vec<u8>,
    /// Where it ends.
    pub end: RangeEnd,
}

impl KeyRange {
    /// Every key there is.
    pub const ALL: KeyRange = KeyRange { start: Vec::new(), end: RangeEnd::Unbounded };

    /// The range of a request's `key` and `range_end`; the one place where etcd's encoding is read
    /// (etcd-contract 17).
    pub fn from_wire(key: &[u8], range_end: &[u8]) -> Self {
        let end = match range_end {
            [] => RangeEnd::Single,
            [0] if !is_planted(Bug::RangeEndMisread) => RangeEnd::Unbounded,
            before => RangeEnd::Before(before.to_vec()),
        };
        Self { start: key.to_vec(), end }
    }

    /// Its `range_end` in a request.
    pub fn wire_end(&self) -> &[u8] {
        match &self.end {
            RangeEnd::Single => &[],
            RangeEnd::Before(end) => end,
            RangeEnd::Unbounded => &[0],
        }
    }

    /// The range of one key.
    pub fn single(key: &[u8]) -> Self {
        Self::from_wire(key, &[])
    }

    /// Whether `key` lies in the range.
    pub fn contains(&self, key: &[u8]) -> bool {
        match &self.end {
            RangeEnd::Single => key == self.start,
            RangeEnd::Before(end) => key >= self.start.as_slice() && key < end.as_slice(),
            RangeEnd::Unbounded => key >= self.start.as_slice(),
        }
    }

    /// Whether no key can lie in the range.
    pub fn is_empty(&self) -> bool {
        matches!(&self.end, RangeEnd::Before(end) if *end <= self.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wire_forms() {
        assert!(KeyRange::from_wire(b"a", b"").contains(b"a"));
        assert!(!KeyRange::from_wire(b"a", b"").contains(b"aa"));
        assert!(KeyRange::from_wire(b"a", b"\0").contains(b"zz"));
        assert!(KeyRange::from_wire(b"a", b"c").contains(b"b"));
        assert!(!KeyRange::from_wire(b"a", b"c").contains(b"c"));
        assert!(KeyRange::from_wire(b"c", b"a").is_empty());
    }
}
