//! Callers that call again and again until a deadline, and what came of it.

use std::future::Future;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tonic::Status;

use crate::histogram::Histogram;

/// A caller gives up after so many failed calls: a server that refuses everything must not be hammered.
const ERRORS_PER_CALLER_MAX: u64 = 10;
/// No operation takes longer, so that a server that hangs ends the round.
const OPERATION_MAX: Duration = Duration::from_secs(30);

/// One client that has at most one call under way.
pub trait Caller: Send + 'static {
    /// One operation of the load, complete and checked.
    fn call(&mut self) -> impl Future<Output = Result<(), Status>> + Send;
}

/// When callers call.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// How long calls are begun.
    pub duration: Duration,
    /// Calls a second of all callers together. `None`: each calls again as soon as it was answered.
    pub rate: Option<f64>,
}

/// What a load did.
#[derive(Clone, Default)]
pub struct Tally {
    /// The latency of each operation that succeeded.
    pub latencies: Histogram,
    /// Operations that failed.
    pub errors: u64,
    /// Why the first of them failed.
    pub first_error: Option<String>,
}

impl Tally {
    /// Counts a failure.
    pub fn fail(&mut self, cause: &dyn std::fmt::Display) {
        self.errors += 1;
        self.first_error.get_or_insert_with(|| cause.to_string());
    }

    /// Adds what another one counted.
    pub fn merge(&mut self, other: Self) {
        self.latencies.merge(&other.latencies);
        self.add_errors(other.errors, other.first_error);
    }

    /// Adds failures only.
    pub fn add_errors(&mut self, errors: u64, first_error: Option<String>) {
        self.errors += errors;
        self.first_error = self.first_error.take().or(first_error);
    }
}

/// Lets all callers call for the time of `pace`; they are returned for the next round.
///
/// At a fixed rate each latency counts from when the call was due, so that a stall is charged to every call that it
/// delayed; calls still due at the deadline are dropped, and the throughput shows it.
///
/// # Errors
/// A caller panicked.
pub async fn closed_loop<C: Caller>(callers: Vec<C>, pace: Pace) -> Result<(Vec<C>, Tally)> {
    let start = Instant::now();
    let deadline = start + pace.duration;
    let interval = pace.rate.map(|rate| Duration::from_secs_f64(callers.len() as f64 / rate));
    let count = callers.len() as u32;
    let mut running = JoinSet::new();
    for (number, caller) in (0_u32..).zip(callers) {
        let schedule = interval.map(|interval| (start + interval * number / count, interval));
        running.spawn(call_until(caller, deadline, schedule));
    }
    let (mut callers, mut tally) = (Vec::with_capacity(running.len()), Tally::default());
    while let Some(joined) = running.join_next().await {
        let (caller, own) = joined.context("a caller panicked")?;
        callers.push(caller);
        tally.merge(own);
    }
    Ok((callers, tally))
}

async fn call_until<C: Caller>(
    mut caller: C,
    deadline: Instant,
    mut schedule: Option<(Instant, Duration)>,
) -> (C, Tally) {
    let mut tally = Tally::default();
    while tally.errors < ERRORS_PER_CALLER_MAX {
        let begin = match &mut schedule {
            None => Instant::now(),
            Some((due, interval)) => {
                let begin = *due;
                sleep_until(begin.min(deadline)).await;
                *due += *interval;
                begin
            }
        };
        if begin >= deadline || Instant::now() >= deadline {
            break;
        }
        match timeout(OPERATION_MAX, caller.call()).await {
            Ok(Ok(())) => tally.latencies.record(begin.elapsed()),
            Err(_) => tally.fail(&format_args!("no answer in {OPERATION_MAX:?}")),
            Ok(Err(status)) => tally.fail(&format_args!("{:?}: {}", status.code(), status.message())),
        }
    }
    (caller, tally)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Answers(Result<(), Status>);

    impl Caller for Answers {
        async fn call(&mut self) -> Result<(), Status> {
            tokio::task::yield_now().await;
            self.0.clone()
        }
    }

    fn run(callers: Vec<Answers>, pace: Pace) -> (usize, Tally) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("runtime");
        let (callers, tally) = runtime.block_on(closed_loop(callers, pace)).expect("no caller panics");
        (callers.len(), tally)
    }

    #[test]
    fn callers_come_back_and_successes_are_counted() {
        let pace = Pace { duration: Duration::from_millis(5), rate: None };
        let (callers, tally) = run(vec![Answers(Ok(())), Answers(Ok(()))], pace);
        assert_eq!((callers, tally.errors), (2, 0));
        assert!(tally.latencies.total() >= 2);
    }

    #[test]
    fn a_caller_that_is_refused_stops() {
        let pace = Pace { duration: Duration::from_secs(60), rate: None };
        let (_, tally) = run(vec![Answers(Err(Status::unimplemented("not here")))], pace);
        assert_eq!(tally.errors, ERRORS_PER_CALLER_MAX);
        assert_eq!(tally.first_error.as_deref(), Some("Unimplemented: not here"));
    }

    #[test]
    fn a_rate_is_not_exceeded() {
        let pace = Pace { duration: Duration::from_millis(40), rate: Some(100.0) };
        let (_, tally) = run(vec![Answers(Ok(())), Answers(Ok(()))], pace);
        assert!((1..=4).contains(&tally.latencies.total()), "{}", tally.latencies.total());
    }
}
