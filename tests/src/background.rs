//! Jobs that are under way: one step or one request to the disk at a time.

use std::error::Error;
use std::io;

use basalt_storage::disk::{Disk, Io, IoOutput, SimulatedDisk};
use basalt_storage::job::{Completions, Job, Step};
use rand::Rng;
use rand::rngs::StdRng;

use crate::over::{Over, over};

/// A job between two of its steps. Requests of one submission are performed in any order, as they may be; the job hears
/// of those that failed, and decides.
pub struct Background<J: Job> {
    job: J,
    waiting: Vec<(usize, Io)>,
    answered: Vec<Option<io::Result<IoOutput>>>,
}

impl<J: Job> Background<J>
where
    J::Error: Error + 'static,
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
    /// [`Over`] when an injected fault failed the job.
    ///
    /// # Panics
    /// When the job fails in any other way.
    pub fn advance(&mut self, disk: &SimulatedDisk, random: &mut StdRng) -> Result<Option<J::Output>, Over> {
        self.try_advance(disk, random).map_err(|error| over(std::any::type_name::<J>(), &error))
    }

    /// The job, to be given up.
    pub fn into_job(self) -> J {
        self.job
    }

    /// Performs one request, or computes one step of the smallest budget; gives the output at the end.
    ///
    /// # Errors
    /// The job's; it is over.
    pub fn try_advance(&mut self, disk: &SimulatedDisk, random: &mut StdRng) -> Result<Option<J::Output>, J::Error> {
        if !self.waiting.is_empty() {
            let (position, io) = self.waiting.swap_remove(random.random_range(0..self.waiting.len()));
            self.answered[position] = Some(disk.perform(io));
            return Ok(None);
        }
        let answered = std::mem::take(&mut self.answered).into_iter();
        let completions: Completions = answered.map(|answer| answer.expect("nothing waits")).collect();
        match self.job.step(completions, 0)? {
            Step::Again => Ok(None),
            Step::Submit(requests) => {
                self.answered = requests.iter().map(|_| None).collect();
                self.waiting = requests.into_iter().enumerate().collect();
                Ok(None)
            }
            Step::Done(output) => Ok(Some(output)),
        }
    }
}
