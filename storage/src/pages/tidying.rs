//! What a writer knows of the leaves that wait to be written anew.

use std::collections::BTreeSet;

use crate::revision::Revision;

/// Sparse leaves that a writer remembers; beyond them it only knows that it has to look again.
pub const SPARSE_LEAVES_MAX: usize = 65_536;

/// Before every revision.
const BEGIN: Revision = Revision::new(i64::MIN, 0);

/// Where sparse leaves are known to be, or are still to be looked for.
///
/// * A leaf of which less than `live_percent` lives is in `sparse`, or the sweep has yet to come by.
#[derive(Clone, Debug)]
pub(super) struct Tidying {
    /// First revisions of leaves that may be sparse.
    sparse: BTreeSet<Revision>,
    /// `None` when it has seen everything.
    sweep: Option<Sweep>,
    live_percent: u8,
}

/// A walk over all branches of leaves, begun anywhere, a few in each commit.
#[derive(Clone, Copy, Debug)]
struct Sweep {
    next: Revision,
    /// Where it ends, once it came to the end of the tree and went on at its beginning.
    end: Revision,
    wrapped: bool,
}

impl Tidying {
    /// Of a tree in which everything lives.
    pub fn done() -> Self {
        Self { sparse: BTreeSet::new(), sweep: None, live_percent: 100 }
    }

    /// Of a tree that nobody has looked at yet.
    pub fn unknown() -> Self {
        Self { sweep: Some(Sweep { next: BEGIN, end: BEGIN, wrapped: false }), ..Self::done() }
    }

    /// Whether no leaf waits, by the measure of the last [`Self::measure`].
    pub fn is_done(&self) -> bool {
        self.sparse.is_empty() && self.sweep.is_none()
    }

    /// Whether no leaf waits of which less than `live_percent` lives.
    pub fn is_done_by(&self, live_percent: u8) -> bool {
        self.is_done() && live_percent <= self.live_percent
    }

    /// What counts as sparse from now on. A higher measure than before needs another look at everything.
    pub fn measure(&mut self, live_percent: u8) {
        if live_percent > self.live_percent {
            self.look_again();
        }
        self.live_percent = live_percent;
    }

    /// Lets the sweep go full circle from where it is.
    pub fn look_again(&mut self) {
        let next = self.sweep.map_or(BEGIN, |sweep| sweep.next);
        self.sweep = Some(Sweep { next, end: next, wrapped: false });
    }

    /// Up to `leaves_max` of the leaves that wait.
    pub fn waiting(&self, leaves_max: usize) -> impl Iterator<Item = Revision> + '_ {
        self.sparse.iter().take(leaves_max).copied()
    }

    /// A revision below the branch of leaves that the sweep looks at next.
    pub fn sweep_at(&self) -> Option<Revision> {
        self.sweep.map(|sweep| sweep.next)
    }

    /// The sweep has seen that branch; `after` is the first revision behind it, `None` at the end of the tree.
    pub fn swept(&mut self, after: Option<Revision>) {
        let Some(sweep) = &mut self.sweep else { return };
        match after {
            Some(after) if !sweep.wrapped || after < sweep.end => sweep.next = after,
            None if !sweep.wrapped && sweep.end > BEGIN => (sweep.next, sweep.wrapped) = (BEGIN, true),
            _ => self.sweep = None,
        }
    }

    /// A commit has looked at all leaves whose first revisions are in this range.
    pub fn seen(&mut self, from: Revision, to: Revision) {
        let seen: Vec<_> = self.sparse.range(from..=to).copied().collect();
        seen.iter().for_each(|first| _ = self.sparse.remove(first));
    }

    /// A leaf that a commit found sparse has to wait.
    pub fn wait(&mut self, first: Revision) {
        if self.sparse.len() < SPARSE_LEAVES_MAX {
            self.sparse.insert(first);
        } else {
            self.look_again();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(main: i64) -> Revision {
        Revision::new(main, 0)
    }

    /// Lets the sweep of a tree with branches at `mains` come by; what it saw.
    fn sweep(tidying: &mut Tidying, mains: &[i64], branches_max: usize) -> Vec<i64> {
        let mut seen = Vec::new();
        for _ in 0..branches_max {
            let Some(next) = tidying.sweep_at() else { break };
            let branch = mains.partition_point(|main| at(*main) <= next).max(1) - 1;
            seen.push(mains[branch]);
            tidying.swept(mains.get(branch + 1).map(|main| at(*main)));
        }
        seen
    }

    #[test]
    fn a_higher_measure_goes_full_circle_from_where_the_sweep_is() {
        let mut tidying = Tidying::unknown();
        tidying.measure(40);
        assert_eq!(sweep(&mut tidying, &[1, 5, 9], 1), [1]);
        tidying.measure(60);
        assert_eq!(sweep(&mut tidying, &[1, 5, 9], 100), [5, 9, 1]);
        assert!(tidying.is_done_by(60) && !tidying.is_done_by(61));
        tidying.measure(40);
        assert!(tidying.is_done());
        tidying.measure(41);
        assert_eq!(sweep(&mut tidying, &[1, 5, 9], 100), [1, 5, 9]);
    }

    #[test]
    fn what_cannot_be_remembered_is_looked_for_again() {
        let mut tidying = Tidying::done();
        (0..SPARSE_LEAVES_MAX as i64).for_each(|main| tidying.wait(at(main)));
        assert_eq!(tidying.sweep_at(), None);
        tidying.wait(at(-5));
        tidying.seen(at(0), at(i64::MAX));
        assert!(!tidying.is_done());
        assert_eq!(sweep(&mut tidying, &[-9, 0], 100), [-9, 0]);
        assert!(tidying.is_done());
    }
}
