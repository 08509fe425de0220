//! I3: a leader has every entry that was committed in an earlier term.

use std::collections::BTreeMap;

use basalt_storage::mvcc::view::LogPosition;

use super::log_matching::LogMatching;

/// What was known as committed, by the term in which it was.
#[derive(Default)]
pub struct LeaderCompleteness {
    committed: BTreeMap<u64, LogPosition>,
}

impl LeaderCompleteness {
    /// A member of this term knows an entry as committed: it was in this term or before.
    pub fn committed(&mut self, position: LogPosition, term: u64) {
        let last = self.committed.entry(term).or_insert(position);
        if position.index > last.index {
            *last = position;
        }
    }

    /// A member leads; what was committed in its own term and later is not its to have.
    ///
    /// # Panics
    /// When it lacks something.
    pub fn elected(&self, member: u64, term: u64, logs: &LogMatching) {
        if let Some(last) = self.committed.range(..term).map(|(_, position)| *position).max_by_key(|last| last.index) {
            assert!(logs.holds(member, last), "I3: member {member:x} leads term {term} without {last:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node_sim::Appended;

    const LAST: LogPosition = LogPosition { index: 5, term: 2 };

    fn leaders(term: u64) {
        let (mut logs, mut completeness) = (LogMatching::default(), LeaderCompleteness::default());
        logs.wrote(1, &Appended { start_after: Some(LogPosition { index: 4, term: 2 }), entries: Vec::new() });
        completeness.committed(LAST, 3);
        completeness.elected(1, term, &logs);
    }

    #[test]
    fn a_late_leader_of_an_earlier_term_need_not_have_it() {
        leaders(3);
    }

    #[test]
    #[should_panic(expected = "I3")]
    fn a_leader_that_lacks_an_entry_is_seen() {
        leaders(4);
    }
}
