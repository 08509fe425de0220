//! Lines that strangers could have written as often as they like.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::allowance::{Allowance, Rule};

/// The span of time in which a reminder has its lines, however often a thing happens.
const SPAN: Duration = Duration::from_secs(10);

/// Counts what may happen without end, so that it fills no log. Each place that logs has its own, as a `static` or beside what
/// it logs.
#[derive(Debug)]
pub struct Reminder {
    rule: Rule,
    allowance: Mutex<Allowance>,
}

impl Reminder {
    /// Has it said `lines` times in ten seconds at most.
    pub const fn new(lines: u64) -> Self {
        let rule = Rule { span: SPAN, first: lines, then_each: None };
        Self { rule, allowance: Mutex::new(Allowance::new()) }
    }

    /// It happened again: how many times since it was last said, this one with them, if it is to be said now.
    pub fn due(&self) -> Option<u64> {
        // Whole after a panic too.
        self.allowance.lock().unwrap_or_else(PoisonError::into_inner).due(self.rule, Instant::now())
    }
}
