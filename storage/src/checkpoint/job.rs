//! A checkpoint as a job: pages and index of every shard, then `system`, then the names, then the manifest.
//!
//! Until the manifest is durable nothing that the last one names was changed, so that a crash at any point leaves the
//! last checkpoint; the log has the rest.

use std::io;

use thiserror::Error;

use crate::disk::{Io, IoOutput, is_full};
use crate::job::{Completions, Job, Step};
use crate::mvcc::store::{Frozen, FrozenShard};
use crate::mvcc::view::Checkpointed;
use crate::pages::allocator::{MapRoot, TransactionId};
use crate::pages::{
    Commit, CommitError, CommitFailure, Committed, NewEntry, PageWriter, RewriteLimits, SharedRoot, TreeChanges,
    TreeRoot,
};
use crate::planted::{Bug, is_planted};
use crate::revision::Revision;
use crate::runs::{MergedRuns, Record, Records, Removals, RunError, RunMeta, WriteRun, run_name};

use super::changed_keys::ChangedKeys;
use super::checkpointer::{Checkpointer, PAGES_DIRECTORY, RUNS_DIRECTORY, ShardFiles};
use super::manifest::{Manifest, ManifestError, WriteManifest, write_job};
use super::merge_rule::merge_from;

/// A finished checkpoint.
pub struct Checkpoint {
    /// For the next one.
    pub checkpointer: Checkpointer,
    /// The shards as reads find them from now on.
    pub checkpointed: Vec<Checkpointed>,
    /// Revisions written to pages.
    pub entries: usize,
    /// Whether no leaf waits to be rewritten; else a checkpoint without changes goes on with it.
    pub tidy: bool,
}

/// Why a checkpoint did not come about.
#[derive(Debug, Error)]
pub enum CheckpointError {
    /// The disk is full. The last checkpoint stands, and what was frozen goes back to the store.
    #[error("no space for a checkpoint")]
    NoSpace {
        /// For the next attempt.
        checkpointer: Box<Checkpointer>,
        /// For [`crate::mvcc::store::Store::checkpoint_failed`].
        frozen: Box<Frozen>,
        /// What the disk said.
        #[source]
        cause: io::Error,
    },
    /// Writing pages failed in a way that does not pass.
    #[error("writing pages of shard {shard:?}")]
    Pages {
        /// Its name.
        shard: String,
        /// Why.
        #[source]
        cause: CommitFailure,
    },
    /// Writing or merging a run failed.
    #[error(transparent)]
    Run(#[from] RunError),
    /// Writing the manifest failed.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A directory could not be synced.
    #[error("syncing a directory")]
    Sync(#[source] io::Error),
}

/// What a shard's commit gave; `None` for one that nothing changed.
type ShardOutcome = Option<(SharedRoot, MapRoot)>;

enum Stage {
    /// Looks what the next shard needs; after the last one, `system`.
    NextShard,
    Commit(Box<Commit>),
    IndexRun(Box<WriteRun<ChangedKeys>>),
    IndexMerge(Box<WriteRun<MergedRuns>>),
    SystemRun(Box<WriteRun<Records<std::vec::IntoIter<Record>>>>),
    SystemMerge(Box<WriteRun<MergedRuns>>),
    SyncDirectories,
    Manifest(Box<Manifest>, WriteManifest),
    RemoveSurplus,
    /// Closes and removes what a refused attempt left, then fails.
    Refuse(Box<CheckpointError>),
}

/// The job.
pub struct CheckpointJob {
    /// There until the end, but for the writer that a running commit holds.
    checkpointer: Option<Checkpointer>,
    /// Writers of the shards that are done or to come; the running commit holds the missing one.
    writers: Vec<Option<PageWriter>>,
    frozen: Option<Frozen>,
    stage: Stage,
    shard: usize,
    outcomes: Vec<ShardOutcome>,
    index_runs: Vec<Vec<RunMeta>>,
    system_runs: Vec<RunMeta>,
    /// Runs from this number on are of this attempt.
    first_run: u64,
    entries: usize,
}

impl CheckpointJob {
    pub(super) fn new(mut checkpointer: Checkpointer, frozen: Frozen) -> Self {
        assert_eq!(frozen.shards.len(), checkpointer.shards.len(), "a checkpoint covers all shards");
        let shards = std::mem::take(&mut checkpointer.shards);
        let (writers, index_runs) = shards.into_iter().map(|shard| (Some(shard.writer), shard.index_runs)).unzip();
        let system_runs = checkpointer.manifest.system_runs.clone();
        Self {
            first_run: checkpointer.next_run,
            checkpointer: Some(checkpointer),
            writers,
            frozen: Some(frozen),
            stage: Stage::NextShard,
            shard: 0,
            outcomes: Vec::new(),
            index_runs,
            system_runs,
            entries: 0,
        }
    }

    fn checkpointer(&mut self) -> &mut Checkpointer {
        self.checkpointer.as_mut().expect("there until the end")
    }

    fn frozen(&self) -> &Frozen {
        self.frozen.as_ref().expect("there until the end")
    }

    /// Begins the next shard, or `system` after the last.
    fn next_shard(&mut self) -> Stage {
        let Some(shard) = self.frozen().shards.get(self.shard) else { return self.system_run() };
        let writer = self.writers[self.shard].as_ref().expect("one commit a shard");
        let changes = changes(shard, writer.root(), self.frozen().rewrite_all);
        let tidy = writer.is_tidy_by(&changes.rewrite);
        if changes.appended.is_empty() && changes.dead.is_empty() && tidy {
            self.outcomes.push(None);
            return self.index_run();
        }
        self.entries += changes.appended.len();
        let writer = self.writers[self.shard].take().expect("one commit a shard");
        let transaction = TransactionId(writer.root().transaction.0 + 1);
        Stage::Commit(Box::new(writer.commit(transaction, changes)))
    }

    fn committed(&mut self, committed: Committed) -> Stage {
        self.writers[self.shard] = Some(committed.writer);
        self.outcomes.push(Some((committed.root, committed.map_root)));
        self.index_run()
    }

    fn index_run(&mut self) -> Stage {
        let after = self.checkpointer().manifest.revision;
        let shard = &self.frozen().shards[self.shard];
        if shard.frozen.is_empty() && shard.removed_keys.is_empty() {
            self.shard += 1;
            return Stage::NextShard;
        }
        let source = ChangedKeys::new(shard.index.clone(), after, shard.removed_keys.clone());
        let (number, salt) = self.checkpointer().draw_run();
        Stage::IndexRun(Box::new(WriteRun::new(RUNS_DIRECTORY, number, salt, source)))
    }

    fn index_run_written(&mut self, run: RunMeta) -> Stage {
        self.index_runs[self.shard].push(run);
        if let Some(from) = merge_from(&self.index_runs[self.shard]) {
            let runs = self.index_runs[self.shard].split_off(from);
            return Stage::IndexMerge(Box::new(self.merge(&runs, from)));
        }
        self.shard += 1;
        Stage::NextShard
    }

    /// Merges the newest runs of a list, those from `from` on.
    fn merge(&mut self, runs: &[RunMeta], from: usize) -> WriteRun<MergedRuns> {
        let (number, salt) = self.checkpointer().draw_run();
        let removals = if from == 0 { Removals::Drop } else { Removals::Keep };
        WriteRun::merge(RUNS_DIRECTORY, number, salt, runs, removals)
    }

    fn index_merged(&mut self, merged: RunMeta) -> Stage {
        self.index_runs[self.shard].push(merged);
        self.shard += 1;
        Stage::NextShard
    }

    fn system_run(&mut self) -> Stage {
        let touched = &self.frozen().system;
        if touched.is_empty() {
            return Stage::SyncDirectories;
        }
        let record =
            |(key, value): &(Vec<u8>, Option<bytes::Bytes>)| Record { key: key.clone().into(), value: value.clone() };
        let records: Vec<_> = touched.iter().map(record).collect();
        let (number, salt) = self.checkpointer().draw_run();
        Stage::SystemRun(Box::new(WriteRun::from_records(RUNS_DIRECTORY, number, salt, records.into_iter())))
    }

    fn system_run_written(&mut self, run: RunMeta) -> Stage {
        self.system_runs.push(run);
        if let Some(from) = merge_from(&self.system_runs) {
            let runs = self.system_runs.split_off(from);
            return Stage::SystemMerge(Box::new(self.merge(&runs, from)));
        }
        Stage::SyncDirectories
    }

    /// The manifest of this checkpoint, and the job that writes it.
    fn manifest(&mut self) -> Result<Stage, CheckpointError> {
        let mut manifest = self.checkpointer().manifest.clone();
        let frozen = self.frozen();
        manifest.generation += 1;
        manifest.version = frozen.version;
        // Whatever was applied since stands in the log behind that place.
        manifest.log_restarts &= manifest.applied_index == frozen.applied.index;
        manifest.applied_index = frozen.applied.index;
        manifest.applied_term = frozen.applied.term;
        manifest.conf_state = frozen.conf_state.to_vec();
        manifest.revision = frozen.revision;
        manifest.compact_revision = frozen.compact_revision;
        manifest.time_unix_ns = u64::try_from(frozen.time_unix_ns).unwrap_or(0);
        manifest.system_sum = frozen.system_sum.0;
        manifest.system_runs = self.system_runs.clone();
        for (shard, frozen) in manifest.shards.iter_mut().zip(&frozen.shards) {
            shard.sum = frozen.sum.0;
        }
        for ((shard, outcome), runs) in manifest.shards.iter_mut().zip(&self.outcomes).zip(&self.index_runs) {
            shard.index_runs = runs.clone();
            if let Some((root, map_root)) = outcome {
                let root: &TreeRoot = &root.root;
                shard.transaction = root.transaction;
                shard.tree_root = root.encode().to_vec();
                shard.map_root = map_root.encode().to_vec();
                shard.live_bytes = root.live_bytes;
                shard.entries = root.entries;
            }
        }
        let job = write_job(&manifest)?;
        Ok(Stage::Manifest(Box::new(manifest), job))
    }

    /// Run files that only the manifest before named, and those of this attempt that were merged into others.
    fn superseded_runs(&mut self, manifest: &Manifest) -> Vec<u64> {
        let named = |manifest: &Manifest| -> Vec<u64> { manifest.runs().map(|run| run.number).collect() };
        let now = named(manifest);
        let before = named(&self.checkpointer().manifest).into_iter().chain(self.runs_of_attempt());
        before.filter(|number| !now.contains(number)).collect()
    }

    fn runs_of_attempt(&mut self) -> std::ops::Range<u64> {
        self.first_run..self.checkpointer().next_run
    }

    /// The manifest is durable: it is the state from now on.
    fn manifest_written(&mut self, manifest: Manifest) -> Step<Checkpoint> {
        let mut surplus: Vec<Io> = self.superseded_runs(&manifest).into_iter().map(remove_run).collect();
        for (writer, outcome) in self.writers.iter_mut().zip(&self.outcomes) {
            if outcome.is_some() {
                let writer = writer.as_mut().expect("all commits ended");
                writer.committed();
                surplus.extend(writer.cut());
            }
        }
        self.checkpointer().manifest = manifest;
        self.stage = Stage::RemoveSurplus;
        Step::Submit(surplus)
    }

    fn finish(&mut self) -> Checkpoint {
        let mut checkpointer = self.checkpointer.take().expect("the job ends once");
        let writers = std::mem::take(&mut self.writers).into_iter().map(|writer| writer.expect("all commits ended"));
        let shards = writers.zip(std::mem::take(&mut self.index_runs));
        checkpointer.shards = shards.map(|(writer, index_runs)| ShardFiles { writer, index_runs }).collect();
        let outcomes = std::mem::take(&mut self.outcomes).into_iter().zip(&checkpointer.shards);
        let checkpointed = outcomes.map(|(outcome, shard)| Checkpointed {
            pages: shard.writer.pages().clone(),
            root: outcome.map_or_else(|| shard.writer.pinned_root(), |(root, _)| root),
        });
        let checkpointed = checkpointed.collect();
        let tidy = checkpointer.is_tidy(self.frozen().rewrite_all);
        Checkpoint { checkpointer, checkpointed, entries: self.entries, tidy }
    }

    /// The disk is full: closes what is open and removes the runs of this attempt, then gives everything else back. An
    /// attempt that left them would eat, every few seconds, what somebody frees.
    fn refuse(&mut self, mut leftovers: Vec<Io>, writer: Option<PageWriter>, cause: io::Error) -> Step<Checkpoint> {
        leftovers.extend(self.runs_of_attempt().map(remove_run));
        let refusal = self.give_up(writer, cause);
        self.stage = Stage::Refuse(Box::new(refusal));
        Step::Submit(leftovers)
    }

    /// Gives everything back as it was before the attempt.
    fn give_up(&mut self, writer: Option<PageWriter>, cause: io::Error) -> CheckpointError {
        if writer.is_some() {
            self.writers[self.shard] = writer;
        }
        for (writer, outcome) in self.writers.iter_mut().zip(&self.outcomes) {
            if outcome.is_some() {
                writer.as_mut().expect("its commit ended").abandoned();
            }
        }
        let mut checkpointer = self.checkpointer.take().expect("the job ends once");
        // No manifest named these numbers, so that the next attempt may take them again.
        checkpointer.next_run = self.first_run;
        let runs_before = checkpointer.manifest.shards.iter().map(|shard| shard.index_runs.clone());
        let writers = std::mem::take(&mut self.writers).into_iter().map(|writer| writer.expect("given back"));
        checkpointer.shards = writers
            .zip(runs_before.collect::<Vec<_>>())
            .map(|(writer, index_runs)| ShardFiles { writer, index_runs })
            .collect();
        let frozen = Box::new(self.frozen.take().expect("the job ends once"));
        CheckpointError::NoSpace { checkpointer: Box::new(checkpointer), frozen, cause }
    }

    fn commit_failed(&mut self, error: CommitError) -> Result<Step<Checkpoint>, CheckpointError> {
        match (error.writer, error.cause) {
            (Some(writer), CommitFailure::NoSpace(cause)) => Ok(self.refuse(Vec::new(), Some(*writer), cause)),
            (_, cause) => {
                let shard = self.shard;
                let shard = self.checkpointer().manifest.shards[shard].name.clone();
                Err(CheckpointError::Pages { shard, cause })
            }
        }
    }

    fn run_failed(&mut self, error: RunError) -> Result<Step<Checkpoint>, CheckpointError> {
        let cause = match error {
            RunError::Io { source, .. } if is_full(&source) => source,
            other => return Err(CheckpointError::Run(other)),
        };
        // Its file is removed with the other runs of the attempt.
        let leftovers = match std::mem::replace(&mut self.stage, Stage::NextShard) {
            Stage::IndexRun(run) => run.give_up(),
            Stage::SystemRun(run) => run.give_up(),
            Stage::IndexMerge(run) | Stage::SystemMerge(run) => run.give_up(),
            _ => Vec::new(),
        };
        Ok(self.refuse(leftovers, None, cause))
    }
}

impl Job for CheckpointJob {
    type Output = Checkpoint;
    type Error = CheckpointError;

    /// The budget's units are those of the part at work: leaves to mark, records of a run.
    fn step(&mut self, completions: Completions, budget: usize) -> Result<Step<Checkpoint>, CheckpointError> {
        // A part that ends gives the stage after it; one that goes on gives its step.
        macro_rules! part {
            ($job:expr, $failed:ident, $done:ident) => {
                match $job.step(completions, budget) {
                    Ok(Step::Again) => return Ok(Step::Again),
                    Ok(Step::Submit(requests)) => return Ok(Step::Submit(requests)),
                    Ok(Step::Done(output)) => self.$done(output),
                    Err(error) => return self.$failed(error),
                }
            };
        }
        self.stage = match &mut self.stage {
            Stage::NextShard => self.next_shard(),
            Stage::Commit(job) => part!(job, commit_failed, committed),
            Stage::IndexRun(job) => part!(job, run_failed, index_run_written),
            Stage::IndexMerge(job) => part!(job, run_failed, index_merged),
            Stage::SystemRun(job) => part!(job, run_failed, system_run_written),
            Stage::SystemMerge(job) => part!(job, run_failed, system_merged),
            Stage::SyncDirectories if completions.is_empty() && !is_planted(Bug::RunNamesUnsynced) => {
                let sync = |directory: &str| Io::SyncDir { directory: directory.to_owned() };
                return Ok(Step::Submit(vec![sync(PAGES_DIRECTORY), sync(RUNS_DIRECTORY)]));
            }
            Stage::SyncDirectories => {
                completions.into_iter().try_for_each(|done| done.map(drop)).map_err(CheckpointError::Sync)?;
                self.manifest()?
            }
            Stage::Manifest(manifest, job) => match job.step(completions, budget)? {
                Step::Again => return Ok(Step::Again),
                Step::Submit(requests) => return Ok(Step::Submit(requests)),
                Step::Done(()) => {
                    let manifest = std::mem::take(&mut **manifest);
                    return Ok(self.manifest_written(manifest));
                }
            },
            Stage::RemoveSurplus => {
                log_leftovers(&completions);
                return Ok(Step::Done(self.finish()));
            }
            Stage::Refuse(_) => {
                let Stage::Refuse(refusal) = std::mem::replace(&mut self.stage, Stage::NextShard) else {
                    unreachable!("it was looked at just now");
                };
                return Err(*refusal);
            }
        };
        Ok(Step::Again)
    }
}

impl CheckpointJob {
    fn system_merged(&mut self, merged: RunMeta) -> Stage {
        self.system_runs.push(merged);
        Stage::SyncDirectories
    }
}

/// A run that could not be removed, or a file that could not be cut, costs space only; the next start does it.
fn log_leftovers(completions: &[io::Result<IoOutput>]) {
    for error in completions.iter().filter_map(|completion| completion.as_ref().err()) {
        tracing::warn!(%error, "what an old checkpoint needed stays until the next start");
    }
}

fn remove_run(number: u64) -> Io {
    Io::Remove { name: run_name(RUNS_DIRECTORY, number) }
}

/// What a shard's tree gets. A revision that died before it was ever written is not written.
fn changes(shard: &FrozenShard, root: &TreeRoot, rewrite_all: bool) -> TreeChanges {
    let mut dead = shard.dead.clone();
    dead.sort_unstable();
    let mut died = dead.iter().peekable();
    let mut lives = |revision: &Revision| {
        while died.next_if(|dead| *dead < revision).is_some() {}
        died.peek() != Some(&revision)
    };
    let appended = shard.frozen.iter().filter(|entry| lives(&entry.revision)).map(|entry| NewEntry {
        revision: entry.revision,
        tombstone: entry.tombstone,
        previous: entry.previous,
        key_value: entry.key_value.clone(),
    });
    let appended: Vec<_> = appended.collect();
    let appended_bytes = appended.iter().map(|entry| entry.stored_bytes() as u64).sum();
    let rewrite = if rewrite_all { RewriteLimits::ALL } else { RewriteLimits::paced(root, appended_bytes) };
    TreeChanges { appended, dead, rewrite }
}
