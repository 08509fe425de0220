//! Writes a run from any source of records.

use super::encoder::RunEncoder;
use super::error::RunError;
use super::format::{Header, run_name};
use super::merged_runs::{MergedRuns, Removals};
use super::record::Record;
use super::run_meta::RunMeta;
use crate::disk::{FileId, Io, IoOutput};
use crate::job::{Completions, Job, Step};

/// Bytes gathered before a write.
const WRITE_CHUNK_BYTES: usize = 256 << 10;

/// Where the records of a run come from, in ascending key order.
pub trait RecordSource {
    /// Works towards the next records, as [`Job::step`] does: `Done(None)` is the end.
    ///
    /// # Errors
    /// Of reading them.
    fn next(&mut self, completions: Completions, budget: usize) -> Result<Step<Option<Vec<Record>>>, RunError>;

    /// What closes the files that it left open, for a job that ends early.
    fn close(&mut self) -> Vec<Io> {
        Vec::new()
    }
}

/// Records in memory.
pub struct Records<I>(I);

impl<I: Iterator<Item = Record>> RecordSource for Records<I> {
    fn next(&mut self, _: Completions, budget: usize) -> Result<Step<Option<Vec<Record>>>, RunError> {
        let batch: Vec<_> = self.0.by_ref().take(budget.clamp(1, BATCH_RECORDS_MAX)).collect();
        Ok(Step::Done(Some(batch).filter(|batch| !batch.is_empty())))
    }
}

impl RecordSource for MergedRuns {
    fn next(&mut self, completions: Completions, budget: usize) -> Result<Step<Option<Vec<Record>>>, RunError> {
        self.next_batch().step(completions, budget.min(BATCH_RECORDS_MAX))
    }

    fn close(&mut self) -> Vec<Io> {
        MergedRuns::close(self)
    }
}

/// Records taken from a source at a time, whatever the budget: what bounds memory.
const BATCH_RECORDS_MAX: usize = 64;

/// What the completions of the next step belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing was submitted.
    Start,
    Open,
    Truncate,
    /// The source, or nothing.
    Gather,
    Write,
    LastWrite(RunMeta),
    Sync(RunMeta),
    Close(RunMeta),
}

/// The job that writes a run file, syncs and closes it. Budgets count records.
///
/// A file of that name is overwritten: a number is used again only if no manifest ever named it. After an error the
/// file is garbage: perform what [`Self::give_up`] returns.
pub struct WriteRun<S> {
    number: u64,
    name: String,
    source: S,
    encoder: RunEncoder,
    file: Option<FileId>,
    phase: Phase,
}

impl<I: Iterator<Item = Record>> WriteRun<Records<I>> {
    /// Writes `records` as run `number` in `directory`. `salt` is random, so that no block of an older file that had
    /// the same blocks of the device is valid in this one.
    pub fn from_records(directory: &str, number: u64, salt: u64, records: I) -> Self {
        Self::new(directory, number, salt, Records(records))
    }
}

impl WriteRun<MergedRuns> {
    /// Merges `runs` (oldest first) into run `number`; with [`Removals::Drop`] that is a new base.
    pub fn merge(directory: &str, number: u64, salt: u64, runs: &[RunMeta], removals: Removals) -> Self {
        Self::new(directory, number, salt, MergedRuns::new(directory, runs, removals))
    }
}

impl<S: RecordSource> WriteRun<S> {
    /// Writes what `source` yields.
    pub fn new(directory: &str, number: u64, salt: u64, source: S) -> Self {
        let name = run_name(directory, number);
        let encoder = RunEncoder::new(Header { number, salt });
        Self { number, name, source, encoder, file: None, phase: Phase::Start }
    }

    /// What closes all files and removes the one that was to be written, after an error or instead of going on; no
    /// request of the job may be under way. The answers do not matter: what is not there is an error.
    pub fn give_up(mut self) -> Vec<Io> {
        let mut requests = self.source.close();
        requests.extend(self.file.map(|file| Io::Close { file }));
        requests.push(Io::Remove { name: self.name });
        requests
    }

    /// Takes records from the source until the budget is spent or there is enough to write.
    fn gather(&mut self, mut completions: Completions, budget: usize) -> Result<Step<RunMeta>, RunError> {
        let mut budget = budget.max(1);
        loop {
            if self.encoder.buffered() >= WRITE_CHUNK_BYTES {
                return Ok(self.write(Phase::Write));
            }
            if budget == 0 {
                return Ok(Step::Again);
            }
            match self.source.next(std::mem::take(&mut completions), budget)? {
                Step::Done(Some(records)) => {
                    for record in &records {
                        self.encoder.push(record)?;
                    }
                    budget = budget.saturating_sub(records.len());
                }
                Step::Done(None) => {
                    let meta = self.encoder.finish();
                    return Ok(self.write(Phase::LastWrite(meta)));
                }
                Step::Again => return Ok(Step::Again),
                Step::Submit(requests) => return Ok(Step::Submit(requests)),
            }
        }
    }

    fn write(&mut self, phase: Phase) -> Step<RunMeta> {
        let (offset, bytes) = self.encoder.take();
        self.submit(phase, |file| Io::Write { file, offset, bytes })
    }

    fn submit(&mut self, phase: Phase, io: impl FnOnce(FileId) -> Io) -> Step<RunMeta> {
        self.phase = phase;
        Step::Submit(vec![io(self.file.expect("it was opened first"))])
    }

    /// The answer to the one request of ours.
    fn answer(&self, completions: Completions) -> Result<IoOutput, RunError> {
        let completion = completions.into_iter().next().expect("one completion for our request");
        let number = self.number;
        completion.map_err(|source| match self.phase {
            Phase::Sync(_) => RunError::Sync { number, source },
            _ => RunError::Io { number, source },
        })
    }
}

impl<S: RecordSource> Job for WriteRun<S> {
    type Output = RunMeta;
    type Error = RunError;

    fn step(&mut self, completions: Completions, budget: usize) -> Result<Step<RunMeta>, RunError> {
        if self.phase == Phase::Gather {
            return self.gather(completions, budget);
        }
        if self.phase == Phase::Start {
            self.phase = Phase::Open;
            return Ok(Step::Submit(vec![Io::Open { name: self.name.clone(), create: true }]));
        }
        let answer = self.answer(completions)?;
        Ok(match self.phase {
            Phase::Open => {
                let IoOutput::Opened { file, .. } = answer else { unreachable!("an open answers Opened") };
                self.file = Some(file);
                self.submit(Phase::Truncate, |file| Io::Truncate { file, length: 0 })
            }
            Phase::LastWrite(meta) => self.submit(Phase::Sync(meta), |file| Io::Sync { file }),
            Phase::Sync(meta) => self.submit(Phase::Close(meta), |file| Io::Close { file }),
            Phase::Close(meta) => Step::Done(meta),
            Phase::Truncate | Phase::Write => {
                self.phase = Phase::Gather;
                Step::Again
            }
            Phase::Start | Phase::Gather => unreachable!("they submit nothing that is answered here"),
        })
    }
}
