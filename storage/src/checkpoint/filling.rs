//! A data directory that is filled before it is born: revisions of another store go in, one manifest comes out.
//!
//! ```text
//!   Filling::begin ─► push, push, ... ─► pages, commit by commit ─► finish ─► index runs, system run ─► manifest
//! ```
//!
//! * Nothing counts until the manifest is there: a directory that was left before is garbage, to be cleared and filled
//!   again ([`clear`]).
//! * Memory: the index of keys, as in a running node, and [`COMMIT_BYTES`] of values. Never more of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;

use crate::disk::{Disk, Io};
use crate::job::{BUDGET_UNLIMITED, run};
use crate::mvcc::effect_sum::EffectSum;
use crate::mvcc::key_index::{KEY_BYTES_MAX, KeyIndex, KeyState};
use crate::mvcc::shard_map::ShardMap;
use crate::mvcc::system::Table;
use crate::mvcc::view::LogPosition;
use crate::pages::allocator::{MapRoot, TransactionId};
use crate::pages::{CommitError, ENTRY_BYTES_MAX, NewEntry, PageCache, PageWriter, TreeChanges};
use crate::revision::Revision;
use crate::runs::{Record, RunError, RunMeta, WriteRun};

use super::changed_keys::ChangedKeys;
use super::checkpointer::{PAGES_DIRECTORY, RUNS_DIRECTORY, Salt};
use super::manifest::{MANIFEST_NAME, Manifest, ManifestError, write_job};
use super::recovery::{Birth, RecoveryError, first_manifest, is_ours, lay_out, list, open_pages, perform};

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

/// A directory being filled.
pub struct Filling<'a> {
    disk: &'a dyn Disk,
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

impl<'a> Filling<'a> {
    /// Makes the files of a new directory, all but the manifest.
    ///
    /// # Errors
    /// [`FillError::Directory`].
    pub fn begin(disk: &'a dyn Disk, cache: &Arc<PageCache>, salt: Salt, birth: Birth) -> Result<Self, FillError> {
        let shard_map = birth.shard_map.clone();
        let manifest = first_manifest(birth);
        lay_out(disk, &manifest)?;
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
        Ok(Self { disk, manifest, shard_map, shards, system, system_sum, salt, next_run: 1, last: Revision::default() })
    }

    /// Takes the next stored revision: `key_value` as it is to be stored, and the state that it left its key in, `None`
    /// for a tombstone.
    ///
    /// # Errors
    /// [`FillError::OutOfOrder`], [`FillError::Impossible`], and those of a commit.
    pub fn push(
        &mut self,
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
        if shard.appended_bytes >= COMMIT_BYTES { shard.commit(self.disk) } else { Ok(()) }
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

    /// Writes what is left, the indexes, and the manifest: from now on it counts.
    ///
    /// # Errors
    /// [`FillError`].
    ///
    /// # Panics
    /// If `figures` contradict what was pushed.
    pub fn finish(mut self, figures: Figures) -> Result<Manifest, FillError> {
        let Figures { revision, compact_revision, applied } = figures;
        assert!(revision >= self.last.main, "revision {revision} below {:?}", self.last);
        for at in 0..self.shards.len() {
            self.finish_shard(at)?;
        }
        if !self.system.is_empty() {
            let records = std::mem::take(&mut self.system).into_iter();
            let records = records.map(|(key, value)| Record { key: key.into(), value: Some(value) });
            let (number, salt) = self.draw_run();
            let mut job = WriteRun::from_records(RUNS_DIRECTORY, number, salt, records);
            self.manifest.system_runs = vec![run(&mut job, self.disk, BUDGET_UNLIMITED)?];
        }
        for directory in [PAGES_DIRECTORY, RUNS_DIRECTORY, ""] {
            perform(self.disk, "syncing", directory, Io::SyncDir { directory: directory.to_owned() })?;
        }
        self.manifest.system_sum = self.system_sum.0;
        (self.manifest.revision, self.manifest.compact_revision) = (revision, compact_revision);
        (self.manifest.applied_index, self.manifest.applied_term) = (applied.index, applied.term);
        run(&mut write_job(&self.manifest)?, self.disk, BUDGET_UNLIMITED)?;
        for writer in self.shards.iter().filter_map(|shard| shard.writer.as_ref()) {
            perform(self.disk, "closing", PAGES_DIRECTORY, Io::Close { file: writer.pages().file() })?;
        }
        Ok(self.manifest)
    }

    fn finish_shard(&mut self, at: usize) -> Result<(), FillError> {
        let run = self.write_index(at)?;
        let shard = &mut self.shards[at];
        shard.commit(self.disk)?;
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
    fn write_index(&mut self, at: usize) -> Result<Option<RunMeta>, FillError> {
        let index = self.shards[at].index.root();
        if index.stored_len() == 0 {
            return Ok(None);
        }
        let (number, salt) = self.draw_run();
        let source = ChangedKeys::new(index, 0, Vec::new());
        let mut job = WriteRun::new(RUNS_DIRECTORY, number, salt, source);
        Ok(Some(run(&mut job, self.disk, BUDGET_UNLIMITED)?))
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
