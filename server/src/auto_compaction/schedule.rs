//! The one schedule of a process.

use std::time::Duration;

use super::periodic::Periodic;
use super::revision::ByRevision;
use crate::config::AutoCompaction;

/// How a compaction that was asked for ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Accepted, or compacted there already.
    Done,
    /// Refused or lost; tried again later.
    Failed,
}

/// Decides when to compact, and where.
#[derive(Clone, Debug)]
pub struct AutoCompactor {
    schedule: Schedule,
    /// What was asked for and has not ended; until then nothing else is.
    asked: Option<i64>,
}

#[derive(Clone, Debug)]
enum Schedule {
    Off,
    Periodic(Periodic),
    ByRevision(ByRevision),
}

impl AutoCompactor {
    /// Starts at `now`, a time since any fixed point, at `revision`.
    pub fn new(mode: AutoCompaction, now: Duration, revision: i64) -> Self {
        let schedule = match mode {
            AutoCompaction::Off => Schedule::Off,
            // A tenth of it is the interval, which must not be nothing.
            AutoCompaction::Periodic(period) if period.is_zero() => Schedule::Off,
            AutoCompaction::Periodic(period) => Schedule::Periodic(Periodic::new(period, now, revision)),
            AutoCompaction::Revisions(kept) => Schedule::ByRevision(ByRevision::new(kept, now)),
        };
        Self { schedule, asked: None }
    }

    /// The revision to compact at, if it is time. The caller answers with [`finished`](Self::finished).
    ///
    /// `now` must not go back. Members that do not lead sample, but are asked for nothing. After a question every tick
    /// answers `None` until the caller has told the outcome, also when it no longer leads.
    pub fn tick(&mut self, now: Duration, revision: i64, leads: bool) -> Option<i64> {
        // As in etcd, where sampling waits for the compaction: what is due meanwhile is due once afterwards.
        if self.asked.is_some() {
            return None;
        }
        self.asked = match &mut self.schedule {
            Schedule::Off => None,
            Schedule::Periodic(periodic) => periodic.tick(now, revision, leads),
            Schedule::ByRevision(by_revision) => by_revision.tick(now, revision, leads),
        };
        self.asked
    }

    /// What the last [`tick`](Self::tick) asked for has ended. Does nothing if nothing was asked.
    pub fn finished(&mut self, now: Duration, outcome: Outcome) {
        let Some(asked) = self.asked.take() else { return };
        let done = (outcome == Outcome::Done).then_some(asked);
        match &mut self.schedule {
            Schedule::Off => {}
            Schedule::Periodic(periodic) => periodic.finished(now, done),
            Schedule::ByRevision(by_revision) => by_revision.finished(now, done),
        }
    }

    /// When the next tick can bring something; `None` if never, or not before [`finished`](Self::finished).
    pub fn next_tick(&self) -> Option<Duration> {
        match &self.schedule {
            _ if self.asked.is_some() => None,
            Schedule::Off => None,
            Schedule::Periodic(periodic) => Some(periodic.next()),
            Schedule::ByRevision(by_revision) => Some(by_revision.next()),
        }
    }
}
