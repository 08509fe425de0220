//! Which terms the entries of the log have.

/// The terms of all entries, as one pair per change of term.
///
/// Invariants: run starts rise strictly, from above `base_index` to `last_index`; terms rise strictly.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TermRuns {
    base_index: u64,
    base_term: u64,
    /// First index and term of each run.
    runs: Vec<(u64, u64)>,
    last_index: u64,
}

/// A record that does not fit the log before it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Misplaced(pub(super) &'static str);

impl TermRuns {
    /// An empty log behind the entry `index` of `term`.
    pub(super) fn after(index: u64, term: u64) -> Self {
        Self { base_index: index, base_term: term, runs: Vec::new(), last_index: index }
    }

    /// Index and term of the entry before the first.
    pub(super) fn base(&self) -> (u64, u64) {
        (self.base_index, self.base_term)
    }

    /// Index and term of the last entry, or of the one before the first if there is none.
    pub(super) fn last(&self) -> (u64, u64) {
        (self.last_index, self.runs.last().map_or(self.base_term, |(_, term)| *term))
    }

    pub(super) fn push(&mut self, index: u64, term: u64) -> Result<(), Misplaced> {
        let (last_index, last_term) = self.last();
        if last_index.checked_add(1) != Some(index) {
            return Err(Misplaced("entry does not follow the one before"));
        }
        if term < last_term {
            return Err(Misplaced("term of an entry is below the one before"));
        }
        if self.runs.is_empty() || term > last_term {
            self.runs.push((index, term));
        }
        self.last_index = index;
        Ok(())
    }

    /// Drops the entries from `index` on; returns the term of the one before it.
    pub(super) fn truncate_from(&mut self, index: u64) -> Result<u64, Misplaced> {
        if index <= self.base_index || index > self.last_index.saturating_add(1) {
            return Err(Misplaced("truncation outside of the log"));
        }
        self.runs.retain(|(first, _)| *first < index);
        self.last_index = index - 1;
        Ok(self.last().1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_follow_pushes_and_truncations() {
        let mut runs = TermRuns::after(10, 2);
        assert_eq!(runs.push(12, 2), Err(Misplaced("entry does not follow the one before")));
        assert_eq!(runs.push(11, 1), Err(Misplaced("term of an entry is below the one before")));
        for (index, term) in [(11, 2), (12, 3), (13, 3), (14, 5)] {
            runs.push(index, term).expect("fits");
        }
        assert_eq!((runs.base(), runs.last()), ((10, 2), (14, 5)));
        assert_eq!(runs.truncate_from(10), Err(Misplaced("truncation outside of the log")));
        assert_eq!(runs.truncate_from(16), Err(Misplaced("truncation outside of the log")));
        assert_eq!(runs.truncate_from(15), Ok(5));
        assert_eq!(runs.truncate_from(13), Ok(3));
        assert_eq!(runs.truncate_from(11), Ok(2));
        assert_eq!(runs.last(), (10, 2));
    }
}
