//! Who owns the files between two checkpoints: page writers, runs and the last durable manifest.

use std::io;
use std::sync::Arc;

use thiserror::Error;

use crate::disk::{Disk, FileId, Io};
use crate::job::{BUDGET_UNLIMITED, run};
use crate::mvcc::store::Frozen;
use crate::pages::allocator::Readers;
use crate::pages::{PageCache, PageWriter, RewriteLimits};
use crate::runs::{RunMeta, run_name};

use super::filling::Filled;
use super::job::CheckpointJob;
use super::manifest::{Manifest, ManifestError, write_job};
use super::recovery::{Opened, RecoveryError, open_manifest, perform};

/// Where runs lie.
pub const RUNS_DIRECTORY: &str = "runs";
/// Where page files lie.
pub const PAGES_DIRECTORY: &str = "pages";

/// The name of a page file.
pub fn page_file_name(number: u64) -> String {
    format!("{PAGES_DIRECTORY}/shard-{number:016x}")
}

/// Files of one shard.
pub struct ShardFiles {
    /// The page file.
    pub writer: PageWriter,
    /// Its index: base first.
    pub index_runs: Vec<RunMeta>,
}

/// Makes checkpoints, one after another.
pub struct Checkpointer {
    /// The last durable manifest.
    pub(super) manifest: Manifest,
    /// One for each shard.
    pub(super) shards: Vec<ShardFiles>,
    /// The next number for a run file.
    pub(super) next_run: u64,
    /// Source of salts; seeded by whoever opens the store.
    pub(super) salt: Salt,
    /// Files of stores before this one, which somebody may still read.
    retired: Vec<RetiredFile>,
}

/// A page file of a store that another one took the place of.
struct RetiredFile {
    number: u64,
    file: FileId,
    readers: Arc<Readers>,
}

/// Why a state of another member could not be installed.
#[derive(Debug, Error)]
pub enum InstallError {
    /// Its files cannot be opened, or the disk failed.
    #[error(transparent)]
    Directory(#[from] RecoveryError),
    /// The manifest cannot be written.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
}

impl std::fmt::Debug for Checkpointer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checkpointer").field("generation", &self.manifest.generation).finish_non_exhaustive()
    }
}

/// A seeded sequence: salts must differ, not surprise.
#[derive(Clone, Debug)]
pub struct Salt(u64);

impl Salt {
    /// A sequence from a random seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next (SplitMix64, Steele et al. 2014).
    pub(super) fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl Checkpointer {
    pub(super) fn new(manifest: Manifest, shards: Vec<ShardFiles>, salt: Salt) -> Self {
        let next_run = manifest.runs().map(|run| run.number + 1).max().unwrap_or(1);
        Self { manifest, shards, next_run, salt, retired: Vec::new() }
    }

    /// Makes `filled` the state of this directory, with one manifest: before it is durable the old state stands, after it
    /// the new one. The store of the old one must not be checkpointed any more; Views of it can be read on.
    ///
    /// # Errors
    /// [`InstallError`]; the node must stop, and its next start finds the old state or the new one.
    pub fn install(self, disk: &dyn Disk, cache: &Arc<PageCache>, filled: Filled) -> Result<Opened, InstallError> {
        let Self { manifest: old, shards, mut salt, mut retired, .. } = self;
        let mut manifest = filled.manifest;
        manifest.generation = old.generation + 1;
        (manifest.cluster_id, manifest.member_id, manifest.incarnation) =
            (old.cluster_id, old.member_id, old.incarnation);
        manifest.log_restarts = true;
        for directory in [PAGES_DIRECTORY, RUNS_DIRECTORY] {
            perform(disk, "syncing", directory, Io::SyncDir { directory: directory.to_owned() })?;
        }
        run(&mut write_job(&manifest)?, disk, BUDGET_UNLIMITED)?;
        let salt = Salt::new(salt.draw());
        let mut opened = open_manifest(disk, cache, salt, manifest, false)?;
        for run in old.runs() {
            let name = run_name(RUNS_DIRECTORY, run.number);
            perform(disk, "removing", &name, Io::Remove { name: name.clone() })?;
        }
        retired.extend(old.shards.iter().zip(&shards).map(|(named, shard)| RetiredFile {
            number: named.page_file,
            file: shard.writer.pages().file(),
            readers: shard.writer.readers(),
        }));
        opened.checkpointer.retired = retired;
        Ok(opened)
    }

    /// Removes files of stores before this one that nobody reads any more.
    ///
    /// # Errors
    /// The disk's; what is left costs space until the next start.
    pub fn remove_retired(&mut self, disk: &dyn Disk) -> io::Result<()> {
        let (read, unread) = std::mem::take(&mut self.retired).into_iter().partition(|file| file.readers.are_there());
        self.retired = read;
        let unread: Vec<RetiredFile> = unread;
        for RetiredFile { number, file, .. } in unread {
            disk.perform(Io::Close { file })?;
            disk.perform(Io::Remove { name: page_file_name(number) })?;
        }
        Ok(())
    }

    /// The last durable manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Bytes of all page files.
    pub fn file_bytes(&self) -> u64 {
        self.shard_file_bytes().map(|(_, bytes)| bytes).sum()
    }

    /// Bytes of each shard's page file, by the shard's name.
    pub fn shard_file_bytes(&self) -> impl Iterator<Item = (&str, u64)> {
        let bytes = |shard: &ShardFiles| shard.writer.file_pages() * crate::pages::allocator::PAGE_SIZE as u64;
        self.manifest.shards.iter().map(|shard| shard.name.as_str()).zip(self.shards.iter().map(bytes))
    }

    /// Stored bytes of revisions that are not marked dead.
    pub fn live_bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.writer.root().live_bytes).sum()
    }

    /// Whether a checkpoint without changes has nothing to rewrite: of the partly dead leaves `all`, or as many as keep
    /// files within bounds.
    pub fn is_tidy(&self, all: bool) -> bool {
        let limits = |writer: &PageWriter| {
            if all { RewriteLimits::ALL } else { RewriteLimits::paced(writer.root(), 0) }
        };
        self.shards.iter().all(|shard| shard.writer.is_tidy_by(&limits(&shard.writer)))
    }

    /// Writes `frozen`.
    pub fn begin(self, frozen: Frozen) -> CheckpointJob {
        CheckpointJob::new(self, frozen)
    }

    pub(super) fn draw_run(&mut self) -> (u64, u64) {
        let number = self.next_run;
        self.next_run += 1;
        (number, self.salt.draw())
    }
}
