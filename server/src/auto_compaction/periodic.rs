//! `--auto-compaction-mode=periodic`.

use std::collections::VecDeque;
use std::time::Duration;

/// Samples and retries come this many times an interval (`retryDivisor` in etcd).
const RETRIES: u32 = 10;

/// The longest time between two compactions.
const INTERVAL_MAX: Duration = Duration::from_secs(60 * 60);

/// Ticks are not wanted more often than this, however short the period.
const RETRY_MIN: Duration = Duration::from_millis(10);

/// Keeps the revisions of a period.
///
/// The revision is sampled every tenth of the interval, which is the period or an hour, whichever is shorter. The
/// first compaction comes when a whole period has passed, the following ones an interval after the last that
/// succeeded, each at the oldest sample, which is about a period old.
#[derive(Clone, Debug)]
pub(super) struct Periodic {
    interval: Duration,
    retry: Duration,
    samples_max: usize,
    /// Oldest first, never empty.
    samples: VecDeque<i64>,
    /// When the next sample is due.
    next: Duration,
    /// How long after the last success the next compaction is due: the period at first, then the interval.
    wait: Duration,
    last_success: Duration,
    last_revision: i64,
}

impl Periodic {
    pub(super) fn new(period: Duration, now: Duration, revision: i64) -> Self {
        let interval = period.min(INTERVAL_MAX);
        let retry = (interval / RETRIES).max(RETRY_MIN);
        let retentions = period.as_nanos().checked_div(retry.as_nanos()).unwrap_or(0);
        Self {
            interval,
            retry,
            samples_max: usize::try_from(retentions).unwrap_or(usize::MAX).saturating_add(1),
            samples: VecDeque::from([revision]),
            next: now + retry,
            wait: period,
            last_success: now,
            last_revision: 0,
        }
    }

    pub(super) fn next(&self) -> Duration {
        self.next
    }

    pub(super) fn tick(&mut self, now: Duration, revision: i64, leads: bool) -> Option<i64> {
        if now < self.next {
            return None;
        }
        let oldest = *self.samples.front().expect("a sample is taken at the start and the last one never dropped");
        let due = now.saturating_sub(self.last_success) >= self.wait && oldest != self.last_revision;
        self.samples.push_back(revision);
        if self.samples.len() > self.samples_max {
            self.samples.pop_front();
        }
        self.next = now + self.retry;
        if !(leads && due) {
            return None;
        }
        self.wait = self.interval;
        Some(oldest)
    }

    /// `done` is the revision if it was compacted.
    pub(super) fn finished(&mut self, now: Duration, done: Option<i64>) {
        self.next = now + self.retry;
        if let Some(done) = done {
            self.last_revision = done;
            self.last_success = now;
        }
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

    /// Ticks every `step` minutes until `end`; the revision is the minute plus one, outcomes are all `outcome`.
    fn run(period: Duration, step: u64, end: u64, outcome: Outcome) -> Vec<(u64, i64)> {
        let mut compactor = AutoCompactor::new(AutoCompaction::Periodic(period), minutes(0), 1);
        let mut asked = Vec::new();
        for minute in (step..=end).step_by(usize::try_from(step).expect("small")) {
            let revision = i64::try_from(minute).expect("small") + 1;
            if let Some(at) = compactor.tick(minutes(minute), revision, true) {
                asked.push((minute, at));
                compactor.finished(minutes(minute), outcome);
            }
        }
        asked
    }

    /// As `TestPeriodicHourly` in etcd: a look at the oldest of the samples comes before the next sample.
    /// etcd-contract 58.
    #[test]
    fn an_hour_is_kept_and_compacted_hourly() {
        assert_eq!(run(minutes(60), 6, 240, Outcome::Done), [(60, 1), (120, 55), (180, 115), (240, 175)]);
    }

    /// As `TestPeriodicMinutes` in etcd.
    #[test]
    fn a_short_period_is_its_own_interval() {
        assert_eq!(run(minutes(10), 1, 45, Outcome::Done), [(10, 1), (20, 10), (30, 20), (40, 30)]);
    }

    /// A day is kept, but compacted every hour.
    #[test]
    fn a_day_is_kept_and_compacted_hourly() {
        let asked = run(minutes(24 * 60), 6, 26 * 60, Outcome::Done);
        assert_eq!(asked, [(1440, 1), (1500, 55), (1560, 115)]);
    }

    #[test]
    fn what_failed_is_tried_a_tenth_later() {
        let asked = run(minutes(60), 6, 84, Outcome::Failed);
        assert_eq!(asked, [(60, 1), (66, 1), (72, 7), (78, 13), (84, 19)]);
    }

    #[test]
    fn nothing_is_asked_twice_without_writes() {
        let mut compactor = AutoCompactor::new(AutoCompaction::Periodic(minutes(10)), minutes(0), 7);
        let mut asked = 0;
        for minute in 1..100 {
            if compactor.tick(minutes(minute), 7, true).is_some() {
                asked += 1;
                compactor.finished(minutes(minute), Outcome::Done);
            }
        }
        assert_eq!(asked, 1);
    }

    #[test]
    fn a_new_leader_has_samples() {
        let mut compactor = AutoCompactor::new(AutoCompaction::Periodic(minutes(10)), minutes(0), 1);
        for minute in 1..=30 {
            assert_eq!(compactor.tick(minutes(minute), 100 + i64::try_from(minute).expect("small"), false), None);
        }
        assert_eq!(compactor.tick(minutes(31), 999, true), Some(120));
    }

    #[test]
    fn tiny_and_endless_periods_are_bounded() {
        let mut tiny = AutoCompactor::new(AutoCompaction::Periodic(Duration::from_nanos(1)), minutes(0), 3);
        assert_eq!(tiny.tick(minutes(1), 4, true), Some(3));
        let mut none = AutoCompactor::new(AutoCompaction::Periodic(Duration::ZERO), minutes(0), 3);
        assert_eq!((none.tick(minutes(1), 4, true), none.next_tick()), (None, None));
        let mut endless = AutoCompactor::new(AutoCompaction::Periodic(Duration::MAX), minutes(0), 3);
        assert_eq!(endless.tick(minutes(90), 4, true), None);
    }

    /// A look at one tenth of the interval: what the revision grew by, whether we lead, how a compaction would end.
    type Look = (u8, bool, bool);

    /// The loop of `periodic.go`, line by line, with ticks instead of a clock.
    fn etcd_asks(period: Duration, looks: &[Look]) -> Vec<(usize, i64)> {
        let interval = period.min(Duration::from_secs(3600));
        let retry = interval / 10;
        let retentions = usize::try_from(period.as_nanos() / retry.as_nanos()).expect("small") + 1;
        let (mut revs, mut revision, mut asked) = (Vec::new(), 1, Vec::new());
        let (mut last_revision, mut last_success, mut base) = (0, Duration::ZERO, period);
        for (tick, (grown, leads, succeeds)) in looks.iter().enumerate() {
            revs.push(revision);
            if revs.len() > retentions {
                revs.remove(0);
            }
            revision += i64::from(*grown);
            let now = retry * u32::try_from(tick + 1).expect("small");
            let rev = revs[0];
            if !leads || now - last_success < base || rev == last_revision {
                continue;
            }
            if base == period {
                base = interval;
            }
            asked.push((tick, rev));
            if *succeeds {
                (last_revision, last_success) = (rev, now);
            }
        }
        asked
    }

    fn we_ask(period: Duration, looks: &[Look]) -> Vec<(usize, i64)> {
        let (mut revision, mut asked) = (1, Vec::new());
        let mut compactor = AutoCompactor::new(AutoCompaction::Periodic(period), Duration::ZERO, revision);
        for (tick, (grown, leads, succeeds)) in looks.iter().enumerate() {
            revision += i64::from(*grown);
            let now = compactor.next_tick().expect("never two questions at a time");
            if let Some(at) = compactor.tick(now, revision, *leads) {
                asked.push((tick, at));
                compactor.finished(now, if *succeeds { Outcome::Done } else { Outcome::Failed });
            }
        }
        asked
    }

    proptest::proptest! {
        #[test]
        fn questions_are_those_of_etcd(
            minutes in 1_u64..400,
            looks in proptest::collection::vec((0_u8..3, proptest::bool::weighted(0.9), proptest::bool::ANY), 0..200),
        ) {
            let period = Duration::from_secs(60 * minutes);
            proptest::prop_assert_eq!(we_ask(period, &looks), etcd_asks(period, &looks));
        }
    }
}
