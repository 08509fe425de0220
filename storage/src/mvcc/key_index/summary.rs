//! What a parent knows of a subtree without reading it.

/// Figures of a leaf or of a whole subtree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Summary {
    /// Keys live at head.
    pub(super) live: u64,
    /// Keys stored, those included of which only a tombstone or history is left.
    pub(super) stored: u64,
    /// Bytes allocated.
    pub(super) bytes: u64,
    /// No revision in the subtree has a newer main: a count at or above it is `live`.
    pub(super) newest_main: i64,
    /// The lowest compact revision that drops something of the subtree.
    pub(super) drop_from: i64,
}

impl Default for Summary {
    fn default() -> Self {
        Self { live: 0, stored: 0, bytes: 0, newest_main: 0, drop_from: i64::MAX }
    }
}

impl Summary {
    /// The figures of both.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            live: self.live + other.live,
            stored: self.stored + other.stored,
            bytes: self.bytes + other.bytes,
            newest_main: self.newest_main.max(other.newest_main),
            drop_from: self.drop_from.min(other.drop_from),
        }
    }
}
