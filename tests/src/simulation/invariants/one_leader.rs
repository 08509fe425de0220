//! I1: a term has at most one leader.

use std::collections::BTreeMap;

/// Leaders by their terms.
#[derive(Default)]
pub struct OneLeader {
    by_term: BTreeMap<u64, u64>,
}

impl OneLeader {
    /// A member leads.
    ///
    /// # Panics
    /// When another one did in this term.
    pub fn elected(&mut self, member: u64, term: u64) {
        let leader = *self.by_term.entry(term).or_insert(member);
        assert_eq!(leader, member, "I1: two leaders in term {term}");
    }

    /// How many there were.
    pub fn count(&self) -> usize {
        self.by_term.len()
    }
}
