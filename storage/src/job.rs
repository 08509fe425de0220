//! Long work without threads: a job is stepped, hands out I/O, and is stepped again with the completions.
//!
//! Who steps a job decides when: the server on a named thread, the simulator between any two other events, a
//! test with a crash in the middle. Between two steps a job holds no lock and everything it shares is consistent.

use std::io;

use crate::disk::{Disk, Io, IoOutput};

/// What a job wants next.
#[derive(Debug)]
pub enum Step<T> {
    /// More to compute; call again when convenient, with no completions.
    Again,
    /// Perform these, in any order and at the same time, and step with one completion for each, in this order.
    /// What must be ordered (a sync after its writes) comes in a later step.
    Submit(Vec<Io>),
    /// The result. A job is not stepped after it.
    Done(T),
}

/// The completions of one [`Step::Submit`], in the order of its requests. Empty on the first step and after
/// [`Step::Again`].
pub type Completions = Vec<io::Result<IoOutput>>;

/// Work that may take long, cut into steps.
pub trait Job {
    /// What is there at the end.
    type Output;
    /// Why it cannot end.
    type Error;

    /// Does a bounded piece of work.
    ///
    /// `budget` bounds it, in units that the job names (entries, pages, keys); a step may do one unit more than
    /// it is given, so that a budget of 0 still advances.
    ///
    /// # Errors
    /// The job's own; the job is over and is not stepped again.
    fn step(&mut self, completions: Completions, budget: usize) -> Result<Step<Self::Output>, Self::Error>;
}

/// Units of work a step may do when nothing else waits.
pub const BUDGET_UNLIMITED: usize = usize::MAX;

/// Runs `job` to its end on the calling thread, performing its I/O on `disk`. For recovery, tools and tests, and
/// for threads that do nothing else.
///
/// # Errors
/// The job's own.
pub fn run<J: Job>(job: &mut J, disk: &dyn Disk, budget: usize) -> Result<J::Output, J::Error> {
    let mut completions = Completions::new();
    loop {
        match job.step(std::mem::take(&mut completions), budget)? {
            Step::Again => {}
            Step::Submit(requests) => completions = requests.into_iter().map(|io| disk.perform(io)).collect(),
            Step::Done(output) => return Ok(output),
        }
    }
}
