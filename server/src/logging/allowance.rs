//! How often one place of the code may have its line.

use std::mem;
use std::time::{Duration, Instant};

/// The first lines of each span are said; of those that come behind them each so-many-th, if any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) span: Duration,
    pub(super) first: u64,
    pub(super) then_each: Option<u64>,
}

/// What became of a rule in one place: pure, the time is told.
#[derive(Debug, Default)]
pub(super) struct Allowance {
    began: Option<Instant>,
    met: u64,
    unsaid: u64,
}

impl Allowance {
    pub(super) const fn new() -> Self {
        Self { began: None, met: 0, unsaid: 0 }
    }

    /// It happened again: how many times since it was last said, this one with them, if it is to be said now.
    pub(super) fn due(&mut self, rule: Rule, now: Instant) -> Option<u64> {
        if self.began.is_none_or(|began| now.saturating_duration_since(began) >= rule.span) {
            (self.began, self.met) = (Some(now), 0);
        }
        self.met += 1;
        self.unsaid += 1;
        let is_said = match self.met.checked_sub(rule.first) {
            None | Some(0) => true,
            Some(behind) => rule.then_each.is_some_and(|each| behind.is_multiple_of(each)),
        };
        is_said.then(|| mem::take(&mut self.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(rule: Rule, at_ms: &[u64]) -> Vec<Option<u64>> {
        let (start, mut allowance) = (Instant::now(), Allowance::new());
        at_ms.iter().map(|ms| allowance.due(rule, start + Duration::from_millis(*ms))).collect()
    }

    #[test]
    fn what_happens_often_is_said_every_ten_seconds_with_its_number() {
        let rule = Rule { span: Duration::from_secs(10), first: 1, then_each: None };
        let said = said(rule, &[0, 1, 9_999, 10_000, 10_001, 45_000]);
        assert_eq!(said, [Some(1), None, None, Some(3), None, Some(2)]);
    }

    #[test]
    fn the_first_ones_of_a_span_are_said_and_then_each_so_many_th() {
        let rule = Rule { span: Duration::from_secs(1), first: 2, then_each: Some(3) };
        let said = said(rule, &[0, 1, 2, 3, 4, 5, 6, 7, 1_000, 1_001, 1_002]);
        let (one, none) = (Some(1), None);
        assert_eq!(said, [one, one, none, none, Some(3), none, none, Some(3), one, one, none]);
    }
}
