//! When a stream whose client asked for a leader ends for want of one (etcd-contract 39).

use basalt_storage::planted::{Bug, is_planted};

/// Looks in a row that find none, until the stream ends (etcd `maxNoLeaderCnt`).
const MISSES_MAX: u32 = 3;

/// What such a stream saw so far: one look each election timeout, the first an election timeout after it began.
#[derive(Clone, Copy, Debug, Default)]
pub struct LeaderLoss {
    misses: u32,
}

impl LeaderLoss {
    /// A look; says whether the stream ends.
    pub fn look(&mut self, has_leader: bool) -> bool {
        if !has_leader {
            self.misses += 1;
        } else if !is_planted(Bug::LeaderLossAddsUp) {
            self.misses = 0;
        }
        self.misses >= MISSES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_looks_in_a_row_end_a_stream() {
        let mut loss = LeaderLoss::default();
        let looks = [false, false, true, false, false, false];
        assert_eq!(looks.map(|has_leader| loss.look(has_leader)), [false, false, false, false, false, true]);
    }
}
