//! `--auto-compaction-mode=revision`.

use std::time::Duration;

/// How often it is looked whether there is something to drop (`revInterval` in etcd).
const INTERVAL: Duration = Duration::from_secs(5 * 60);

/// Keeps the newest revisions.
#[derive(Clone, Debug)]
pub(super) struct ByRevision {
    kept: i64,
    next: Duration,
    last_success: i64,
}

impl ByRevision {
    pub(super) fn new(kept: i64, now: Duration) -> Self {
        Self { kept, next: now + INTERVAL, last_success: 0 }
    }

    pub(super) fn next(&self) -> Duration {
        self.next
    }

    pub(super) fn tick(&mut self, now: Duration, revision: i64, leads: bool) -> Option<i64> {
        if now < self.next {
            return None;
        }
        self.next = now + INTERVAL;
        let at = revision.saturating_sub(self.kept);
        (leads && at > 0 && at != self.last_success).then_some(at)
    }

    /// `done` is the revision if it was compacted.
    pub(super) fn finished(&mut self, now: Duration, done: Option<i64>) {
        self.next = now + INTERVAL;
        self.last_success = done.unwrap_or(self.last_success);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auto_compaction::{AutoCompactor, Outcome};
    use crate::config::AutoCompaction;

    fn minutes(count: u64) -> Duration {
        Duration::from_secs(60 * count)
    }

    #[test]
    fn the_newest_stay() {
        let mut compactor = AutoCompactor::new(AutoCompaction::Revisions(10), minutes(0), 1);
        assert_eq!(compactor.tick(minutes(4), 99, true), None, "not yet time");
        assert_eq!(compactor.tick(minutes(5), 10, true), None, "no more than are kept");
        assert_eq!(compactor.tick(minutes(9), 99, true), None, "once in five minutes");
        assert_eq!(compactor.tick(minutes(10), 99, true), Some(89));
        compactor.finished(minutes(10), Outcome::Done);
        assert_eq!(compactor.next_tick(), Some(minutes(15)));
        assert_eq!(compactor.tick(minutes(15), 99, true), None, "there already");
        assert_eq!(compactor.tick(minutes(20), 100, true), Some(90));
    }

    #[test]
    fn what_failed_is_tried_at_the_next_interval_at_the_revision_of_then() {
        let mut compactor = AutoCompactor::new(AutoCompaction::Revisions(10), minutes(0), 1);
        assert_eq!(compactor.tick(minutes(5), 99, true), Some(89));
        assert_eq!(compactor.tick(minutes(10), 120, true), None, "one at a time");
        assert_eq!(compactor.next_tick(), None);
        compactor.finished(minutes(11), Outcome::Failed);
        assert_eq!(compactor.tick(minutes(15), 120, true), None);
        assert_eq!(compactor.tick(minutes(16), 120, true), Some(110));
    }

    #[test]
    fn a_follower_is_asked_for_nothing() {
        let mut compactor = AutoCompactor::new(AutoCompaction::Revisions(1), minutes(0), 1);
        assert_eq!(compactor.tick(minutes(5), 99, false), None);
        assert_eq!(compactor.tick(minutes(10), 99, true), Some(98));
        let mut keeps_all = AutoCompactor::new(AutoCompaction::Revisions(i64::MAX), minutes(0), 1);
        assert_eq!(keeps_all.tick(minutes(5), i64::MAX, true), None);
    }

    /// As `Revision.Run` in etcd, which takes a negative retention as it is.
    #[test]
    fn less_than_none_asks_for_the_future() {
        let mut compactor = AutoCompactor::new(AutoCompaction::Revisions(-10), minutes(0), 1);
        assert_eq!(compactor.tick(minutes(5), 99, true), Some(109));
        compactor.finished(minutes(5), Outcome::Failed);
        assert_eq!(compactor.tick(minutes(10), i64::MAX, true), Some(i64::MAX));
    }
}
