//! Opening a data directory: what the manifest names, and nothing else (DESIGN 3.5). The log is replayed on top by
//! whoever applies entries.

use std::io;
use std::sync::Arc;

use thiserror::Error;

use crate::disk::{Disk, FileId, Io, IoOutput};
use crate::job::{BUDGET_UNLIMITED, Job, run};
use crate::mvcc::key_index::{IndexBuilder, KeyIndex, KeyIndexError};
use crate::mvcc::shard_map::{ShardMap, ShardSpec};
use crate::mvcc::store::{FIRST_REVISION, NEVER_COMPACTED, Store, StoreState};
use crate::mvcc::system::System;
use crate::mvcc::view::{Checkpointed, LogPosition};
use crate::pages::allocator::{AllocatorError, MapRoot};
use crate::pages::{FileTag, PageCache, PageWriter, Pages, PagesError, TreeRoot};
use crate::runs::{MergedRuns, Removals, RunError, RunMeta, run_name};

use super::checkpointer::{Checkpointer, PAGES_DIRECTORY, RUNS_DIRECTORY, Salt, ShardFiles, page_file_name};
use super::manifest::{Manifest, ManifestError, ShardManifest, read_job, write_job};

/// Why a data directory cannot be opened. Nothing in it was changed.
#[derive(Debug, Error)]
pub enum RecoveryError {
    /// The disk failed.
    #[error("{doing} {name:?} failed; check the disk, and restore a snapshot if the file is gone")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On which file or directory.
        name: String,
        /// What the disk said.
        #[source]
        cause: io::Error,
    },
    /// The manifest cannot be read.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// There is no valid manifest where one was.
    #[error("all copies of the manifest are damaged; put an undamaged file back, or restore a snapshot")]
    ManifestLost,
    /// A root in the manifest is none.
    #[error("the manifest names a damaged page tree; restore a snapshot")]
    Tree(#[from] PagesError),
    /// A root in the manifest is none.
    #[error("the manifest names a damaged page map; restore a snapshot")]
    Map(#[from] AllocatorError),
    /// A run is damaged, or newer than this release.
    #[error(transparent)]
    Run(RunError),
    /// A record of an index run is damaged.
    #[error("the index of shard {shard} is damaged; restore a snapshot")]
    Index {
        /// Whose index.
        shard: u32,
        /// What is wrong.
        #[source]
        cause: KeyIndexError,
    },
    /// A system record belongs to no table of this release.
    #[error("a system record belongs to no table that this release knows; start the release that wrote it")]
    UnknownTable,
}

impl From<RunError> for RecoveryError {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Io { number, source } => {
                Self::Io { doing: "reading", name: run_name(RUNS_DIRECTORY, number), cause: source }
            }
            other => Self::Run(other),
        }
    }
}

/// Who a new data directory belongs to.
#[derive(Clone, Debug)]
pub struct Birth {
    /// The cluster.
    pub cluster_id: u64,
    /// The member.
    pub member_id: u64,
    /// Drawn at random once in the life of the directory.
    pub incarnation: u128,
    /// Raft's first configuration, encoded.
    pub conf_state: Vec<u8>,
    /// How keys are split.
    pub shard_map: ShardMap,
}

/// An opened data directory.
pub struct Opened {
    /// The state of the last checkpoint.
    pub store: Store,
    /// Makes the next ones.
    pub checkpointer: Checkpointer,
    /// Whether a newer manifest may have been lost: the log must be asked (see
    /// [`super::manifest::ManifestFound::damaged`]).
    pub manifest_damaged: bool,
}

/// Opens what the manifest names, and changes nothing: whether it is the newest one only the log can tell.
///
/// # Errors
/// [`RecoveryError`]; `Ok(None)` for a directory in which basalt never was.
pub fn open(disk: &dyn Disk, cache: &Arc<PageCache>, salt: Salt) -> Result<Option<Opened>, RecoveryError> {
    let found = run(&mut read_job(), disk, BUDGET_UNLIMITED)?;
    let Some(manifest) = found.manifest else {
        return if found.damaged { Err(RecoveryError::ManifestLost) } else { Ok(None) };
    };
    open_manifest(disk, cache, salt, manifest, found.damaged).map(Some)
}

/// Makes a new data directory: empty files, and a manifest of generation 1 that names them.
///
/// # Errors
/// [`RecoveryError`].
pub fn create(disk: &dyn Disk, cache: &Arc<PageCache>, salt: Salt, birth: Birth) -> Result<Opened, RecoveryError> {
    for name in [PAGES_DIRECTORY, RUNS_DIRECTORY] {
        perform(disk, "creating", name, Io::CreateDir { name: name.to_owned() })?;
    }
    let shards = (0u32..).zip(birth.shard_map.shards()).map(|(shard, spec)| ShardManifest {
        shard,
        name: spec.name.clone(),
        prefixes: spec.prefixes.clone(),
        page_file: u64::from(shard) + 1,
        ..ShardManifest::default()
    });
    let manifest = Manifest {
        generation: 1,
        cluster_id: birth.cluster_id,
        member_id: birth.member_id,
        incarnation: birth.incarnation,
        conf_state: birth.conf_state,
        revision: FIRST_REVISION,
        compact_revision: NEVER_COMPACTED,
        shards: shards.collect(),
        ..Manifest::default()
    };
    for shard in &manifest.shards {
        let file = open_file(disk, &page_file_name(shard.page_file), true)?;
        perform(disk, "syncing", &page_file_name(shard.page_file), Io::Sync { file })?;
        perform(disk, "closing", &page_file_name(shard.page_file), Io::Close { file })?;
    }
    for directory in [PAGES_DIRECTORY, RUNS_DIRECTORY, ""] {
        perform(disk, "syncing", directory, Io::SyncDir { directory: directory.to_owned() })?;
    }
    run(&mut write_job(&manifest)?, disk, BUDGET_UNLIMITED)?;
    open_manifest(disk, cache, salt, manifest, false)
}

fn open_manifest(
    disk: &dyn Disk,
    cache: &Arc<PageCache>,
    salt: Salt,
    manifest: Manifest,
    manifest_damaged: bool,
) -> Result<Opened, RecoveryError> {
    let mut shards = Vec::new();
    let mut files = Vec::new();
    for shard in &manifest.shards {
        let writer = open_pages(disk, cache, shard)?;
        let index = load_index(disk, shard)?;
        let checkpointed = Checkpointed { pages: writer.pages().clone(), root: writer.pinned_root() };
        shards.push((index, checkpointed));
        files.push(ShardFiles { writer, index_runs: shard.index_runs.clone() });
    }
    let specs = manifest.shards.iter();
    let specs = specs.map(|shard| ShardSpec { name: shard.name.clone(), prefixes: shard.prefixes.clone() });
    let store = Store::new(StoreState {
        shard_map: ShardMap::new(specs.collect()),
        shards,
        system: load_system(disk, &manifest.system_runs)?,
        revision: manifest.revision,
        compact_revision: manifest.compact_revision,
        applied: LogPosition { index: manifest.applied_index, term: manifest.applied_term },
        time_unix_ns: i64::try_from(manifest.time_unix_ns).unwrap_or(i64::MAX),
    });
    Ok(Opened { store, checkpointer: Checkpointer::new(manifest, files, salt), manifest_damaged })
}

fn open_pages(disk: &dyn Disk, cache: &Arc<PageCache>, shard: &ShardManifest) -> Result<PageWriter, RecoveryError> {
    let file = open_file(disk, &page_file_name(shard.page_file), false)?;
    let pages = Pages::new(file, FileTag(shard.page_file), cache.clone());
    if shard.tree_root.is_empty() {
        return Ok(PageWriter::create(pages));
    }
    let map_root = MapRoot::decode(&shard.map_root)?;
    Ok(PageWriter::open(pages, TreeRoot::decode(&shard.tree_root)?, map_root)?)
}

/// Loads an index bottom-up from its runs, reading no values.
fn load_index(disk: &dyn Disk, shard: &ShardManifest) -> Result<KeyIndex, RecoveryError> {
    let mut builder = IndexBuilder::new();
    for_each_record(disk, &shard.index_runs, |key, value| {
        builder.push(key, &value).map_err(|cause| RecoveryError::Index { shard: shard.shard, cause })
    })?;
    Ok(builder.finish())
}

fn load_system(disk: &dyn Disk, runs: &[RunMeta]) -> Result<System, RecoveryError> {
    let mut system = System::default();
    for_each_record(
        disk,
        runs,
        |key, value| {
            if system.restore(key, value) { Ok(()) } else { Err(RecoveryError::UnknownTable) }
        },
    )?;
    Ok(system)
}

fn for_each_record(
    disk: &dyn Disk,
    runs: &[RunMeta],
    mut visit: impl FnMut(&[u8], bytes::Bytes) -> Result<(), RecoveryError>,
) -> Result<(), RecoveryError> {
    let mut merged = MergedRuns::new(RUNS_DIRECTORY, runs, Removals::Drop);
    while let Some(records) = next_batch(&mut merged, disk)? {
        for record in records {
            if let Some(value) = record.value {
                visit(&record.key, value)?;
            }
        }
    }
    Ok(())
}

fn next_batch(merged: &mut MergedRuns, disk: &dyn Disk) -> Result<Option<Vec<crate::runs::Record>>, RunError> {
    const BATCH_RECORDS: usize = 1024;
    let mut job = merged.next_batch();
    let mut completions = Vec::new();
    loop {
        match job.step(std::mem::take(&mut completions), BATCH_RECORDS)? {
            crate::job::Step::Again => {}
            crate::job::Step::Submit(requests) => {
                completions = requests.into_iter().map(|io| disk.perform(io)).collect();
            }
            crate::job::Step::Done(batch) => return Ok(batch),
        }
    }
}

/// Removes what a crash left: runs that `manifest` does not name. Other files there are somebody's, and stay.
///
/// To be called once the log has agreed that there was no newer manifest, and before the next checkpoint: a manifest that
/// was lost may name these runs, and can still be put back.
///
/// # Errors
/// [`RecoveryError::Io`].
pub fn remove_unnamed_runs(disk: &dyn Disk, manifest: &Manifest) -> Result<(), RecoveryError> {
    let runs = manifest.shards.iter().flat_map(|shard| &shard.index_runs).chain(&manifest.system_runs);
    let named: Vec<String> = runs.map(|run| run_name("", run.number)).collect();
    let listed = perform(disk, "listing", RUNS_DIRECTORY, Io::List { directory: RUNS_DIRECTORY.to_owned() })?;
    let IoOutput::Names(names) = listed else { return Ok(()) };
    for name in names.iter().filter(|name| is_run(name) && !named.contains(name)) {
        let name = format!("{RUNS_DIRECTORY}/{name}");
        perform(disk, "removing", &name, Io::Remove { name: name.clone() })?;
    }
    Ok(())
}

fn is_run(name: &str) -> bool {
    let digits = name.rsplit_once('-').and_then(|(_, digits)| u64::from_str_radix(digits, 16).ok());
    digits.is_some_and(|number| run_name("", number) == name)
}

fn open_file(disk: &dyn Disk, name: &str, create: bool) -> Result<FileId, RecoveryError> {
    match perform(disk, "opening", name, Io::Open { name: name.to_owned(), create })? {
        IoOutput::Opened { file, .. } => Ok(file),
        other => unreachable!("an open answers Opened, not {other:?}"),
    }
}

fn perform(disk: &dyn Disk, doing: &'static str, name: &str, io: Io) -> Result<IoOutput, RecoveryError> {
    disk.perform(io).map_err(|cause| RecoveryError::Io { doing, name: name.to_owned(), cause })
}
