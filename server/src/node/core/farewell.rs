//! A member that was removed goes when most of the others say so.
//!
//! By itself it cannot know that it may: those who stay need not have heard yet that its removal is committed, and need its vote as
//! long as they have not. It asks for no votes itself once anybody said so. Who says so has the removal in a checkpoint. Of any
//! majority that is left one has said so then, and hands on with its votes what is committed (decision 0027).

use std::collections::BTreeSet;

use super::Core;
use super::traffic::Output;

/// Election timeouts after which it goes though only few said so: the others may be gone for good.
const WAITS_TIMEOUTS: u32 = 20;

/// Who said it.
#[derive(Default)]
pub(super) struct Farewell {
    told_by: BTreeSet<u64>,
    /// Since the first did.
    ticks: u32,
}

impl Farewell {
    /// Whether anybody said it: then this member gives its vote, and does not ask for others'.
    pub(super) fn has_begun(&self) -> bool {
        !self.told_by.is_empty()
    }

    /// A member said it; says whether most of the other voters have.
    fn told(&mut self, by: u64, others: &[u64]) -> bool {
        self.told_by.insert(by);
        others.iter().filter(|other| self.told_by.contains(other)).count() * 2 > others.len()
    }

    /// Time passes; says whether it has been waited long enough for more.
    fn tick(&mut self, election_ticks: u32) -> bool {
        self.ticks += u32::from(self.has_begun());
        self.ticks == election_ticks.saturating_mul(WAITS_TIMEOUTS)
    }
}

impl Core {
    /// A member says that this one was removed.
    pub(super) fn told(&mut self, by: u64, outputs: &mut Vec<Output>) {
        let voters = self.raft.raft.prs().conf().to_conf_state().voters;
        let others: Vec<u64> = voters.into_iter().filter(|voter| *voter != self.member_id).collect();
        if self.farewell.told(by, &others) {
            outputs.push(Output::Left);
        }
    }

    /// Whether the next tick would make a member ask for votes that was told that it is removed. Its time stands still then, a full
    /// election timeout after it last heard of a leader: what it gives its vote by is as if it went on.
    pub(super) fn would_campaign_after_farewell(&self) -> bool {
        let raft = &self.raft.raft;
        self.farewell.has_begun() && !self.leads() && raft.election_elapsed + 1 >= raft.randomized_election_timeout()
    }

    pub(super) fn tick_farewell(&mut self, outputs: &mut Vec<Output>) {
        if self.farewell.tick(u32::try_from(self.raft.raft.election_timeout()).unwrap_or(u32::MAX)) {
            outputs.push(Output::Left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_when_most_of_the_others_said_so() {
        let mut farewell = Farewell::default();
        let others = [1, 2, 3];
        assert!(!farewell.told(1, &others));
        assert!(!farewell.told(1, &others), "once more is no more");
        assert!(!farewell.told(9, &others), "who has no vote says nothing of a majority");
        assert!(farewell.told(3, &others));
    }

    #[test]
    fn it_goes_after_a_while_if_only_few_said_so() {
        let mut farewell = Farewell::default();
        assert!((0..1000).all(|_| !farewell.tick(10)), "nobody said anything");
        farewell.told(1, &[1, 2, 3]);
        assert_eq!((1..1000).position(|_| farewell.tick(10)), Some(10 * WAITS_TIMEOUTS as usize - 1));
    }
}
