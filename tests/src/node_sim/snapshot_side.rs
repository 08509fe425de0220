//! A client that takes snapshots, as slowly as the order of the node allows.

use basalt_server::apply::machine::Machine;
use basalt_server::node::content::state_of;
use basalt_storage::disk::SimulatedDisk;
use basalt_storage::job::{Completions, Job, Step};
use basalt_storage::snapshot::{SnapshotError, SnapshotJob};
use rand::rngs::StdRng;

use super::overlaps::Overlaps;
use crate::background::Background;
use crate::over::Over;

/// A snapshot as its client has it.
#[derive(Debug)]
pub struct TakenSnapshot {
    /// The revision it was taken at.
    pub revision: i64,
    /// What was compacted then.
    pub compact_revision: i64,
    /// The file, without the digest behind it.
    pub file: Vec<u8>,
    /// The digest.
    pub digest: Option<[u8; 32]>,
}

/// All chunks of a snapshot in one job.
struct WholeSnapshot {
    job: SnapshotJob,
    taken: Option<TakenSnapshot>,
}

impl Job for WholeSnapshot {
    type Output = TakenSnapshot;
    type Error = SnapshotError;

    fn step(&mut self, completions: Completions, budget: usize) -> Result<Step<TakenSnapshot>, SnapshotError> {
        let taken = self.taken.as_mut().expect("a job is not stepped after its end");
        match self.job.next_chunk().step(completions, budget)? {
            Step::Again => Ok(Step::Again),
            Step::Submit(requests) => Ok(Step::Submit(requests)),
            Step::Done(Some(chunks)) => {
                taken.file.extend(chunks.concat());
                Ok(Step::Again)
            }
            Step::Done(None) => {
                taken.digest = self.job.digest();
                Ok(Step::Done(self.taken.take().expect("looked at just now")))
            }
        }
    }
}

/// At most one snapshot under way, and those that were taken.
#[derive(Default)]
pub(super) struct SnapshotSide {
    job: Option<Background<WholeSnapshot>>,
    pub(super) taken: Vec<TakenSnapshot>,
}

impl SnapshotSide {
    pub(super) fn is_running(&self) -> bool {
        self.job.is_some()
    }

    /// Begins one of the state now, unless one is under way.
    pub(super) fn begin(&mut self, machine: &mut Machine) {
        if self.is_running() {
            return;
        }
        let (view, tables) = state_of(machine);
        let (revision, compact_revision) = (view.revision, view.compact_revision);
        let taken = TakenSnapshot { revision, compact_revision, file: Vec::new(), digest: None };
        let job = WholeSnapshot { job: SnapshotJob::new(view, tables), taken: Some(taken) };
        self.job = Some(Background::new(job));
    }

    pub(super) fn advance(
        &mut self,
        disk: &SimulatedDisk,
        random: &mut StdRng,
        seen: &mut Overlaps,
    ) -> Result<(), Over> {
        let job = self.job.as_mut().expect("a snapshot is under way");
        if let Some(taken) = job.advance(disk, random)? {
            self.taken.push(taken);
            self.job = None;
            seen.snapshots += 1;
        }
        Ok(())
    }
}
