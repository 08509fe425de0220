//! The last durations of something, for a percentile of now: a histogram knows only that of a whole life.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

/// How many are remembered.
const KEPT_MAX: usize = 1000;

/// The last thousand.
#[derive(Debug, Default)]
pub struct Recent(Mutex<VecDeque<Duration>>);

impl Recent {
    /// Remembers one, and forgets the oldest.
    pub fn observe(&self, duration: Duration) {
        let mut kept = self.lock();
        if kept.len() == KEPT_MAX {
            kept.pop_front();
        }
        kept.push_back(duration);
    }

    /// What one in a hundred exceeds; `None` without any.
    pub fn p99(&self) -> Option<Duration> {
        let mut sorted: Vec<Duration> = self.lock().iter().copied().collect();
        sorted.sort_unstable();
        let rank = (sorted.len() * 99).div_ceil(100);
        sorted.get(rank.checked_sub(1)?).copied()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Duration>> {
        self.0.lock().expect("no one panics while holding durations")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_a_hundred_is_slower_and_the_oldest_are_forgotten() {
        let recent = Recent::default();
        assert_eq!(recent.p99(), None);
        recent.observe(Duration::from_secs(1));
        assert_eq!(recent.p99(), Some(Duration::from_secs(1)));
        for milliseconds in 1..=1000 {
            recent.observe(Duration::from_millis(milliseconds));
        }
        assert_eq!(recent.p99(), Some(Duration::from_millis(990)));
        (0..KEPT_MAX).for_each(|_| recent.observe(Duration::ZERO));
        assert_eq!(recent.p99(), Some(Duration::ZERO));
    }
}
