//! How long a connection works before others have their turn.
//!
//! A connection works on one thread while it is polled, and so has one turn at a time there: that is where the turn is kept.
//! Who takes a step asks first whether the turn is over, and if so comes back in the next.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// What a turn may take, looked at each few steps. A call takes a hundredth of it; who calls once waits little longer than
/// this for each connection that is busy.
const TURN_MAX: Duration = Duration::from_micros(500);
/// Steps between two looks at the clock: a turn is of so many at least.
const STEPS: u32 = 4;

#[derive(Clone, Copy)]
struct Turn {
    steps: u32,
    /// When the first step was over.
    timed_from: Option<Instant>,
    is_over: bool,
}

impl Turn {
    const NEW: Self = Self { steps: 0, timed_from: None, is_over: false };

    fn step(mut self, now: impl FnOnce() -> Instant) -> Self {
        self.steps += 1;
        match self.timed_from {
            None => self.timed_from = Some(now()),
            Some(from) if self.steps.is_multiple_of(STEPS) => self.is_over |= now().duration_since(from) >= TURN_MAX,
            Some(_) => {}
        }
        self
    }
}

thread_local! {
    static TURN: Cell<Turn> = const { Cell::new(Turn::NEW) };
}

/// A connection has its turn on this thread.
pub(super) fn begin() {
    TURN.set(Turn::NEW);
}

/// A step was taken: a call accepted, or looked at.
pub(super) fn step() {
    TURN.set(TURN.get().step(Instant::now));
}

/// Whether the turn took what it may take.
pub(super) fn is_over() -> bool {
    TURN.get().is_over
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_over_when_its_steps_took_long() {
        let start = Instant::now();
        let mut turn = Turn::NEW.step(|| start);
        for _ in 2..STEPS {
            turn = turn.step(|| unreachable!("the clock is looked at now and then"));
        }
        turn = turn.step(|| start + TURN_MAX - Duration::from_nanos(1));
        assert!(!turn.is_over);
        for _ in 1..STEPS {
            turn = turn.step(|| unreachable!("the clock is looked at now and then"));
        }
        turn = turn.step(|| start + TURN_MAX);
        assert!(turn.is_over);
        // Whatever the clock says later.
        turn = (0..STEPS).fold(turn, |turn, _| turn.step(|| start));
        assert!(turn.is_over);
    }
}
