//! When a checkpoint starts, and who waits for which one. Time is the node's clock, handed in.
//!
//! Invariants:
//! * One checkpoint at a time.
//! * Who asks is bound to the first freeze after the question: it has all that was applied before. Writes that go on
//!   meanwhile make him wait for no other.
//! * Whoever is bound to a checkpoint hears of its end, whatever that is.
//! * Nobody is waited for who waits no more: who asked and went starts none.

use std::time::Duration;

/// Longest time between two checkpoints while anything changes (DESIGN 3.5).
pub const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(5);
/// After a checkpoint found the disk full, unless somebody asks.
const CHECKPOINT_RETRY: Duration = Duration::from_secs(5);

/// What to do now.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<W> {
    /// Nothing yet.
    Wait,
    /// Freeze, and write a checkpoint.
    Start,
    /// Nothing: the last one has everything. Tell these.
    Done(Vec<W>),
}

/// The schedule; `W` is somebody who waits.
#[derive(Debug)]
pub struct CheckpointSchedule<W> {
    running: bool,
    /// Whether anything happened since the last freeze that a checkpoint would keep.
    dirty: bool,
    /// Whether leaves wait to be rewritten: worth a checkpoint by itself, though not one before the end.
    untidy: bool,
    due: Duration,
    /// Asked since the last freeze.
    asked: Vec<W>,
    /// Bound to the one that runs.
    bound: Vec<W>,
}

impl<W> CheckpointSchedule<W> {
    /// Nothing to write yet.
    pub fn new(now: Duration) -> Self {
        Self {
            running: false,
            dirty: false,
            untidy: false,
            due: now + CHECKPOINT_INTERVAL,
            asked: Vec::new(),
            bound: Vec::new(),
        }
    }

    /// Something changed.
    pub fn touch(&mut self) {
        self.dirty = true;
    }

    /// Leaves wait to be rewritten, or somebody wants more of them to be.
    pub fn leave_untidy(&mut self) {
        self.untidy = true;
    }

    /// Whether anybody waits, for the one that runs or for the next.
    pub fn is_awaited(&self) -> bool {
        !self.asked.is_empty() || !self.bound.is_empty()
    }

    /// Those who are bound to the one that runs.
    pub fn bound(&self) -> &[W] {
        &self.bound
    }

    /// Somebody wants all that is applied by now in a checkpoint.
    pub fn ask(&mut self, waiter: W) {
        self.asked.push(waiter);
    }

    /// Forgets those who wait no more.
    pub fn forget(&mut self, is_gone: impl Fn(&W) -> bool) {
        self.asked.retain(|waiter| !is_gone(waiter));
        self.bound.retain(|waiter| !is_gone(waiter));
    }

    /// Whether one starts now; `full` says that the deltas want it.
    pub fn next(&mut self, now: Duration, full: bool) -> Next<W> {
        if self.running || (now < self.due && !full && self.asked.is_empty()) {
            return Next::Wait;
        }
        self.due = now + CHECKPOINT_INTERVAL;
        if self.dirty || self.untidy {
            self.start();
            return Next::Start;
        }
        Next::Done(std::mem::take(&mut self.asked))
    }

    /// Whether a last one has to be written before the end, or is being written.
    pub fn is_unfinished(&self) -> bool {
        self.running || self.dirty
    }

    /// Starts one now, unless one runs; says whether it did.
    pub fn start_last(&mut self) -> bool {
        let starts = !self.running;
        if starts {
            self.start();
        }
        starts
    }

    fn start(&mut self) {
        self.running = true;
        (self.dirty, self.untidy) = (false, false);
        self.bound.append(&mut self.asked);
    }

    /// It is durable. Tell these.
    pub fn ended(&mut self) -> Vec<W> {
        self.running = false;
        std::mem::take(&mut self.bound)
    }

    /// It was abandoned: the disk is full. Tell these; who asked later has a try of his own.
    pub fn refused(&mut self, now: Duration) -> Vec<W> {
        self.running = false;
        self.dirty = true;
        self.due = now + CHECKPOINT_RETRY;
        std::mem::take(&mut self.bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn who_asks_under_steady_writes_hears_of_the_first_checkpoint_after_it() {
        let mut schedule = CheckpointSchedule::new(at(0));
        schedule.touch();
        assert_eq!(schedule.next(at(5000), false), Next::Start);
        schedule.touch();
        schedule.ask("during");
        assert_eq!(schedule.next(at(5002), false), Next::Wait);
        schedule.touch();
        // The one under way was frozen before the question.
        assert_eq!(schedule.ended(), [""; 0]);
        assert_eq!(schedule.next(at(5003), false), Next::Start);
        schedule.touch();
        assert_eq!(schedule.ended(), ["during"]);
        schedule.touch();
        assert_eq!(schedule.next(at(5004), false), Next::Wait);
    }

    #[test]
    fn who_asks_when_nothing_changed_need_not_wait() {
        let mut schedule = CheckpointSchedule::new(at(0));
        schedule.ask("idle");
        assert_eq!(schedule.next(at(10), false), Next::Done(vec!["idle"]));
        // Changed and frozen, but not durable: that is not nothing.
        schedule.touch();
        assert_eq!(schedule.next(at(20), true), Next::Start);
        schedule.ask("behind");
        assert_eq!(schedule.next(at(22), true), Next::Wait);
        assert_eq!(schedule.ended(), [""; 0]);
        assert_eq!(schedule.next(at(23), false), Next::Done(vec!["behind"]));
    }

    #[test]
    fn who_went_before_his_checkpoint_starts_none() {
        let mut schedule = CheckpointSchedule::new(at(0));
        schedule.touch();
        schedule.ask("gone");
        schedule.forget(|waiter| *waiter == "gone");
        assert_eq!(schedule.next(at(1), false), Next::Wait);
        schedule.ask("gone");
        schedule.ask("here");
        schedule.forget(|waiter| *waiter == "gone");
        assert_eq!(schedule.next(at(2), false), Next::Start);
        // Nor is one hurried for him.
        schedule.forget(|waiter| *waiter == "here");
        assert!(!schedule.is_awaited());
        assert_eq!(schedule.ended(), [""; 0]);
    }

    #[test]
    fn a_full_disk_is_an_answer() {
        let mut schedule = CheckpointSchedule::new(at(0));
        schedule.touch();
        schedule.ask("first");
        assert_eq!(schedule.next(at(1), false), Next::Start);
        schedule.ask("second");
        assert_eq!(schedule.refused(at(3)), ["first"]);
        assert_eq!(schedule.next(at(3), false), Next::Start);
        assert_eq!(schedule.refused(at(4)), ["second"]);
        assert_eq!(schedule.next(at(5), false), Next::Wait);
        assert_eq!(schedule.next(at(5004), false), Next::Start);
    }

    #[test]
    fn tidying_goes_on_without_writes_and_holds_up_no_stop() {
        let mut schedule = CheckpointSchedule::<()>::new(at(0));
        schedule.leave_untidy();
        assert!(!schedule.is_unfinished());
        assert_eq!(schedule.next(at(4999), false), Next::Wait);
        assert_eq!(schedule.next(at(5000), false), Next::Start);
        schedule.ended();
        assert_eq!(schedule.next(at(10_000), false), Next::Done(Vec::new()));
    }

    #[test]
    fn the_last_one_is_written_if_anything_changed() {
        let mut schedule = CheckpointSchedule::<()>::new(at(0));
        assert!(!schedule.is_unfinished());
        schedule.touch();
        assert!(schedule.is_unfinished() && schedule.start_last() && !schedule.start_last());
        schedule.ended();
        assert!(!schedule.is_unfinished());
    }
}
