//! I2: where two logs have an entry of the same index and term, they are the same up to there.
//!
//! An entry of one index and term holds the same and stands behind an entry of the same term, wherever it is written: the
//! rest follows from entry to entry.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hasher};

use basalt_storage::mvcc::view::LogPosition;
use raft::prelude::Entry;

use crate::node_sim::Appended;

/// Terms of the entries of one log, as far back as it reaches.
#[derive(Default)]
struct MemberLog {
    before: LogPosition,
    terms: VecDeque<u64>,
}

/// All logs, as they were written.
#[derive(Default)]
pub struct LogMatching {
    /// Of every entry that ever was in a log: what it holds, and the term of the one before it.
    entries: BTreeMap<(u64, u64), (u64, u64)>,
    logs: BTreeMap<u64, MemberLog>,
}

impl MemberLog {
    /// The term at an index; `None` where it does not reach.
    fn term(&self, index: u64) -> Option<u64> {
        if index == self.before.index {
            return Some(self.before.term);
        }
        let position = usize::try_from(index.checked_sub(self.before.index + 1)?).ok()?;
        self.terms.get(position).copied()
    }
}

impl LogMatching {
    /// A member writes to its log.
    ///
    /// # Panics
    /// When an entry is another one than elsewhere, or leaves a gap.
    pub fn wrote(&mut self, member: u64, appended: &Appended) {
        let log = self.logs.entry(member).or_default();
        if let Some(before) = appended.start_after {
            *log = MemberLog { before, terms: VecDeque::new() };
        }
        for entry in &appended.entries {
            let before = log.term(entry.index - 1);
            let before =
                before.unwrap_or_else(|| panic!("I2: member {member:x} wrote entry {} behind a gap", entry.index));
            let kept = usize::try_from(entry.index - log.before.index - 1).expect("a log fits into memory");
            log.terms.truncate(kept);
            log.terms.push_back(entry.term);
            let seen = (content(entry), before);
            let first = *self.entries.entry((entry.index, entry.term)).or_insert(seen);
            assert_eq!(first, seen, "I2: entry {} of term {} differs between logs", entry.index, entry.term);
        }
    }

    /// Whether the log of a member has this entry, or begins behind it.
    pub fn holds(&self, member: u64, position: LogPosition) -> bool {
        let log = self.logs.get(&member);
        log.is_some_and(|log| position.index < log.before.index || log.term(position.index) == Some(position.term))
    }
}

fn content(entry: &Entry) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write_i32(entry.entry_type);
    hasher.write(&entry.data);
    hasher.write(&entry.context);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn appended(start_after: Option<(u64, u64)>, entries: &[(u64, u64, &str)]) -> Appended {
        let entry = |(index, term, data): &(u64, u64, &str)| Entry {
            index: *index,
            term: *term,
            data: data.as_bytes().to_vec(),
            ..Entry::default()
        };
        let start_after = start_after.map(|(index, term)| LogPosition { index, term });
        Appended { start_after, entries: entries.iter().map(entry).collect() }
    }

    #[test]
    fn logs_that_grow_from_one_another_match() {
        let mut logs = LogMatching::default();
        logs.wrote(1, &appended(Some((0, 0)), &[(1, 1, "a"), (2, 1, "b")]));
        logs.wrote(2, &appended(Some((0, 0)), &[(1, 1, "a"), (2, 2, "c"), (3, 2, "d")]));
        logs.wrote(1, &appended(None, &[(2, 2, "c")]));
        assert!(logs.holds(2, LogPosition { index: 3, term: 2 }) && !logs.holds(1, LogPosition { index: 3, term: 2 }));
        logs.wrote(1, &appended(Some((7, 3)), &[]));
        assert!(logs.holds(1, LogPosition { index: 2, term: 9 }), "that is in what it begins behind");
    }

    #[test]
    #[should_panic(expected = "differs between logs")]
    fn other_content_is_seen() {
        let mut logs = LogMatching::default();
        logs.wrote(1, &appended(Some((0, 0)), &[(1, 1, "a")]));
        logs.wrote(2, &appended(Some((0, 0)), &[(1, 1, "b")]));
    }

    #[test]
    #[should_panic(expected = "differs between logs")]
    fn another_entry_before_is_seen() {
        let mut logs = LogMatching::default();
        logs.wrote(1, &appended(Some((0, 0)), &[(1, 1, "a"), (2, 3, "b")]));
        logs.wrote(2, &appended(Some((0, 0)), &[(1, 2, "x"), (2, 3, "b")]));
    }
}
