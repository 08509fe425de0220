//! Rounds of proposals under a flood, kept apart.
//!
//! A fast disk would be given a sync for every dozen requests, and each round costs wake-ups of four threads and a write to
//! every connection that waits. With more requests in a round all of that is shared by more
//! (docs/decisions/0017-rounds-under-a-flood.md).

use std::time::{Duration, Instant};

/// From the beginning of a large round to that of the next, at least.
const SPACING: Duration = Duration::from_millis(2);
/// A round of so many requests is large: they come faster than 16,000 a second.
const LARGE_ROUND: usize = 32;

/// When the next round may begin.
#[derive(Debug)]
pub struct RoundPace {
    next: Option<Instant>,
}

impl RoundPace {
    /// At once.
    pub const fn new() -> Self {
        Self { next: None }
    }

    /// A round of so many requests began.
    pub fn began(&mut self, requests: usize, now: Instant) {
        self.next = (requests >= LARGE_ROUND).then(|| now + SPACING);
    }

    /// How long to wait for the next.
    pub fn wait(&self, now: Instant) -> Duration {
        self.next.map_or(Duration::ZERO, |next| next.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_large_round_has_the_next_wait_and_not_for_longer_than_the_spacing() {
        let (mut pace, now) = (RoundPace::new(), Instant::now());
        assert_eq!(pace.wait(now), Duration::ZERO);
        pace.began(LARGE_ROUND - 1, now);
        assert_eq!(pace.wait(now), Duration::ZERO);
        pace.began(LARGE_ROUND, now);
        assert_eq!(pace.wait(now), SPACING);
        assert_eq!(pace.wait(now + SPACING / 2), SPACING / 2);
        assert_eq!(pace.wait(now + SPACING), Duration::ZERO);
        pace.began(1, now);
        assert_eq!(pace.wait(now), Duration::ZERO);
    }
}
