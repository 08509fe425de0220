//! Opening a data directory: what the manifest names, and nothing else (DESIGN 3.5). The log is replayed on top by
//! whoever applies entries.
//!
//! ```text
//!   open, or create ─► the log is read, and asked what it knows ─► settle ─► the node speaks
//! ```
//!
//! * [`open`] changes nothing: until the log was asked, what was found may be the predecessor of a manifest that is
//!   lost, and files that it does not name are the only trace of that one.
//! * [`settle`] makes what was found durable, and only then removes what nothing names.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use crate::disk::{Disk, FileId, Io, IoOutput, is_full};
use crate::job::{BUDGET_UNLIMITED, Job, run};
use crate::mvcc::effect_sum::EffectSum;
use crate::mvcc::key_index::{IndexBuilder, KeyIndex};
use crate::mvcc::shard_map::ShardMap;
use crate::mvcc::store::{FIRST_REVISION, NEVER_COMPACTED, ShardState, Store, StoreState};
use crate::mvcc::system::System;
use crate::mvcc::view::{Checkpointed, LogPosition};
use crate::pages::allocator::{MapRoot, PAGE_SIZE};
use crate::pages::{FileTag, PageCache, PageWriter, Pages, TreeRoot};
use crate::runs::{MergedRuns, Removals, RunError, RunMeta, run_name};

use super::checkpointer::{Checkpointer, PAGES_DIRECTORY, RUNS_DIRECTORY, Salt, ShardFiles, page_file_name};
use super::manifest::{
    MANIFEST_FILE_BYTES, MANIFEST_NAME, Manifest, ShardManifest, VERSION_FIRST, read_job, rewrite_job, write_job,
};
pub use super::recovery_error::RecoveryError;

/// The generation that a new directory has before its log is made. Beside a later one a log that is not there was lost.
pub const GENERATION_WITHOUT_LOG: u64 = 1;

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

/// Opens what the manifest names, and changes nothing. The caller asks the log next, then calls [`settle`].
///
/// A power cut during the very first write of a manifest leaves damage, but nothing else: there was no log yet and
/// nothing was ever acknowledged, so that directory counts as one in which basalt never was.
///
/// # Errors
/// [`RecoveryError`]; `Ok(None)` for a directory in which basalt never was.
pub fn open(disk: &dyn Disk, cache: &Arc<PageCache>, salt: Salt) -> Result<Option<Opened>, RecoveryError> {
    let found = run(&mut read_job(), disk, BUDGET_UNLIMITED)?;
    let Some(manifest) = found.manifest else {
        return match remains(disk)? {
            None if !found.damaged || found.is_torn_birth() => Ok(None),
            Some(found_file) if !found.damaged => Err(RecoveryError::ManifestMissing { found: found_file }),
            _ => Err(RecoveryError::ManifestLost),
        };
    };
    open_manifest(disk, cache, salt, manifest, found.damaged).map(Some)
}

/// Refuses a directory that holds data without a manifest. [`open`] looks at its own; a log that lies elsewhere has to
/// be looked at before [`create`].
///
/// # Errors
/// [`RecoveryError::ManifestMissing`].
pub fn check_nothing_remains(disk: &dyn Disk) -> Result<(), RecoveryError> {
    remains(disk)?.map_or(Ok(()), |found| Err(RecoveryError::ManifestMissing { found }))
}

/// The first thing of ours that lies there, the manifest included; `None` in a directory in which basalt never was.
///
/// # Errors
/// [`RecoveryError::Io`].
pub fn first_remains(disk: &dyn Disk) -> Result<Option<String>, RecoveryError> {
    if list(disk, "")?.iter().any(|name| name == MANIFEST_NAME) {
        return Ok(Some(MANIFEST_NAME.to_owned()));
    }
    remains(disk)
}

/// Makes durable what [`open`] or [`create`] found, which may have been in a page cache only, and only then removes what
/// a crash left and nothing names. To be called when the log was asked whether it knows a newer manifest, and before
/// anybody hears of the node.
///
/// The first manifest says that there may be no log yet ([`GENERATION_WITHOUT_LOG`]): its successor follows at once.
///
/// # Errors
/// [`RecoveryError`]; the node must stop.
pub fn settle(disk: &dyn Disk, checkpointer: &mut Checkpointer) -> Result<(), RecoveryError> {
    reserve_manifest(disk)?;
    let manifest = &mut checkpointer.manifest;
    run(&mut rewrite_job(manifest)?, disk, BUDGET_UNLIMITED)?;
    if manifest.generation == GENERATION_WITHOUT_LOG {
        let next = Manifest { generation: manifest.generation + 1, ..manifest.clone() };
        run(&mut write_job(&next)?, disk, BUDGET_UNLIMITED)?;
        *manifest = next;
    }
    for (shard, files) in checkpointer.manifest.shards.iter().zip(&checkpointer.shards) {
        cut_unnamed_pages(disk, &page_file_name(shard.page_file), &files.writer)?;
    }
    remove_unnamed(disk, &checkpointer.manifest)
}

/// Cuts off what a page file has behind the pages that the manifest knows of, left by a checkpoint that did not come
/// about. If it ended in a failed sync, the length in the page cache is not on the disk and no later sync would put it
/// there; the next checkpoint has to grow the file anew.
fn cut_unnamed_pages(disk: &dyn Disk, name: &str, writer: &PageWriter) -> Result<(), RecoveryError> {
    let known = writer.reserved_pages() * PAGE_SIZE as u64;
    if file_length(disk, name)? > known {
        perform(disk, "cutting", name, Io::Truncate { file: writer.pages().file(), length: known })?;
    }
    Ok(())
}

/// Makes a new data directory: empty files, and a manifest of generation 1 that names them.
///
/// # Errors
/// [`RecoveryError`].
pub fn create(disk: &dyn Disk, cache: &Arc<PageCache>, salt: Salt, birth: Birth) -> Result<Opened, RecoveryError> {
    create_after(disk, cache, salt, birth, LogPosition::default())
}

/// The same, of a member whose log goes on behind this entry.
///
/// # Errors
/// [`RecoveryError`].
pub fn create_after(
    disk: &dyn Disk,
    cache: &Arc<PageCache>,
    salt: Salt,
    birth: Birth,
    applied: LogPosition,
) -> Result<Opened, RecoveryError> {
    let mut manifest = first_manifest(birth);
    (manifest.applied_index, manifest.applied_term) = (applied.index, applied.term);
    lay_out(disk, &manifest)?;
    run(&mut write_job(&manifest)?, disk, BUDGET_UNLIMITED)?;
    open_manifest(disk, cache, salt, manifest, false)
}

/// The manifest of a directory that holds nothing yet.
pub(super) fn first_manifest(birth: Birth) -> Manifest {
    let shards = (0u32..).zip(birth.shard_map.shards()).map(|(shard, spec)| ShardManifest {
        shard,
        name: spec.name.clone(),
        prefixes: spec.prefixes.clone(),
        page_file: u64::from(shard) + 1,
        ..ShardManifest::default()
    });
    Manifest {
        version: VERSION_FIRST,
        generation: GENERATION_WITHOUT_LOG,
        cluster_id: birth.cluster_id,
        member_id: birth.member_id,
        incarnation: birth.incarnation,
        shards: shards.collect(),
        conf_state: birth.conf_state,
        revision: FIRST_REVISION,
        compact_revision: NEVER_COMPACTED,
        ..Manifest::default()
    }
}

/// Makes directories and empty files of a new data directory, durable but for the manifest, which is only reserved.
pub(super) fn lay_out(disk: &dyn Disk, manifest: &Manifest) -> Result<(), RecoveryError> {
    for name in [PAGES_DIRECTORY, RUNS_DIRECTORY] {
        perform(disk, "creating", name, Io::CreateDir { name: name.to_owned() })?;
    }
    lay_out_pages(disk, manifest)?;
    reserve_manifest(disk)?;
    for directory in [PAGES_DIRECTORY, RUNS_DIRECTORY, ""] {
        perform(disk, "syncing", directory, Io::SyncDir { directory: directory.to_owned() })?;
    }
    Ok(())
}

/// Makes the empty page files that a manifest names; their directory is not synced.
pub(super) fn lay_out_pages(disk: &dyn Disk, manifest: &Manifest) -> Result<(), RecoveryError> {
    for shard in &manifest.shards {
        let name = page_file_name(shard.page_file);
        let file = open_file(disk, &name, true)?;
        perform(disk, "syncing", &name, Io::Sync { file })?;
        perform(disk, "closing", &name, Io::Close { file })?;
    }
    Ok(())
}

/// Removes the page files and runs that a manifest names.
pub(super) fn remove_files_of(disk: &dyn Disk, manifest: &Manifest) -> Result<(), RecoveryError> {
    let pages = manifest.shards.iter().map(|shard| page_file_name(shard.page_file));
    let runs = manifest.runs().map(|run| run_name(RUNS_DIRECTORY, run.number));
    pages.chain(runs).try_for_each(|name| perform(disk, "removing", &name, Io::Remove { name: name.clone() }).map(drop))
}

pub(super) fn open_manifest(
    disk: &dyn Disk,
    cache: &Arc<PageCache>,
    salt: Salt,
    manifest: Manifest,
    manifest_damaged: bool,
) -> Result<Opened, RecoveryError> {
    let shard_map = ShardMap::checked(manifest.shards.iter().map(ShardManifest::spec).collect());
    let shard_map = shard_map.map_err(|flaw| RecoveryError::Shards { flaw })?;
    let mut shards = Vec::new();
    let mut files = Vec::new();
    for shard in &manifest.shards {
        let writer = open_pages(disk, cache, shard)?;
        let index = load_index(disk, shard)?;
        let checkpointed = Checkpointed { pages: writer.pages().clone(), root: writer.pinned_root() };
        shards.push(ShardState { index, checkpointed, sum: EffectSum(shard.sum) });
        files.push(ShardFiles { writer, index_runs: shard.index_runs.clone() });
    }
    let store = Store::new(StoreState {
        shard_map,
        shards,
        system: load_system(disk, &manifest.system_runs)?,
        system_sum: EffectSum(manifest.system_sum),
        revision: manifest.revision,
        compact_revision: manifest.compact_revision,
        applied: LogPosition { index: manifest.applied_index, term: manifest.applied_term },
        time_unix_ns: i64::try_from(manifest.time_unix_ns).unwrap_or(i64::MAX),
        conf_state: manifest.conf_state.clone().into(),
        version: manifest.version,
    });
    Ok(Opened { store, checkpointer: Checkpointer::new(manifest, files, salt), manifest_damaged })
}

pub(crate) fn open_pages(
    disk: &dyn Disk,
    cache: &Arc<PageCache>,
    shard: &ShardManifest,
) -> Result<PageWriter, RecoveryError> {
    let file = open_file(disk, &page_file_name(shard.page_file), false)?;
    let pages = Pages::new(file, FileTag(shard.page_file), cache.clone());
    if shard.tree_root.is_empty() {
        return Ok(PageWriter::create(pages));
    }
    let bad_tree = |cause| RecoveryError::Tree { shard: shard.name.clone(), cause };
    let bad_map = |cause| RecoveryError::Map { shard: shard.name.clone(), cause };
    let map_root = MapRoot::decode(&shard.map_root).map_err(bad_map)?;
    let root = TreeRoot::decode(&shard.tree_root).map_err(bad_tree)?;
    PageWriter::open(pages, root, map_root).map_err(bad_map)
}

/// Loads an index bottom-up from its runs, reading no values.
pub(crate) fn load_index(disk: &dyn Disk, shard: &ShardManifest) -> Result<KeyIndex, RecoveryError> {
    let mut builder = IndexBuilder::new();
    for_each_record(disk, &shard.index_runs, |key, value| {
        builder.push(key, &value).map_err(|cause| RecoveryError::Index { shard: shard.name.clone(), cause })
    })?;
    Ok(builder.finish())
}

pub(crate) fn load_system(disk: &dyn Disk, runs: &[RunMeta]) -> Result<System, RecoveryError> {
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

/// Removes what a crash left: runs and page files that no manifest names.
fn remove_unnamed(disk: &dyn Disk, manifest: &Manifest) -> Result<(), RecoveryError> {
    let runs: BTreeSet<u64> = manifest.runs().map(|run| run.number).collect();
    let pages: BTreeSet<u64> = manifest.shards.iter().map(|shard| shard.page_file).collect();
    for (directory, named) in [(RUNS_DIRECTORY, runs), (PAGES_DIRECTORY, pages)] {
        let names = list(disk, directory)?.into_iter();
        for name in names.filter(|name| number_in(directory, name).is_some_and(|number| !named.contains(&number))) {
            let name = format!("{directory}/{name}");
            perform(disk, "removing", &name, Io::Remove { name: name.clone() })?;
        }
    }
    Ok(())
}

/// The first file that was written after a first manifest was durable: a segment of a log, a run, a page file that is
/// not empty. The birth of a directory leaves none of them before that.
fn remains(disk: &dyn Disk) -> Result<Option<String>, RecoveryError> {
    for directory in [crate::wal::DIRECTORY, RUNS_DIRECTORY, PAGES_DIRECTORY] {
        for name in list(disk, directory)?.into_iter().filter(|name| is_ours(directory, name)) {
            let name = format!("{directory}/{name}");
            if directory != PAGES_DIRECTORY || file_length(disk, &name)? > 0 {
                return Ok(Some(name));
            }
        }
    }
    Ok(None)
}

/// Whether a file is of the kind that we write there. Others are somebody's, and stay.
pub(crate) fn is_ours(directory: &str, name: &str) -> bool {
    match directory {
        RUNS_DIRECTORY | PAGES_DIRECTORY => number_in(directory, name).is_some(),
        _ => crate::wal::is_segment(name),
    }
}

/// The number of a run or page file of ours.
pub(super) fn number_in(directory: &str, name: &str) -> Option<u64> {
    let (_, digits) = name.rsplit_once('-')?;
    let number = u64::from_str_radix(digits, 16).ok()?;
    let is_ours = match directory {
        RUNS_DIRECTORY => run_name("", number) == name,
        _ => page_file_name(number) == format!("{directory}/{name}"),
    };
    is_ours.then_some(number)
}

/// Names in a directory, none if it is not there.
pub(crate) fn list(disk: &dyn Disk, directory: &str) -> Result<Vec<String>, RecoveryError> {
    match disk.perform(Io::List { directory: directory.to_owned() }) {
        Ok(IoOutput::Names(names)) => Ok(names),
        Ok(other) => unreachable!("a list answers Names, not {other:?}"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(cause) => Err(io_error("listing", directory, cause)),
    }
}

fn file_length(disk: &dyn Disk, name: &str) -> Result<u64, RecoveryError> {
    match perform(disk, "opening", name, Io::Open { name: name.to_owned(), create: false })? {
        IoOutput::Opened { file, length } => {
            perform(disk, "closing", name, Io::Close { file })?;
            Ok(length)
        }
        other => unreachable!("an open answers Opened, not {other:?}"),
    }
}

/// Fills the manifest's file up with zeros to all it will ever be: no later write of a manifest needs new space, so
/// that a full disk cannot stop one half-way. A disk too full for that now still has the space that was written before.
///
/// The length is changed at every start, to and fro by a page: one that only the page cache has, after a failed sync,
/// would be synced by no later write within it.
fn reserve_manifest(disk: &dyn Disk) -> Result<(), RecoveryError> {
    let opened = perform(disk, "opening", MANIFEST_NAME, Io::Open { name: MANIFEST_NAME.to_owned(), create: true })?;
    let IoOutput::Opened { file, length } = opened else { unreachable!("an open answers Opened, not {opened:?}") };
    let change = if length > MANIFEST_FILE_BYTES {
        Io::Truncate { file, length: MANIFEST_FILE_BYTES }
    } else {
        let missing = usize::try_from(MANIFEST_FILE_BYTES - length).expect("a manifest's file is small");
        Io::Write { file, offset: length, bytes: vec![0; missing + PAGE_SIZE].into() }
    };
    match disk.perform(change) {
        Err(cause) if is_full(&cause) && length > 0 => {
            tracing::warn!(error = %cause, "no space to reserve for the manifest: free some");
        }
        changed => drop(changed.map_err(|cause| io_error("writing", MANIFEST_NAME, cause))?),
    }
    perform(disk, "syncing", MANIFEST_NAME, Io::Sync { file })?;
    perform(disk, "closing", MANIFEST_NAME, Io::Close { file }).map(drop)
}

fn open_file(disk: &dyn Disk, name: &str, create: bool) -> Result<FileId, RecoveryError> {
    match perform(disk, "opening", name, Io::Open { name: name.to_owned(), create })? {
        IoOutput::Opened { file, .. } => Ok(file),
        other => unreachable!("an open answers Opened, not {other:?}"),
    }
}

pub(super) fn perform(disk: &dyn Disk, doing: &'static str, name: &str, io: Io) -> Result<IoOutput, RecoveryError> {
    disk.perform(io).map_err(|cause| io_error(doing, name, cause))
}

fn io_error(doing: &'static str, name: &str, cause: io::Error) -> RecoveryError {
    RecoveryError::Io { doing, name: name.to_owned(), cause }
}
