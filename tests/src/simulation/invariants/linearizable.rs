//! I7 once more, by a search that knows nothing of revisions, terms or logs: what clients of a register saw can be put into one
//! order, each operation between when it was asked and when it was answered.
//!
//! The search is that of Wing and Gong, with the memory of Lowe: of all operations that may come next one is tried after
//! another, and no set of operations is left twice with the same value.

use std::collections::BTreeSet;
use std::time::Duration;

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// To write a value that nobody else writes.
    Write(u64),
    /// To read; what was found.
    Read(Option<u64>),
}

/// An operation of a client.
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    /// On which register.
    pub register: usize,
    /// What.
    pub what: What,
    /// When it was asked for.
    pub called: Duration,
    /// When it was answered; `None` if nobody knows whether it was.
    pub returned: Option<Duration>,
}

/// Looks for an order of what happened to a register.
///
/// # Panics
/// When there is none.
pub fn check(history: &[Operation], register: usize) {
    let mut operations: Vec<Operation> = history.iter().copied().filter(|one| one.register == register).collect();
    // Of which nobody saw anything may stand behind everything else.
    let seen: BTreeSet<u64> = operations.iter().filter_map(|one| as_read(one)?).collect();
    operations.retain(|one| one.returned.is_some() || matches!(one.what, What::Write(value) if seen.contains(&value)));
    operations.sort_by_key(|one| one.called);
    assert!(
        has_order(&operations),
        "I7: no order explains what {} operations on register {register} saw: {:?}",
        operations.len(),
        operations.iter().rev().take(40).collect::<Vec<_>>()
    );
}

fn as_read(operation: &Operation) -> Option<Option<u64>> {
    match operation.what {
        What::Read(value) => Some(value),
        What::Write(_) => None,
    }
}

/// Which operations were put into the order, one bit each.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Taken(Vec<u64>);

impl Taken {
    fn none(count: usize) -> Self {
        Self(vec![0; count.div_ceil(64)])
    }

    fn has(&self, position: usize) -> bool {
        self.0[position / 64] & (1 << (position % 64)) != 0
    }

    fn with(&self, position: usize) -> Self {
        let mut more = self.clone();
        more.0[position / 64] |= 1 << (position % 64);
        more
    }
}

/// `operations` stand by when they were asked for.
fn has_order(operations: &[Operation]) -> bool {
    let mut known = BTreeSet::new();
    let mut open = vec![(Taken::none(operations.len()), 0, None)];
    while let Some((taken, mut first, value)) = open.pop() {
        while first < operations.len() && taken.has(first) {
            first += 1;
        }
        if first == operations.len() {
            return true;
        }
        if !known.insert((taken.clone(), value)) {
            continue;
        }
        let next = candidates(operations, &taken, first);
        // A read that fits now takes nothing from anybody.
        let reads = |position: &&usize| as_read(&operations[**position]) == Some(value);
        if let Some(read) = next.iter().find(reads) {
            open.push((taken.with(*read), first, value));
            continue;
        }
        for position in next {
            if let What::Write(written) = operations[position].what {
                open.push((taken.with(position), first, Some(written)));
            }
        }
    }
    false
}

/// What may come next: no other one was answered before it was asked for.
fn candidates(operations: &[Operation], taken: &Taken, first: usize) -> Vec<usize> {
    let (mut next, mut earliest) = (Vec::new(), Duration::MAX);
    for (position, operation) in operations.iter().enumerate().skip(first) {
        if operation.called > earliest {
            break;
        }
        if !taken.has(position) {
            next.push(position);
            earliest = earliest.min(operation.returned.unwrap_or(Duration::MAX));
        }
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(what: What, called: u64, returned: Option<u64>) -> Operation {
        let at = Duration::from_millis;
        Operation { register: 0, what, called: at(called), returned: returned.map(at) }
    }

    fn write(value: u64, called: u64, returned: u64) -> Operation {
        operation(What::Write(value), called, Some(returned))
    }

    fn read(value: u64, called: u64, returned: u64) -> Operation {
        operation(What::Read((value > 0).then_some(value)), called, Some(returned))
    }

    #[test]
    fn operations_that_overlap_may_stand_in_any_order() {
        check(&[write(1, 0, 10), write(2, 5, 15), read(2, 6, 7), read(1, 8, 9), read(1, 20, 21)], 0);
        check(&[read(0, 0, 3), write(1, 1, 5), read(1, 2, 4)], 0);
    }

    #[test]
    fn a_write_that_nobody_answered_may_come_late_or_never() {
        let unknown = operation(What::Write(9), 0, None);
        check(&[unknown, write(1, 1, 2), read(1, 3, 4), read(9, 5, 6), read(9, 7, 8)], 0);
        check(&[unknown, write(1, 1, 2), read(1, 3, 4), write(2, 5, 6), read(2, 7, 8)], 0);
    }

    #[test]
    #[should_panic(expected = "no order explains")]
    fn a_read_of_the_past_is_seen() {
        check(&[write(1, 0, 1), write(2, 2, 3), read(1, 4, 5)], 0);
    }

    #[test]
    #[should_panic(expected = "no order explains")]
    fn a_lost_write_is_seen() {
        check(&[write(1, 0, 1), read(0, 2, 3)], 0);
    }

    #[test]
    #[should_panic(expected = "no order explains")]
    fn two_readers_that_go_back_in_time_are_seen() {
        check(&[write(1, 0, 1), write(2, 2, 10), read(2, 3, 4), read(1, 5, 6)], 0);
    }

    #[test]
    #[should_panic(expected = "no order explains")]
    fn a_late_write_does_not_come_twice() {
        let unknown = operation(What::Write(9), 0, None);
        check(&[unknown, read(9, 1, 2), write(1, 3, 4), read(1, 5, 6), read(9, 7, 8)], 0);
    }
}
