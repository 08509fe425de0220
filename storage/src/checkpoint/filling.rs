//! The files of a store that is filled from another one's: revisions go in, one manifest comes out.
//!
//! ```text
//!   begin ────────┬─► push, push, ... ─► pages, commit by commit ─► finish ─► index runs, system run ─► manifest
//!   begin_beside ─┘                                                  └─► Filled ─► Checkpointer::install
//! ```
//!
//! * [`Filling::begin`] makes a new directory. Nothing counts until the manifest is there: one that was left before is
//!   garbage, to be cleared and filled again ([`clear`]).
//! * [`Filling::begin_beside`] makes fresh files beside those of a store that goes on meanwhile, under numbers that it never
//!   uses. Left before they were installed, they are garbage: the next attempt removes them, and so does the next start.
//! * Memory: the index of keys, as in a running node, and [`COMMIT_BYTES`] of values. Never more of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;

use crate::disk::{Disk, Io};
use crate::job::{BUDGET_UNLIMITED, run};
use crate::mvcc::effect_sum::EffectSum;
use crate::mvcc::key_index::{KEY_BYTES_MAX, KeyIndex, KeyState};
use crate::mvcc::key_value::KeyValue;
use crate::mvcc::shard_map::ShardMap;
use crate::mvcc::system::{Table, is_system_key};
use crate::mvcc::view::LogPosition;
use crate::pages::allocator::{MapRoot, TransactionId};
use crate::pages::{CommitError, ENTRY_BYTES_MAX, NewEntry, PageCache, PageWriter, TreeChanges};
use crate::revision::Revision;
use crate::runs::{Record, RunError, RunMeta, WriteRun};

use super::changed_keys::ChangedKeys;
use super::checkpointer::{PAGES_DIRECTORY, RUNS_DIRECTORY, Salt};
use super::manifest::{MANIFEST_NAME, Manifest, ManifestError, write_job};
use super::recovery::{
    Birth, RecoveryError, first_manifest, is_ours, lay_out, lay_out_pages, list, number_in, open_pages, perform,
    remove_files_of,
};

/// Bytes of values that wait for a commit of their shard, unless one value is longer.
pub const COMMIT_BYTES: usize = 32 << 20;

/// Why a directory cannot be filled. Clear it before another attempt.
#[derive(Debug, Error)]
pub enum FillError {
    /// A revision at or below the one before it.
    #[error("revision {0:?} is not above the one before it")]
    OutOfOrder(Revision),
    /// A revision that no store writes.
    #[error("revision {revision:?}: {flaw}")]
    Impossible {
        /// Which.
        revision: Revision,
        /// What is wrong with it.
        flaw: &'static str,
    },
    /// The files cannot be made.
    #[error(transparent)]
    Directory(#[from] RecoveryError),
    /// Pages cannot be written.
    #[error("writing pages")]
    Pages(#[from] CommitError),
    /// A run cannot be written.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The manifest cannot be written.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
}

/// What the filled store is beside its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figures {
    /// The store's revision, at or above all that were pushed.
    pub revision: i64,
    /// The compact revision, [`crate::mvcc::store::NEVER_COMPACTED`] for none.
    pub compact_revision: i64,
    /// The log entry that this is the state of: the log goes on behind it.
    pub applied: LogPosition,
}

/// Runs of fresh files beside a store begin at a multiple of this: one store never writes so many.
const RUNS_OF_A_STORE: u64 = 1 << 32;

/// A store being filled. Every call is to be given the same disk.
pub struct Filling {
    manifest: Manifest,
    shard_map: ShardMap,
    shards: Vec<FillingShard>,
    system: BTreeMap<Vec<u8>, Bytes>,
    system_sum: EffectSum,
    salt: Salt,
    next_run: u64,
    last: Revision,
}

struct FillingShard {
    /// Away while a commit holds it.
    writer: Option<PageWriter>,
    map_root: Option<MapRoot>,
    index: KeyIndex,
    sum: EffectSum,
    appended: Vec<NewEntry>,
    appended_bytes: usize,
}

/// Fresh files, durable and whole, that no manifest names yet.
#[derive(Debug)]
pub struct Filled {
    pub(super) manifest: Manifest,
}

impl Filled {
    /// The last log entry that they are the state of.
    pub fn applied(&self) -> LogPosition {
        LogPosition { index: self.manifest.applied_index, term: self.manifest.applied_term }
    }

    /// Removes them.
    ///
    /// # Errors
    /// [`RecoveryError::Io`]; what is left, the next start removes.
    pub fn discard(self, disk: &dyn Disk) -> Result<(), RecoveryError> {
        remove_files_of(disk, &self.manifest)
    }
}

impl Filling {
    /// Makes the files of a new directory, all but the manifest.
    ///
    /// # Errors
    /// [`FillError::Directory`].
    pub fn begin(disk: &dyn Disk, cache: &Arc<PageCache>, salt: Salt, birth: Birth) -> Result<Self, FillError> {
        let shard_map = birth.shard_map.clone();
        let manifest = first_manifest(birth);
        lay_out(disk, &manifest)?;
        Self::with(disk, cache, salt, shard_map, manifest, 1)
    }

    /// Makes fresh files beside those of the store of `live`, which may write further manifests meanwhile. What an earlier
    /// attempt left is removed.
    ///
    /// # Errors
    /// [`FillError::Directory`].
    pub fn begin_beside(
        disk: &dyn Disk,
        cache: &Arc<PageCache>,
        salt: Salt,
        live: &Manifest,
        birth: Birth,
    ) -> Result<Self, FillError> {
        let shard_map = birth.shard_map.clone();
        let mut manifest = first_manifest(birth);
        let (page_file, run) = (first_page_file(live), first_run(live));
        for (shard, number) in manifest.shards.iter_mut().zip(page_file..) {
            shard.page_file = number;
        }
        clear_beside(disk, page_file, run)?;
        lay_out_pages(disk, &manifest)?;
        Self::with(disk, cache, salt, shard_map, manifest, run)
    }

    fn with(
        disk: &dyn Disk,
        cache: &Arc<PageCache>,
        salt: Salt,
        shard_map: ShardMap,
        manifest: Manifest,
        next_run: u64,
    ) -> Result<Self, FillError> {
        let mut shards = Vec::new();
        for shard in &manifest.shards {
            shards.push(FillingShard {
                writer: Some(open_pages(disk, cache, shard)?),
                map_root: None,
                index: KeyIndex::new(),
                sum: EffectSum::default(),
                appended: Vec::new(),
                appended_bytes: 0,
            });
        }
        let (system, system_sum) = (BTreeMap::new(), EffectSum::default());
        Ok(Self { manifest, shard_map, shards, system, system_sum, salt, next_run, last: Revision::default() })
    }

    /// Takes the next stored revision: `key_value` as it is to be stored, and the state that it left its key in, `None`
    /// for a tombstone.
    ///
    /// # Errors
    /// [`FillError::OutOfOrder`], [`FillError::Impossible`], and those of a commit.
    pub fn push(
        &mut self,
        disk: &dyn Disk,
        revision: Revision,
        key: &[u8],
        state: Option<KeyState>,
        key_value: &Bytes,
    ) -> Result<(), FillError> {
        check(revision, key, state, key_value).map_err(|flaw| FillError::Impossible { revision, flaw })?;
        if revision <= self.last {
            return Err(FillError::OutOfOrder(revision));
        }
        self.last = revision;
        let shard = &mut self.shards[self.shard_map.shard_of(key).position()];
        let previous = shard.index.restore(key, revision, state);
        let tombstone = state.is_none();
        shard.sum.add_change(revision, key, (!tombstone).then_some(key_value));
        // What is read may be a slice of a far larger page.
        let key_value = Bytes::copy_from_slice(key_value);
        let entry = NewEntry { revision, tombstone, previous, key_value };
        shard.appended_bytes += entry.stored_bytes();
        shard.appended.push(entry);
        if shard.appended_bytes >= COMMIT_BYTES { shard.commit(disk) } else { Ok(()) }
    }

    /// Takes the next stored revision, as another store has it.
    ///
    /// # Errors
    /// As [`Self::push`]; also if its KeyValue is malformed or contradicts it.
    pub fn push_stored(
        &mut self,
        disk: &dyn Disk,
        revision: Revision,
        tombstone: bool,
        key_value: &Bytes,
    ) -> Result<(), FillError> {
        let (key, state) =
            stored(revision, tombstone, key_value).map_err(|flaw| FillError::Impossible { revision, flaw })?;
        self.push(disk, revision, key, state, key_value)
    }

    /// The highest revision pushed; all zeros before the first.
    pub fn last(&self) -> Revision {
        self.last
    }

    /// Sets a system record.
    pub fn set_record(&mut self, table: Table, key: &[u8], value: Bytes) {
        self.system_sum.add_record(table, key, Some(&value));
        self.system.insert([&[table as u8], key].concat(), value);
    }

    /// Sets a system record as another store's checkpoint has it: number of the table, then the key in it. `false` for a
    /// table that this release does not know.
    pub fn restore_record(&mut self, key: &[u8], value: Bytes) -> bool {
        let is_known = is_system_key(key);
        if is_known {
            self.system.insert(key.to_vec(), value);
        }
        is_known
    }

    /// Removes what was written beside a store.
    ///
    /// # Errors
    /// [`RecoveryError::Io`]; what is left, the next attempt or start removes.
    pub fn discard_beside(self, disk: &dyn Disk) -> Result<(), RecoveryError> {
        let first_page_file = self.manifest.shards.iter().map(|shard| shard.page_file).min().unwrap_or(u64::MAX);
        for writer in self.shards.iter().filter_map(|shard| shard.writer.as_ref()) {
            perform(disk, "closing", PAGES_DIRECTORY, Io::Close { file: writer.pages().file() })?;
        }
        clear_beside(disk, first_page_file, self.next_run / RUNS_OF_A_STORE * RUNS_OF_A_STORE)
    }

    /// Writes what is left, the indexes, and the manifest: from now on it counts.
    ///
    /// # Errors
    /// [`FillError`].
    ///
    /// # Panics
    /// If `figures` contradict what was pushed.
    pub fn finish(mut self, disk: &dyn Disk, figures: Figures) -> Result<Manifest, FillError> {
        self.write_rest(disk, figures)?;
        for directory in [PAGES_DIRECTORY, RUNS_DIRECTORY, ""] {
            perform(disk, "syncing", directory, Io::SyncDir { directory: directory.to_owned() })?;
        }
        run(&mut write_job(&self.manifest)?, disk, BUDGET_UNLIMITED)?;
        self.close(disk)?;
        Ok(self.manifest)
    }

    /// Writes what is left and the indexes: all that [`Checkpointer::install`](super::Checkpointer::install) needs. `sums`
    /// are those of all effects on the other store since its birth, of each shard and of its records.
    ///
    /// # Errors
    /// [`FillError`].
    ///
    /// # Panics
    /// If `figures` contradict what was pushed, or the sums are not one for each shard.
    pub fn finish_beside(
        mut self,
        disk: &dyn Disk,
        figures: Figures,
        time_unix_ns: i64,
        sums: (Vec<EffectSum>, EffectSum),
    ) -> Result<Filled, FillError> {
        self.write_rest(disk, figures)?;
        self.close(disk)?;
        let (shard_sums, system_sum) = sums;
        assert_eq!(shard_sums.len(), self.manifest.shards.len(), "a sum for each shard");
        for (shard, sum) in self.manifest.shards.iter_mut().zip(shard_sums) {
            shard.sum = sum.0;
        }
        self.manifest.system_sum = system_sum.0;
        self.manifest.time_unix_ns = u64::try_from(time_unix_ns).unwrap_or(0);
        Ok(Filled { manifest: self.manifest })
    }

    fn write_rest(&mut self, disk: &dyn Disk, figures: Figures) -> Result<(), FillError> {
        let Figures { revision, compact_revision, applied } = figures;
        assert!(revision >= self.last.main, "revision {revision} below {:?}", self.last);
        for at in 0..self.shards.len() {
            self.finish_shard(disk, at)?;
        }
        if !self.system.is_empty() {
            let records = std::mem::take(&mut self.system).into_iter();
            let records = records.map(|(key, value)| Record { key: key.into(), value: Some(value) });
            let (number, salt) = self.draw_run();
            let mut job = WriteRun::from_records(RUNS_DIRECTORY, number, salt, records);
            self.manifest.system_runs = vec![run(&mut job, disk, BUDGET_UNLIMITED)?];
        }
        self.manifest.system_sum = self.system_sum.0;
        (self.manifest.revision, self.manifest.compact_revision) = (revision, compact_revision);
        (self.manifest.applied_index, self.manifest.applied_term) = (applied.index, applied.term);
        Ok(())
    }

    fn close(&self, disk: &dyn Disk) -> Result<(), FillError> {
        for writer in self.shards.iter().filter_map(|shard| shard.writer.as_ref()) {
            perform(disk, "closing", PAGES_DIRECTORY, Io::Close { file: writer.pages().file() })?;
        }
        Ok(())
    }

    fn finish_shard(&mut self, disk: &dyn Disk, at: usize) -> Result<(), FillError> {
        let run = self.write_index(disk, at)?;
        let shard = &mut self.shards[at];
        shard.commit(disk)?;
        let stated = &mut self.manifest.shards[at];
        stated.sum = shard.sum.0;
        stated.index_runs.extend(run);
        if let Some(map_root) = &shard.map_root {
            let root = shard.writer.as_ref().expect("no commit runs").root();
            stated.transaction = root.transaction;
            stated.tree_root = root.encode().to_vec();
            stated.map_root = map_root.encode().to_vec();
            (stated.live_bytes, stated.entries) = (root.live_bytes, root.entries);
        }
        Ok(())
    }

    /// The base run of a shard's index; none without keys.
    fn write_index(&mut self, disk: &dyn Disk, at: usize) -> Result<Option<RunMeta>, FillError> {
        let index = self.shards[at].index.root();
        if index.stored_len() == 0 {
            return Ok(None);
        }
        let (number, salt) = self.draw_run();
        let source = ChangedKeys::new(index, 0, Vec::new());
        let mut job = WriteRun::new(RUNS_DIRECTORY, number, salt, source);
        Ok(Some(run(&mut job, disk, BUDGET_UNLIMITED)?))
    }

    fn draw_run(&mut self) -> (u64, u64) {
        self.next_run += 1;
        (self.next_run - 1, self.salt.draw())
    }
}

impl FillingShard {
    fn commit(&mut self, disk: &dyn Disk) -> Result<(), FillError> {
        if self.appended.is_empty() {
            return Ok(());
        }
        let writer = self.writer.take().expect("a failed commit ends the filling");
        let transaction = TransactionId(writer.root().transaction.0 + 1);
        let appended = std::mem::take(&mut self.appended);
        let changes = TreeChanges { appended, ..TreeChanges::default() };
        let mut committed = run(&mut writer.commit(transaction, changes), disk, BUDGET_UNLIMITED)?;
        // No manifest names the roots before, so that nothing of them has to be kept.
        committed.writer.committed();
        self.map_root = Some(committed.map_root);
        self.writer = Some(committed.writer);
        self.appended_bytes = 0;
        Ok(())
    }
}

/// The key of a stored revision, and the state it left the key in.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn stored(
    revision: Revision,
    tombstone: bool,
    value: &[u8],
) -> Result<(&[u8], Option<KeyState>), &'static str> {
    let kv = KeyValue::parse(value).map_err(|_| "its KeyValue is malformed")?;
    if tombstone {
        return Ok((kv.key, None));
    }
    if value.is_empty() {
        return Ok((kv.key, Some(raised(revision))));
    }
    if kv.mod_revision != revision.main {
        return Err("its KeyValue is of another revision");
    }
    let KeyValue { create_revision, version, lease, .. } = kv;
    Ok((kv.key, Some(KeyState { create_revision, mod_revision: revision, version, lease })))
}

/// The state that an empty value stands for. etcd's `--bump-revision` leaves one at the revision that it raises the store
/// to: of the empty key, which no request can name.
pub(crate) fn raised(revision: Revision) -> KeyState {
    KeyState { create_revision: revision.main, mod_revision: revision, version: 1, lease: 0 }
}

fn check(revision: Revision, key: &[u8], state: Option<KeyState>, key_value: &[u8]) -> Result<(), &'static str> {
    if revision.main < 1 || revision.sub < 0 || revision.main == i64::MAX {
        return Err("it is out of range");
    }
    if key.len() > KEY_BYTES_MAX {
        return Err("its key is too long");
    }
    if key_value.len() > ENTRY_BYTES_MAX {
        return Err("its value is too long");
    }
    let Some(state) = state else { return Ok(()) };
    if state.mod_revision != revision {
        return Err("it says that it is another revision");
    }
    if !(1..=revision.main).contains(&state.create_revision) {
        return Err("its key was created after it, or before all");
    }
    if state.version < 1 { Err("its version is below 1") } else { Ok(()) }
}

/// The first number of a page file that the store of `live` does not use.
fn first_page_file(live: &Manifest) -> u64 {
    live.shards.iter().map(|shard| shard.page_file + 1).max().unwrap_or(1)
}

/// The first number of a run that the store of `live` will not come to.
fn first_run(live: &Manifest) -> u64 {
    let newest = live.runs().map(|run| run.number).max().unwrap_or(0);
    (newest / RUNS_OF_A_STORE + 1) * RUNS_OF_A_STORE
}

/// Removes page files and runs from these numbers on.
fn clear_beside(disk: &dyn Disk, first_page_file: u64, first_run: u64) -> Result<(), RecoveryError> {
    for (directory, first) in [(PAGES_DIRECTORY, first_page_file), (RUNS_DIRECTORY, first_run)] {
        let names = list(disk, directory)?.into_iter();
        for name in names.filter(|name| number_in(directory, name).is_some_and(|number| number >= first)) {
            let name = format!("{directory}/{name}");
            perform(disk, "removing", &name, Io::Remove { name: name.clone() })?;
        }
    }
    Ok(())
}

/// Removes all files of a directory that was not filled to its end, the manifest first, and leaves those of others.
///
/// # Errors
/// [`RecoveryError::Io`]; what is left is still to be cleared.
pub fn clear(disk: &dyn Disk) -> Result<(), RecoveryError> {
    if list(disk, "")?.iter().any(|name| name == MANIFEST_NAME) {
        perform(disk, "removing", MANIFEST_NAME, Io::Remove { name: MANIFEST_NAME.to_owned() })?;
        perform(disk, "syncing", "", Io::SyncDir { directory: String::new() })?;
    }
    for directory in [PAGES_DIRECTORY, RUNS_DIRECTORY] {
        for name in list(disk, directory)?.iter().filter(|name| is_ours(directory, name)) {
            let name = format!("{directory}/{name}");
            perform(disk, "removing", &name, Io::Remove { name: name.clone() })?;
        }
    }
    Ok(())
}
