//! Jobs that are under way: one step or one request to the disk at a time.

use std::io;

use basalt_storage::disk::{Disk, Io, IoOutput, SimulatedDisk};
use basalt_storage::job::{Completions, Job, Step};
use rand::Rng;
use rand::rngs::StdRng;

/// The simulated power went, or a fault that a test armed stopped the node: what follows is another life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PowerLost;

/// Whether the disk was stopped; it says so to whatever it is asked.
pub fn is_stopped(disk: &SimulatedDisk) -> bool {
    let answer = disk.perform(Io::List { directory: String::new() });
    answer.is_err_and(|error| SimulatedDisk::is_crashed(&error))
}

/// Tells a stopped disk, or one on which an armed fault was met, from a bug.
///
/// # Panics
/// When neither is so: nothing else may fail here.
pub fn power_lost(disk: &SimulatedDisk, doing: &str, error: &dyn std::fmt::Debug) -> PowerLost {
    assert!(disk.faults_met() > 0 || is_stopped(disk), "{doing}: {error:?}");
    PowerLost
}

/// Why a job does not go on.
#[derive(Debug)]
pub enum Ended<E> {
    /// The disk was stopped.
    PowerLost,
    /// The job failed.
    Failed(E),
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

    /// As [`Self::try_advance`], for a job that nothing but the end of the node may stop.
    ///
    /// # Errors
    /// [`PowerLost`] when the disk was stopped or an armed fault was met; the job is over.
    ///
    /// # Panics
    /// When the job fails in any other way.
    pub fn advance(&mut self, disk: &SimulatedDisk, random: &mut StdRng) -> Result<Option<J::Output>, PowerLost> {
        self.try_advance(disk, random).map_err(|ended| match ended {
            Ended::PowerLost => PowerLost,
            Ended::Failed(error) => power_lost(disk, "a background job", &error),
        })
    }

    /// The job, to be given up.
    pub fn into_job(self) -> J {
        self.job
    }

    /// Performs one request, or computes one step of the smallest budget; gives the output at the end.
    ///
    /// # Errors
    /// Of the disk or the job; the job is over.
    pub fn try_advance(
        &mut self,
        disk: &SimulatedDisk,
        random: &mut StdRng,
    ) -> Result<Option<J::Output>, Ended<J::Error>> {
        if !self.waiting.is_empty() {
            let (position, io) = self.waiting.swap_remove(random.random_range(0..self.waiting.len()));
            let answer = disk.perform(io);
            if answer.as_ref().is_err_and(SimulatedDisk::is_crashed) {
                return Err(Ended::PowerLost);
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
            Err(error) => Err(Ended::Failed(error)),
        }
    }
}
