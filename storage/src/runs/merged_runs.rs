//! One view of a base run and the runs on top of it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use bytes::Bytes;

use super::cursor::{Advance, RunCursor};
use super::error::RunError;
use super::record::Record;
use super::run_meta::RunMeta;
use crate::disk::Io;
use crate::job::{Completions, Job, Step};

/// Bytes that all cursors together read ahead, as long as each has [`READ_CHUNK_MIN`].
const READ_BYTES_MAX: usize = 16 << 20;
/// The least and the most that a cursor reads at a time.
const READ_CHUNK_MIN: usize = 128 << 10;
const READ_CHUNK_MAX: usize = 1 << 20;

/// What becomes of the removals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removals {
    /// They are records: there is an older run below.
    Keep,
    /// They vanish: the oldest run is the base.
    Drop,
}

/// The records of several runs in key order, of each key the newest.
pub struct MergedRuns {
    /// Oldest first.
    cursors: Vec<RunCursor>,
    removals: Removals,
    /// The heads of cursors, but of those in `starved`: lowest key first, then newest run.
    heads: BinaryHeap<Reverse<(Bytes, Reverse<usize>)>>,
    /// Cursors without a record ahead. While there are any, the lowest key is not known.
    starved: Vec<usize>,
    /// Cursors whose requests are under way, in the order of the requests.
    waiting: Vec<usize>,
    last_key: Option<Bytes>,
}

impl MergedRuns {
    /// A view of `runs` (oldest first) in `directory`. Nothing is read yet.
    pub fn new(directory: &str, runs: &[RunMeta], removals: Removals) -> Self {
        let chunk = (READ_BYTES_MAX / runs.len().max(1)).clamp(READ_CHUNK_MIN, READ_CHUNK_MAX);
        Self {
            cursors: runs.iter().map(|meta| RunCursor::new(directory, *meta, chunk)).collect(),
            removals,
            heads: BinaryHeap::new(),
            starved: (0..runs.len()).collect(),
            waiting: Vec::new(),
            last_key: None,
        }
    }

    /// The job that reads the next records: at least one, at most as many as a step's budget (of records) plus one;
    /// `None` at the end, when all runs were found whole and are closed. It holds no state of its own: a job that
    /// drives it may ask for it anew at every step.
    pub fn next_batch(&mut self) -> NextBatch<'_> {
        NextBatch { runs: self }
    }

    /// What closes the files of runs that were not read to their end, after an error or instead of going on; no
    /// request may be under way.
    pub fn close(&mut self) -> Vec<Io> {
        self.cursors.iter_mut().filter_map(RunCursor::close).collect()
    }

    fn step(&mut self, completions: Completions, budget: usize) -> Result<Step<Option<Vec<Record>>>, RunError> {
        assert!(completions.len() == self.waiting.len(), "one completion for each request");
        // All are taken over before an error counts, so that `close` knows of every file that was opened.
        let waiting = std::mem::take(&mut self.waiting).into_iter().zip(completions);
        let taken: Vec<_> = waiting.map(|(run, completion)| self.cursors[run].complete(completion)).collect();
        taken.into_iter().collect::<Result<(), _>>()?;
        let requests = self.feed()?;
        if !requests.is_empty() {
            return Ok(Step::Submit(requests));
        }
        if !self.starved.is_empty() {
            return Ok(Step::Again);
        }
        let batch = self.merge(budget);
        Ok(match batch.is_empty() {
            false => Step::Done(Some(batch)),
            true if self.heads.is_empty() && self.starved.is_empty() => Step::Done(None),
            true => Step::Again,
        })
    }

    /// Advances every starved cursor by at most a block; what they submit is then waited for.
    fn feed(&mut self) -> Result<Vec<Io>, RunError> {
        let mut requests = Vec::new();
        for run in std::mem::take(&mut self.starved) {
            match self.cursors[run].advance()? {
                Advance::Submit(io) => {
                    requests.push(io);
                    self.waiting.push(run);
                    self.starved.push(run);
                }
                Advance::Ready => self.raise_head(run),
                Advance::End => {}
            }
        }
        Ok(requests)
    }

    fn raise_head(&mut self, run: usize) {
        match self.cursors[run].head() {
            Some(record) => self.heads.push(Reverse((record.key.clone(), Reverse(run)))),
            None => self.starved.push(run),
        }
    }

    /// Takes records until the budget is spent or a cursor starves.
    fn merge(&mut self, budget: usize) -> Vec<Record> {
        let mut batch = Vec::new();
        let mut budget = budget.saturating_add(1);
        while budget > 0
            && self.starved.is_empty()
            && let Some(Reverse((key, Reverse(run)))) = self.heads.pop()
        {
            budget -= 1;
            let record = self.cursors[run].pop().expect("a head is a record ahead");
            self.raise_head(run);
            let newest = self.last_key.as_ref() != Some(&key);
            self.last_key = Some(key);
            if newest && (record.value.is_some() || self.removals == Removals::Keep) {
                batch.push(record);
            }
        }
        batch
    }
}

/// Reads the next records of [`MergedRuns`].
pub struct NextBatch<'a> {
    runs: &'a mut MergedRuns,
}

impl Job for NextBatch<'_> {
    type Output = Option<Vec<Record>>;
    type Error = RunError;

    fn step(&mut self, completions: Completions, budget: usize) -> Result<Step<Self::Output>, RunError> {
        self.runs.step(completions, budget)
    }
}
