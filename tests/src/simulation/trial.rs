//! A run that may fail, and what is left of it when all that does not matter is taken away.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use super::cluster::Cluster;
use super::plan::Plan;
use super::report::Report;
use super::schedule::Schedule;

/// Runs that a shrinking may take.
const RUNS_MAX: usize = 200;

thread_local! {
    static LAST: RefCell<Failure> = RefCell::new(Failure::default());
    static IN_TRIAL: Cell<bool> = const { Cell::new(false) };
}

/// How a run failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failure {
    /// Where.
    pub place: String,
    /// The message.
    pub message: String,
}

/// Runs a plan with what goes wrong in it.
///
/// # Errors
/// [`Failure`] of the first invariant that does not hold.
pub fn run(plan: &Plan, schedule: &Schedule) -> Result<Report, Failure> {
    listen();
    IN_TRIAL.set(true);
    let run = catch_unwind(AssertUnwindSafe(|| Cluster::with(*plan, schedule, false).run()));
    IN_TRIAL.set(false);
    run.map_err(|_| LAST.with(|last| last.borrow().clone()))
}

/// Remembers what panics of a trial say, instead of printing it.
fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let others = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !IN_TRIAL.get() {
                return others(info);
            }
            let place = info.location().map(|place| format!("{}:{}", place.file(), place.line()));
            let message = info.payload_as_str().unwrap_or("no message").to_owned();
            LAST.with(|last| *last.borrow_mut() = Failure { place: place.unwrap_or_default(), message });
        }));
    });
}

/// Takes faults away, first all of a kind, then halves of what is left and halves of these, as long as the run fails at the
/// same place; gives the shorter schedule and its failure.
pub fn shrink(plan: &Plan, schedule: &Schedule, failure: &Failure) -> (Schedule, Failure) {
    shrink_by(schedule, failure, |schedule| run(plan, schedule).err())
}

fn shrink_by(
    schedule: &Schedule,
    failure: &Failure,
    mut fails: impl FnMut(&Schedule) -> Option<Failure>,
) -> (Schedule, Failure) {
    let (mut left, mut last, mut runs) = (schedule.clone(), failure.clone(), 0);
    let mut without = |left: &mut Schedule, taken: &BTreeSet<usize>| {
        if runs == RUNS_MAX || taken.is_empty() {
            return false;
        }
        runs += 1;
        let shorter = left.only(&left.numbers().difference(taken).copied().collect());
        let Some(again) = fails(&shorter).filter(|again| again.place == failure.place) else { return false };
        (*left, last) = (shorter, again);
        true
    };
    let kinds: BTreeSet<&str> = left.faults().iter().map(|scheduled| scheduled.fault.kind()).collect();
    for kind in kinds {
        let of_kind = left.faults().iter().filter(|scheduled| scheduled.fault.kind() == kind);
        let of_kind = of_kind.map(|scheduled| scheduled.number).collect();
        without(&mut left, &of_kind);
    }
    let mut length = left.numbers().len().div_ceil(2);
    while length > 0 {
        let mut from = 0;
        while from < left.numbers().len() {
            let taken: BTreeSet<usize> = left.numbers().into_iter().skip(from).take(length).collect();
            // What stands behind moves up to where these were.
            if !without(&mut left, &taken) {
                from += length;
            }
        }
        length /= 2;
    }
    (left, last)
}

/// The command that repeats a run.
pub fn command(plan: &Plan, schedule: &Schedule) -> String {
    let numbers: Vec<String> = schedule.numbers().iter().map(usize::to_string).collect();
    let (seed, next, numbers) = (plan.seed, plan.seed + 1, numbers.join(","));
    let rate = if plan.per_second == Plan::of(seed).per_second {
        String::new()
    } else {
        format!("SIMULATION_PER_SECOND={} ", plan.per_second)
    };
    format!(
        "{rate}SIMULATION_TRACE=1 SIMULATION_SEEDS={seed}..{next} SIMULATION_FAULTS={numbers} cargo test -p basalt-tests --test simulation -- --nocapture clusters"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails where two certain faults are there, and elsewhere where a third is alone.
    #[test]
    fn only_what_matters_is_left() {
        let schedule = Schedule::of(&Plan::of(1));
        let numbers: Vec<usize> = schedule.numbers().into_iter().collect();
        let (first, second, other) = (numbers[3], numbers[17], numbers[9]);
        let failure = |place: &str| Failure { place: place.to_owned(), message: String::new() };
        let fails = |schedule: &Schedule| {
            let has = |number| schedule.numbers().contains(&number);
            match (has(first) && has(second), has(other)) {
                (true, _) => Some(failure("here")),
                (false, true) => Some(failure("there")),
                (false, false) => None,
            }
        };
        let (left, last) = shrink_by(&schedule, &failure("here"), fails);
        assert_eq!(left.numbers(), [first, second].into());
        assert_eq!(last, failure("here"));
    }
}
