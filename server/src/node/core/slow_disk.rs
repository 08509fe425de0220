//! Whether the leader's disk holds the cluster up: it orders nothing while its own log is being written, so one slow disk would
//! slow all writes down, although the others have what was ordered long before.

use std::collections::VecDeque;

/// So many slow appends in a row are no accident.
const SLOW_APPENDS: u32 = 3;

/// The appends of a member that leads, and how long they took, in ticks.
#[derive(Debug, Default)]
pub(super) struct SlowDisk {
    ticks: u64,
    /// On their way to the disk, the oldest first.
    waiting: VecDeque<Waiting>,
    slow: u32,
    /// No verdict before this tick: another one was to lead, and may.
    not_before: u64,
}

#[derive(Debug)]
struct Waiting {
    number: u64,
    last_index: u64,
    since: u64,
}

impl SlowDisk {
    /// An append went to the disk.
    pub(super) fn began(&mut self, number: u64, last_index: u64) {
        self.waiting.push_back(Waiting { number, last_index, since: self.ticks });
    }

    /// Appends up to this number are durable. `committed` is the commit index as it was before that: what is in it the others
    /// had earlier.
    pub(super) fn ended(&mut self, number: u64, committed: u64, election_ticks: u64) {
        while let Some(append) = self.waiting.pop_front_if(|append| append.number <= number) {
            let was_slow = (self.ticks - append.since) * 2 >= election_ticks;
            let is_slow = was_slow && append.last_index <= committed;
            self.slow = if is_slow { self.slow + 1 } else { 0 };
        }
    }

    /// A tick passed. Whether another one is to lead: three appends in a row took half an election timeout and longer, or one
    /// has taken a whole one, while a quorum of others had them.
    pub(super) fn tick(&mut self, committed: u64, election_ticks: u64) -> bool {
        self.ticks += 1;
        let hangs = self
            .waiting
            .front()
            .is_some_and(|append| append.last_index <= committed && self.ticks - append.since >= election_ticks);
        if self.ticks < self.not_before || !(hangs || self.slow >= SLOW_APPENDS) {
            return false;
        }
        self.slow = 0;
        self.not_before = self.ticks + 2 * election_ticks;
        true
    }

    /// Somebody else's term: what was measured says nothing any more.
    pub(super) fn forget(&mut self) {
        self.slow = 0;
        self.not_before = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ELECTION: u64 = 10;

    fn ticks(disk: &mut SlowDisk, ticks: u64, committed: u64) -> u64 {
        (0..ticks).map(|_| u64::from(disk.tick(committed, ELECTION))).sum()
    }

    #[test]
    fn three_slow_appends_in_a_row_are_too_many() {
        let mut disk = SlowDisk::default();
        let mut append = |number: u64, took: u64, committed: u64| {
            disk.began(number, number);
            let verdicts = ticks(&mut disk, took, committed);
            disk.ended(number, committed, ELECTION);
            verdicts
        };
        assert_eq!((1..=2).map(|number| append(number, 5, number)).sum::<u64>(), 0);
        assert_eq!(append(3, 1, 3), 0, "a quick one between them");
        assert_eq!((4..=6).map(|number| append(number, 5, number)).sum::<u64>(), 0, "told at the next tick");
        assert_eq!(append(7, 1, 7), 1);
        assert_eq!((8..=10).map(|number| append(number, 5, 0)).sum::<u64>(), 0, "the others were no quicker");
        assert_eq!(append(11, 1, 11), 0);
    }

    #[test]
    fn one_append_that_hangs_is_too_much_if_others_have_it() {
        let mut disk = SlowDisk::default();
        disk.began(1, 7);
        assert_eq!(ticks(&mut disk, 50, 6), 0, "nobody has it");
        assert_eq!(ticks(&mut disk, 1, 7), 1);
        assert_eq!(ticks(&mut disk, 2 * ELECTION - 1, 7), 0, "another one may be about to lead");
        assert_eq!(ticks(&mut disk, 1, 7), 1);
        disk.forget();
        disk.ended(1, 7, ELECTION);
        assert_eq!(ticks(&mut disk, 50, 7), 0);
    }
}
