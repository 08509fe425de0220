//! Calls that begin when they are due, however many are still under way.

use std::collections::VecDeque;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tonic::Status;

use crate::closed_loop::Caller;

/// Calls come in bursts this far apart.
const TICK: Duration = Duration::from_millis(1);
/// No call takes longer, so that a server that hangs ends the round.
const CALL_MAX: Duration = Duration::from_secs(30);

/// One call that was answered.
pub struct Answered {
    /// When it was to be sent.
    pub due: Instant,
    /// When the answer was there.
    pub done: Instant,
}

/// What came of all calls.
#[derive(Default)]
pub struct Outcome {
    /// Calls that succeeded.
    pub answered: Vec<Answered>,
    /// Calls that failed.
    pub errors: u64,
    /// Why the first of them failed.
    pub first_error: Option<String>,
}

/// Lets callers call at `rate` a second until `duration` is over; they come back for the next time.
///
/// As many calls can be under way as there are callers. Those beyond wait for one to be free, and count from when they were
/// due like all others; the last are awaited.
///
/// # Errors
/// A caller panicked, or no thread can be started.
pub async fn open_loop<C: Caller>(callers: Vec<C>, rate: f64, duration: Duration) -> Result<(Vec<C>, Outcome)> {
    let (ticks, mut dues) = mpsc::channel(64);
    let pacer = thread::Builder::new().name("pacer".into()).spawn(move || pace(rate, duration, &ticks))?;
    let (mut idle, mut waiting) = (callers, VecDeque::new());
    let (mut running, mut outcome, mut more) = (JoinSet::new(), Outcome::default(), true);
    while more || !running.is_empty() {
        tokio::select! {
            tick = dues.recv(), if more => match tick {
                Some((due, calls)) => waiting.extend(std::iter::repeat_n(due, calls)),
                None => more = false,
            },
            Some(ended) = running.join_next() => {
                let (caller, answered) = ended.context("a caller panicked")?;
                idle.push(caller);
                outcome.count(answered);
            }
        }
        while !waiting.is_empty()
            && let Some(caller) = idle.pop()
        {
            running.extend(waiting.pop_front().map(|due| call(caller, due)));
        }
    }
    pacer.join().map_err(|_| anyhow::anyhow!("the pacer panicked"))?;
    Ok((idle, outcome))
}

/// Says when calls are due. A thread of its own, because a timer of the runtime is exact to a millisecond only.
fn pace(rate: f64, duration: Duration, ticks: &mpsc::Sender<(Instant, usize)>) {
    let (start, mut begun, mut tick) = (Instant::now(), 0, 0);
    while TICK * tick < duration {
        let due = start + TICK * tick;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        tick += 1;
        let until_now = ((TICK * tick).as_secs_f64() * rate) as usize;
        if until_now > begun && ticks.blocking_send((due, until_now - begun)).is_err() {
            return;
        }
        begun = until_now;
    }
}

async fn call<C: Caller>(mut caller: C, due: Instant) -> (C, Result<Answered, Status>) {
    let answer = match timeout(CALL_MAX, caller.call()).await {
        Ok(answer) => answer,
        Err(_) => Err(Status::deadline_exceeded(format!("no answer in {CALL_MAX:?}"))),
    };
    (caller, answer.map(|()| Answered { due, done: Instant::now() }))
}

impl Outcome {
    fn count(&mut self, answered: Result<Answered, Status>) {
        match answered {
            Ok(answered) => self.answered.push(answered),
            Err(status) => {
                self.errors += 1;
                self.first_error.get_or_insert_with(|| format!("{:?}: {}", status.code(), status.message()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;

    use super::*;

    /// Waits until it may answer.
    struct Held(&'static Semaphore);

    impl Caller for Held {
        async fn call(&mut self) -> Result<(), Status> {
            self.0.acquire().await.map_err(|_| Status::cancelled("closed"))?.forget();
            Ok(())
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn calls_come_due_while_none_is_answered() {
        static ANSWERS: Semaphore = Semaphore::const_new(0);
        let calls = tokio::spawn(open_loop(vec![Held(&ANSWERS), Held(&ANSWERS)], 1000.0, TICK * 10));
        tokio::time::sleep(TICK).await;
        ANSWERS.add_permits(10);
        let (callers, outcome) = calls.await.expect("no panic").expect("no caller panics");
        assert_eq!((callers.len(), outcome.answered.len(), outcome.errors), (2, 10, 0));
        let due: Vec<_> = outcome.answered.iter().map(|call| call.due).collect();
        assert!(due.iter().max() > due.iter().min());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn failures_are_counted() {
        struct Refused;
        impl Caller for Refused {
            async fn call(&mut self) -> Result<(), Status> {
                Err(Status::unavailable("gone"))
            }
        }
        let (_, outcome) = open_loop(vec![Refused], 1000.0, TICK * 3).await.expect("no caller panics");
        assert_eq!((outcome.errors, outcome.first_error.as_deref()), (3, Some("Unavailable: gone")));
    }
}
