//! What the threads around the core ask of it between two steps.

use basalt_proto::log::Request;
use raft::StateRole;

use super::Core;
use crate::admission::Totals;

impl Core {
    /// Requests that wait for a disk or a leader.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// What left the queue, by class.
    pub fn left_queue(&self) -> impl Iterator<Item = Totals> {
        self.queue.left()
    }

    /// Drops requests that nobody ordered yet and that are not to be kept; returns how many.
    pub fn retain_queued(&mut self, keep: impl FnMut(&Request) -> bool) -> usize {
        self.queue.retain(keep)
    }

    /// Whether reads that come now would be asked for at once, as far as this node alone can say.
    pub fn may_take_reads(&self) -> bool {
        !self.reads.is_asked()
    }

    /// Forgets reads that were not asked for yet and that are not to be kept.
    pub fn retain_reads(&mut self, keep: impl FnMut(u64) -> bool) {
        self.reads.retain(keep);
    }

    /// A single voter serves nobody before this entry is applied: every entry that was acknowledged in a former life lies
    /// below it. What the log knew as committed when it ended lies below that, perhaps far.
    pub fn complete_at(&self) -> u64 {
        self.complete_at
    }

    /// The last entry that this node knows as committed. It may not be durable here yet.
    pub fn committed(&self) -> u64 {
        self.raft.raft.raft_log.committed
    }

    /// Entries of the log that are in memory.
    pub fn entries_in_memory(&self) -> usize {
        self.raft.store().len()
    }

    /// Whether this node leads.
    pub fn leads(&self) -> bool {
        self.raft.raft.state == StateRole::Leader
    }

    /// By member, how many entries of this leader's log it is not known to have; nothing unless this node leads.
    pub fn lags(&self) -> Vec<(u64, u64)> {
        let raft = &self.raft.raft;
        let last = raft.raft_log.last_index();
        let others = raft.prs().iter().filter(|(id, _)| self.leads() && **id != self.member_id);
        let mut lags: Vec<_> = others.map(|(id, progress)| (*id, last.saturating_sub(progress.matched))).collect();
        lags.sort_unstable();
        lags
    }

    /// Whether this node is the only one that votes.
    pub fn is_single_voter(&self) -> bool {
        self.raft.raft.prs().is_singleton() && self.raft.raft.promotable()
    }

    /// Term, role and log, in words.
    pub fn standing(&self) -> String {
        let raft = &self.raft.raft;
        let (log, voters) = (&raft.raft_log, raft.prs().conf().to_conf_state().voters);
        let (last, last_term) = (log.last_index(), log.last_term());
        format!("{:?} of term {}, last {last} of {last_term}, voters {voters:x?}", raft.state, raft.term)
    }

    /// How far each member is, as the leader knows, in words; empty elsewhere.
    pub fn progress(&self) -> String {
        let raft = &self.raft.raft;
        let ids = if self.leads() { raft.prs().conf().to_conf_state().voters } else { Vec::new() };
        let of = |id: u64| raft.prs().get(id).map(|progress| format!("{id:x}: {progress:?}"));
        ids.into_iter().filter_map(of).collect::<Vec<_>>().join("; ")
    }
}
