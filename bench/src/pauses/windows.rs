//! Spans of time in which work was under way.

use std::time::Duration;

use tokio::time::Instant;

/// Spans in the order of their ends, in which they are added.
#[derive(Default)]
pub struct Windows(Vec<(Instant, Instant)>);

impl Windows {
    /// Adds a span; one that meets the last is made one with it.
    pub fn add(&mut self, begin: Instant, end: Instant) {
        match self.0.last_mut() {
            Some(last) if begin <= last.1 => *last = (begin.min(last.0), end.max(last.1)),
            _ => self.0.push((begin, end)),
        }
    }

    /// Whether any moment from `begin` to `end` lies in a span.
    pub fn meet(&self, begin: Instant, end: Instant) -> bool {
        let after = self.0.partition_point(|window| window.1 < begin);
        self.0.get(after).is_some_and(|window| window.0 <= end)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// How long all of them are.
    pub fn length(&self) -> Duration {
        self.0.iter().map(|(begin, end)| *end - *begin).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_met_at_their_ends_and_across() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut windows = Windows::default();
        for (begin, end) in [(10, 20), (15, 25), (40, 50)] {
            windows.add(at(begin), at(end));
        }
        assert_eq!((windows.count(), windows.length()), (2, Duration::from_secs(25)));
        for (begin, end) in [(0, 10), (25, 30), (12, 13), (0, 60), (50, 50)] {
            assert!(windows.meet(at(begin), at(end)), "{begin}–{end}");
        }
        for (begin, end) in [(0, 9), (26, 39), (51, 60)] {
            assert!(!windows.meet(at(begin), at(end)), "{begin}–{end}");
        }
        assert!(!Windows::default().meet(at(0), at(60)));
    }
}
