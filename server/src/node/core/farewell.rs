//! A member that was removed goes when most of the others say so.
//!
//! By itself it cannot know that it may: those who stay need not have heard yet that its removal is committed, and need its vote as
//! long as they have not. Who says so has the removal in a checkpoint. Of any majority that is left one has said so then, and
//! hands on with its votes what is committed (decision 0027).

use std::collections::BTreeSet;

use super::Core;
use super::traffic::Output;

/// Election timeouts after which it goes though only few said so: the others may be gone for good.
const WAITS_TIMEOUTS: u32 = 60;

/// Who said it.
#[derive(Default)]
pub(super) struct Farewell {
    told_by: BTreeSet<u64>,
    /// Since the first did.
    ticks: u32,
}

impl Core {
    /// A member says that this one was removed.
    pub(super) fn told(&mut self, by: u64, outputs: &mut Vec<Output>) {
        self.farewell.told_by.insert(by);
        let voters = self.raft.raft.prs().conf().to_conf_state().voters;
        let others: Vec<u64> = voters.into_iter().filter(|voter| *voter != self.member_id).collect();
        let told = others.iter().filter(|other| self.farewell.told_by.contains(other)).count();
        if told * 2 > others.len() {
            outputs.push(Output::Left);
        }
    }

    pub(super) fn tick_farewell(&mut self, outputs: &mut Vec<Output>) {
        if self.farewell.told_by.is_empty() {
            return;
        }
        self.farewell.ticks += 1;
        let election_ticks = u32::try_from(self.raft.raft.election_timeout()).unwrap_or(u32::MAX);
        if self.farewell.ticks == election_ticks.saturating_mul(WAITS_TIMEOUTS) {
            outputs.push(Output::Left);
        }
    }
}
