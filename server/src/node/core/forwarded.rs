//! Rounds of requests that went to a leader elsewhere.
//!
//! * A round says in which term it was sent, and only a leader of that term takes it, once ([`Taken`]). So when an entry of a
//!   later term is committed here, a round that was not committed before it never will be: it may be sent again, and its
//!   requests are ordered exactly once.
//! * A round that got lost while the leader stayed is not sent again: whoever waits for it times out, as with etcd.

use std::collections::{BTreeMap, VecDeque};

use basalt_proto::log::LogEntry;
use basalt_storage::planted::{Bug, is_planted};

/// Rounds that may be on their way at a time; more gathers meanwhile.
const ROUNDS_MAX: usize = 4;

/// Ticks after which a round makes room for another.
const ROOM_TICKS: u32 = 10;

/// Ticks after which nobody can wait for a round any more.
const FORGET_TICKS: u32 = 200;

struct Round {
    term: u64,
    entry: LogEntry,
    ticks: u32,
}

/// What is on its way.
#[derive(Default)]
pub(super) struct Forwarded(VecDeque<Round>);

impl Forwarded {
    /// Whether another round may go.
    pub(super) fn has_room(&self) -> bool {
        self.0.iter().filter(|round| round.ticks < ROOM_TICKS).count() < ROUNDS_MAX
    }

    pub(super) fn add(&mut self, term: u64, entry: LogEntry) {
        self.0.push_back(Round { term, entry, ticks: 0 });
    }

    /// A round of this member was committed.
    pub(super) fn committed(&mut self, number: u64) {
        self.0.retain(|round| round.entry.round != number);
    }

    /// An entry of `term` was committed: gives the rounds of earlier terms, which never will be.
    pub(super) fn lost(&mut self, term: u64) -> Vec<LogEntry> {
        let (lost, left) = std::mem::take(&mut self.0).into_iter().partition(|round| round.term < term);
        self.0 = left;
        let lost: VecDeque<Round> = lost;
        lost.into_iter().map(|round| round.entry).collect()
    }

    /// Nobody can say any more what became of them.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }

    pub(super) fn tick(&mut self) {
        self.0.iter_mut().for_each(|round| round.ticks += 1);
        self.0.retain(|round| round.ticks < FORGET_TICKS);
    }
}

/// The newest round that a leader took of each life of each proposer. What an earlier life sent may still come, and come
/// again, after the next one began: no life is forgotten while this member leads.
#[derive(Default)]
pub(super) struct Taken(BTreeMap<(u64, u64), u64>);

impl Taken {
    /// Whether a round is to be ordered: not one that the network brought twice.
    pub(super) fn take(&mut self, proposer: u64, round: u64) -> bool {
        let (life, number) = (round >> 32, round & u64::from(u32::MAX));
        let newest = self.0.entry((proposer, life)).or_default();
        let is_new = number > *newest;
        *newest = number.max(*newest);
        is_new || is_planted(Bug::RoundTakenTwice)
    }

    /// Another term begins, in which no round of this one is taken.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_is_lost_only_when_a_later_term_has_committed() {
        let mut forwarded = Forwarded::default();
        for round in 1..=3 {
            forwarded.add(round, LogEntry { round, ..LogEntry::default() });
        }
        forwarded.committed(1);
        let lost: Vec<u64> = forwarded.lost(3).iter().map(|entry| entry.round).collect();
        assert_eq!(lost, [2]);
        assert!(forwarded.lost(3).is_empty());
        assert!(forwarded.has_room());
    }

    #[test]
    fn a_leader_takes_a_round_once() {
        let (first, second) = (7 << 32 | 1, 7 << 32 | 2);
        let mut taken = Taken::default();
        assert!(taken.take(1, first) && taken.take(1, second));
        assert!(!taken.take(1, first) && !taken.take(1, second));
        assert!(taken.take(2, first));
        // Another life begins anew, and what the first one sent is still known.
        assert!(taken.take(1, 3 << 32 | 1));
        assert!(!taken.take(1, first) && !taken.take(1, second));
    }
}
