//! The dead overlay of a leaf: which of its slots no reader of the newest root wants any more.

/// One bit a slot, kept in the leaf's branch entry so that marking rewrites no leaf. Empty while nothing is dead.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeadMarks(Box<[u8]>);

impl DeadMarks {
    /// Bytes of the marks of a leaf with `slots` slots, once one is dead.
    pub(super) const fn bytes_for(slots: usize) -> usize {
        slots.div_ceil(8)
    }

    /// The marks as they stand in a page.
    pub(super) fn from_bytes(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    /// The bytes as they stand in a page; none while nothing is dead.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether slot `index` is dead.
    pub fn is_dead(&self, index: usize) -> bool {
        self.0.get(index / 8).is_some_and(|byte| byte & (1 << (index % 8)) != 0)
    }

    /// Marks slot `index` of `slots`; false if it was marked before.
    pub(super) fn mark(&mut self, index: usize, slots: usize) -> bool {
        assert!(index < slots, "slot {index} of {slots}");
        if self.0.is_empty() {
            self.0 = vec![0; Self::bytes_for(slots)].into();
        }
        let (byte, bit) = (&mut self.0[index / 8], 1 << (index % 8));
        let fresh = *byte & bit == 0;
        *byte |= bit;
        fresh
    }

    /// How many slots are dead.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|byte| u64::from(byte.count_ones())).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marking_twice_counts_once() {
        let mut marks = DeadMarks::default();
        assert!(!marks.is_dead(9));
        assert!(marks.mark(9, 10));
        assert!(!marks.mark(9, 10));
        assert!(marks.is_dead(9) && !marks.is_dead(8));
        assert_eq!((marks.count(), marks.as_bytes().len()), (1, 2));
    }
}
