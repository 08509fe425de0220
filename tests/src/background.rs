//! Jobs that are under way: one step or one request to the disk at a time.

use std::io;

use basalt_storage::disk::{Disk, Io, IoOutput, SimulatedDisk};
use basalt_storage::job::{Completions, Job, Step};
use rand::Rng;
use rand::rngs::StdRng;

/// The simulated power went: what follows is a power cut and another life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PowerLost;

/// Whether the disk was stopped; it says so to whatever it is asked.
pub fn is_stopped(disk: &SimulatedDisk) -> bool {
    let answer = disk.perform(Io::List { directory: String::new() });
    answer.is_err_and(|error| SimulatedDisk::is_crashed(&error))
}

/// Tells a stopped disk from a bug.
///
/// # Panics
/// When the disk was not stopped: nothing else may fail here.
pub fn power_lost(disk: &SimulatedDisk, doing: &str, error: &dyn std::fmt::Debug) -> PowerLost {
    assert!(is_stopped(disk), "{doing}: {error:?}");
    PowerLost
}

/// A job between two of its steps. Requests of one submission are performed in any order, as they may be.
pub struct Background<J: Job> {
    job: J,
    waiting: Vec<(usize, Io)>,
    answered: Vec<Option<io::Result<IoOutput>>>,
}

impl<J: Job> Background<J>
where
    J::Error: std::fmt::Debug,
{
    /// A job that has not begun.
    pub fn new(job: J) -> Self {
        Self { job, waiting: Vec::new(), answered: Vec::new() }
    }

    /// Whether a sync was handed out and has not returned.
    pub fn is_syncing(&self) -> bool {
        self.waiting.iter().any(|(_, io)| matches!(io, Io::Sync { .. } | Io::SyncDir { .. }))
    }

    /// Performs one request, or computes one step of the smallest budget; gives the output at the end.
    ///
    /// # Errors
    /// [`PowerLost`] when the disk was stopped; the job is over.
    ///
    /// # Panics
    /// When the job fails in any other way.
    pub fn advance(&mut self, disk: &SimulatedDisk, random: &mut StdRng) -> Result<Option<J::Output>, PowerLost> {
        if !self.waiting.is_empty() {
            let (position, io) = self.waiting.swap_remove(random.random_range(0..self.waiting.len()));
            let answer = disk.perform(io);
            if answer.as_ref().is_err_and(SimulatedDisk::is_crashed) {
                return Err(PowerLost);
            }
            self.answered[position] = Some(answer);
            return Ok(None);
        }
        let answered = std::mem::take(&mut self.answered).into_iter();
        let completions: Completions = answered.map(|answer| answer.expect("nothing waits")).collect();
        match self.job.step(completions, 0) {
            Ok(Step::Again) => Ok(None),
            Ok(Step::Submit(requests)) => {
                self.answered = requests.iter().map(|_| None).collect();
                self.waiting = requests.into_iter().enumerate().collect();
                Ok(None)
            }
            Ok(Step::Done(output)) => Ok(Some(output)),
            Err(error) => Err(power_lost(disk, "a background job", &error)),
        }
    }
}
