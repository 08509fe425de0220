//! The checkpoint thread, piece by piece, and when apply starts one.

use std::time::Duration;

use basalt_storage::checkpoint::manifest::Manifest;
use basalt_storage::checkpoint::{
    Checkpoint, CheckpointError, CheckpointJob, Checkpointer, Filled, RUNS_DIRECTORY, Reserve,
};
use basalt_storage::disk::SimulatedDisk;
use basalt_storage::mvcc::store::Store;
use basalt_storage::runs::run_name;
use rand::rngs::StdRng;

use super::overlaps::Overlaps;
use crate::background::Background;
use crate::opening;
use crate::over::{Over, over};

/// Small, as everything on a simulated disk.
const RESERVE_BYTES: u64 = 16 << 10;

/// Checkpoints, one after another.
pub(super) struct CheckpointSide {
    /// Away while a checkpoint runs.
    checkpointer: Option<Checkpointer>,
    /// The last one.
    manifest: Manifest,
    job: Option<(u64, Background<CheckpointJob>)>,
    /// Of the page files, when the last one began.
    file_bytes: u64,
    reserve: Reserve,
    interval: Duration,
    due: Duration,
    /// Something changed since the last one, or leaves wait to be rewritten.
    pub(super) is_dirty: bool,
    defragmentation: Defragmentation,
}

/// Where a client that asked for a defragmentation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Defragmentation {
    NotAsked,
    /// He waits for the next checkpoint to begin.
    Asked,
    /// He waits for the end of the one that runs.
    Bound,
}

/// How a checkpoint ended.
pub(super) enum Ended {
    /// Durable: its last entry, and its generation of the manifest.
    Durable { applied_index: u64, generation: u64 },
    /// The disk is full.
    Refused,
}

impl CheckpointSide {
    pub(super) fn new(checkpointer: Checkpointer, disk: &SimulatedDisk, interval: Duration, now: Duration) -> Self {
        let mut side = Self {
            is_dirty: !checkpointer.is_tidy(false),
            manifest: checkpointer.manifest().clone(),
            checkpointer: Some(checkpointer),
            job: None,
            file_bytes: 0,
            reserve: Reserve::new(RESERVE_BYTES),
            interval,
            due: now + interval,
            defragmentation: Defragmentation::NotAsked,
        };
        side.hold(disk);
        side
    }

    pub(super) fn is_running(&self) -> bool {
        self.job.is_some()
    }

    pub(super) fn is_syncing(&self) -> bool {
        self.job.as_ref().is_some_and(|(_, job)| job.is_syncing())
    }

    pub(super) fn may_advance(&self, now: Duration) -> bool {
        let asked = self.defragmentation == Defragmentation::Asked;
        self.is_running() || asked || (self.is_dirty && now >= self.due)
    }

    /// A client waits for checkpoints until no leaf is partly dead, unless one does so already.
    pub(super) fn defragment(&mut self) {
        if self.defragmentation == Defragmentation::NotAsked {
            self.defragmentation = Defragmentation::Asked;
        }
    }

    /// Run files that the last manifest names, by name; `None` while a checkpoint runs.
    pub(super) fn named_runs(&self) -> Option<Vec<String>> {
        let manifest = self.checkpointer.as_ref()?.manifest();
        let mut names: Vec<_> = manifest.runs().map(|run| run_name(RUNS_DIRECTORY, run.number)).collect();
        names.sort_unstable();
        Some(names)
    }

    /// The last manifest.
    pub(super) fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Makes another member's state this one's; gives its store and the generation of its manifest.
    pub(super) fn install(&mut self, disk: &SimulatedDisk, filled: Filled) -> Result<(Store, u64), Over> {
        let checkpointer = self.checkpointer.take().expect("no checkpoint runs");
        let opened = checkpointer.install(disk, &opening::page_cache(), filled);
        let opened = opened.map_err(|error| over("installing a state", &error))?;
        self.is_dirty = !opened.checkpointer.is_tidy(false);
        self.manifest = opened.checkpointer.manifest().clone();
        self.checkpointer = Some(opened.checkpointer);
        Ok((opened.store, self.manifest.generation))
    }

    /// Starts one, or goes on with it.
    pub(super) fn advance(
        &mut self,
        disk: &SimulatedDisk,
        random: &mut StdRng,
        now: Duration,
        store: &mut Store,
        seen: &mut Overlaps,
    ) -> Result<Option<Ended>, Over> {
        let Some((applied_index, job)) = &mut self.job else {
            self.begin(store);
            return Ok(None);
        };
        let applied_index = *applied_index;
        let ended = match job.try_advance(disk, random) {
            Ok(None) => return Ok(None),
            Ok(Some(checkpoint)) => {
                let generation = self.ended(disk, checkpoint, store, seen);
                self.hold(disk);
                Ended::Durable { applied_index, generation }
            }
            Err(CheckpointError::NoSpace { checkpointer, frozen, .. }) => {
                self.checkpointer = Some(*checkpointer);
                store.checkpoint_failed(*frozen);
                self.is_dirty = true;
                if self.defragmentation == Defragmentation::Bound {
                    self.defragmentation = Defragmentation::NotAsked;
                }
                // Nothing depends on the reserve: the server warns, and so may a fault pass here.
                drop(self.reserve.release(disk));
                seen.refusals += 1;
                Ended::Refused
            }
            Err(error) => return Err(over("writing a checkpoint", &error)),
        };
        self.job = None;
        self.due = now + self.interval;
        Ok(Some(ended))
    }

    fn begin(&mut self, store: &mut Store) {
        self.is_dirty = false;
        let mut frozen = store.freeze();
        if self.defragmentation == Defragmentation::Asked {
            self.defragmentation = Defragmentation::Bound;
            frozen.rewrite_all = true;
        }
        let applied_index = frozen.applied.index;
        let checkpointer = self.checkpointer.take().expect("one checkpoint at a time");
        self.file_bytes = checkpointer.file_bytes();
        let job = Background::new(checkpointer.begin(frozen));
        self.job = Some((applied_index, job));
    }

    /// One is durable; gives its generation.
    fn ended(&mut self, disk: &SimulatedDisk, checkpoint: Checkpoint, store: &mut Store, seen: &mut Overlaps) -> u64 {
        let Checkpoint { mut checkpointer, checkpointed, tidy, .. } = checkpoint;
        store.checkpointed(checkpointed);
        self.is_dirty |= !tidy;
        if self.defragmentation == Defragmentation::Bound {
            self.defragmentation = if tidy { Defragmentation::NotAsked } else { Defragmentation::Asked };
            seen.defragmentations += usize::from(tidy);
        }
        seen.checkpoints += 1;
        seen.shrinks += usize::from(checkpointer.file_bytes() < self.file_bytes);
        self.manifest = checkpointer.manifest().clone();
        // What is left is removed by the next start.
        drop(checkpointer.remove_retired(disk));
        self.checkpointer = Some(checkpointer);
        self.manifest.generation
    }

    fn hold(&mut self, disk: &SimulatedDisk) {
        drop(self.reserve.hold(disk));
    }
}
