//! Marks in the log at which all members compare what their state adds up to (DESIGN 3.6): continuous, and without reading
//! any of it.
//!
//! A mark names the one before and carries its proposer's sums there. Everybody remembers his own sums at the last mark, so
//! that who applies the next one knows whether he differs from its proposer. Pure: times and sums come in.

use std::time::Duration;

use basalt_proto::log::request::Kind;
use basalt_proto::log::{HashMark, LogEntry};
use basalt_storage::mvcc::effect_sum::EffectSum;
use bytes::Bytes;

/// Sums of all shards in their order, then of the system records.
pub type Sums = (Vec<EffectSum>, EffectSum);

/// What a member remembers of marks.
pub struct HashMarks {
    interval: Duration,
    due: Duration,
    /// The last one, and our own sums there.
    last: Option<(u64, Vec<Bytes>)>,
}

/// What came of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// There was nothing to compare with.
    None,
    /// All is equal.
    Equal,
    /// What this member applied up to the mark is not what the other one did.
    Different {
        /// The mark.
        index: u64,
    },
}

impl HashMarks {
    /// A mark is proposed every so often while anything changes.
    pub fn new(interval: Duration, now: Duration) -> Self {
        Self { interval, due: now + interval, last: None }
    }

    /// Whether an entry is a mark.
    pub fn is_mark(entry: &LogEntry) -> bool {
        entry.requests.iter().any(|request| matches!(request.kind, Some(Kind::HashMark(_))))
    }

    /// A mark was applied at `index`; `sums` are ours behind its entry.
    pub fn applied(&mut self, index: u64, entry: &LogEntry, sums: &Sums) -> Comparison {
        let mut comparison = Comparison::None;
        for request in &entry.requests {
            let Some(Kind::HashMark(mark)) = &request.kind else { continue };
            match &self.last {
                Some((last, own)) if *last == mark.of_index && mark.of_index > 0 => {
                    let equal = *own == mark.sums;
                    comparison = if equal { Comparison::Equal } else { Comparison::Different { index: *last } };
                }
                _ => {}
            }
        }
        self.last = Some((index, bytes_of(sums)));
        comparison
    }

    /// The next mark, if it is time for one and something was applied behind the last: `applied` is the last entry.
    pub fn next(&mut self, now: Duration, applied: u64) -> Option<HashMark> {
        let is_new = self.last.as_ref().is_none_or(|(last, _)| *last < applied);
        if now < self.due || !is_new {
            return None;
        }
        self.due = now + self.interval;
        let (of_index, sums) = self.last.clone().unwrap_or_default();
        Some(HashMark { of_index, sums })
    }

    /// The state is another one from now on.
    pub fn forget(&mut self) {
        self.last = None;
    }
}

fn bytes_of((shards, system): &Sums) -> Vec<Bytes> {
    shards.iter().chain([system]).map(|sum| Bytes::copy_from_slice(&sum.0.to_le_bytes())).collect()
}

#[cfg(test)]
mod tests {
    use basalt_proto::log::Request;

    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn entry(mark: HashMark) -> LogEntry {
        let request = Request { id: 0, principal: None, kind: Some(Kind::HashMark(mark)) };
        LogEntry { requests: vec![request], ..LogEntry::default() }
    }

    fn sums(of: u128) -> Sums {
        (vec![EffectSum(of), EffectSum(2)], EffectSum(3))
    }

    #[test]
    fn who_differs_from_the_proposer_of_the_next_mark_knows_it() {
        let (mut one, mut other) = (HashMarks::new(at(10), at(0)), HashMarks::new(at(10), at(0)));
        assert_eq!(one.next(at(9), 5), None);
        let first = one.next(at(10), 5).expect("it is time");
        assert_eq!(first, HashMark::default());
        assert_eq!(one.applied(6, &entry(first.clone()), &sums(1)), Comparison::None);
        assert_eq!(other.applied(6, &entry(first), &sums(9)), Comparison::None);
        assert_eq!(one.next(at(25), 6), None, "nothing was applied since");
        let second = one.next(at(25), 7).expect("it is time");
        assert_eq!((second.of_index, second.sums.len()), (6, 3));
        assert_eq!(one.applied(8, &entry(second.clone()), &sums(4)), Comparison::Equal);
        assert_eq!(other.applied(8, &entry(second), &sums(4)), Comparison::Different { index: 6 });
        // They are equal from then on, by their sums alone: the alarm stands.
        let third = other.next(at(40), 9).expect("it is time");
        assert_eq!(one.applied(10, &entry(third.clone()), &sums(5)), Comparison::Equal);
        // Whoever got another state compares from the next mark on.
        other.forget();
        assert_eq!(other.applied(10, &entry(third), &sums(5)), Comparison::None);
    }
}
