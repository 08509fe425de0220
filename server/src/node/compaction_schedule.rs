//! When a compaction does its next step, and when it has ended.

use std::time::Duration;

use tokio::sync::oneshot;

/// Paces the steps of a compaction and knows who waits for its end. Pure: times come in.
///
/// A compaction has ended when it has dropped what it drops and its hash can be asked for: a HashKV right behind a
/// physical one must find the hash that was kept, as in etcd (etcd-contract 13, 52).
pub struct CompactionSchedule {
    /// Between two steps (`--compaction-sleep-interval`).
    pause: Duration,
    next_step: Duration,
    /// When the one that sweeps was asked for.
    began: Duration,
    /// Hashes that are being computed.
    hashes: usize,
    waiters: Vec<oneshot::Sender<()>>,
}

impl CompactionSchedule {
    /// A schedule with nothing to do.
    pub fn new(pause: Duration) -> Self {
        Self { pause, next_step: Duration::ZERO, began: Duration::ZERO, hashes: 0, waiters: Vec::new() }
    }

    /// A compaction begins; what one before it left undone is its own from now on.
    pub fn begin(&mut self, now: Duration) {
        self.began = now;
    }

    /// How long the one that sweeps lasts by now.
    pub fn elapsed(&self, now: Duration) -> Duration {
        now.saturating_sub(self.began)
    }

    /// Whether a step is due at `now`; then the pause before the next one begins.
    pub fn take_step(&mut self, now: Duration) -> bool {
        let due = now >= self.next_step;
        if due {
            self.next_step = now + self.pause;
        }
        due
    }

    /// How long the pause lasts yet.
    pub fn pause_left(&self, now: Duration) -> Duration {
        self.next_step.saturating_sub(now)
    }

    /// The hash of a compaction is being computed.
    pub fn hash_begun(&mut self) {
        self.hashes += 1;
    }

    /// It is there, or cannot be.
    ///
    /// # Panics
    /// When none was begun.
    pub fn hash_ended(&mut self) {
        self.hashes = self.hashes.checked_sub(1).expect("a hash that ends was begun");
    }

    /// Hashes that are being computed.
    pub fn hashes(&self) -> usize {
        self.hashes
    }

    /// Somebody waits until compactions up to now have ended.
    pub fn ask(&mut self, done: oneshot::Sender<()>) {
        self.waiters.push(done);
    }

    /// Whom to tell that all have ended: nobody while the store is `sweeping` or a hash is not there.
    pub fn ended(&mut self, sweeping: bool) -> impl Iterator<Item = oneshot::Sender<()>> {
        let told = if sweeping || self.hashes > 0 { 0 } else { self.waiters.len() };
        self.waiters.drain(..told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_keep_their_pause_however_often_they_are_asked_for() {
        let mut schedule = CompactionSchedule::new(Duration::from_millis(10));
        let steps = (0..100).filter(|at| schedule.take_step(Duration::from_millis(*at))).count();
        assert_eq!(steps, 10);
        assert_eq!(schedule.pause_left(Duration::from_millis(95)), Duration::from_millis(5));
    }

    #[test]
    fn ended_means_swept_and_hashed() {
        let mut schedule = CompactionSchedule::new(Duration::ZERO);
        schedule.ask(oneshot::channel().0);
        schedule.hash_begun();
        assert_eq!(schedule.ended(false).count(), 0);
        schedule.hash_ended();
        assert_eq!(schedule.ended(true).count(), 0);
        assert_eq!(schedule.ended(false).count(), 1);
        assert_eq!(schedule.ended(false).count(), 0);
    }
}
