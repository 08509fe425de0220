//! The store's latest state and its only writer. What it shows to readers is a [`View`].
//!
//! Invariants:
//! * [`Store::install`] is the only way a key changes, and takes what a [`Transaction`] over this very state made.
//! * Revisions ascend by one per installed transaction that changed something.
//! * Between [`Store::freeze`] and [`Store::checkpointed`] (or [`Store::checkpoint_failed`]) at most one checkpoint runs.
//! * What a compaction drops leaves the index at once per key, and the pages with the next checkpoint; no answer shows
//!   how far it is.

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;

use super::delta::{Delta, DeltaEntry, DeltaView};
use super::effect_sum::EffectSum;
use super::key_index::{IndexRoot, KeyIndex, KeyState};
use super::key_range::KeyRange;
use super::key_value::KeyValue;
use super::range::{Hit, RevisionError};
use super::shard_map::{ShardId, ShardMap};
use super::system::{System, SystemRecord, Table};
use super::transaction::{Change, ChangeKind, Transaction};
use super::view::{Checkpointed, LogPosition, ShardView, View};
use crate::revision::Revision;

/// The revision of a store that nothing was written to (etcd-contract 1).
pub const FIRST_REVISION: i64 = 1;

/// Compact revision of a store that was never compacted (etcd-contract 13).
pub const NEVER_COMPACTED: i64 = -1;

/// A shard as recovery hands it to a new store.
pub struct ShardState {
    /// Which revisions of which keys there are.
    pub index: KeyIndex,
    /// Their values.
    pub checkpointed: Checkpointed,
    /// Of all effects on it since birth.
    pub sum: EffectSum,
}

/// What recovery hands to a new store.
pub struct StoreState {
    /// How keys are split.
    pub shard_map: ShardMap,
    /// One for each shard of the map.
    pub shards: Vec<ShardState>,
    /// All tables.
    pub system: System,
    /// Of all effects on them since birth.
    pub system_sum: EffectSum,
    /// The store's revision.
    pub revision: i64,
    /// See [`View::compact_revision`].
    pub compact_revision: i64,
    /// The last applied entry.
    pub applied: LogPosition,
    /// The largest proposer time applied, ns since 1970.
    pub time_unix_ns: i64,
    /// Who belongs to the cluster, in whatever form the server gives it.
    pub conf_state: Bytes,
    /// See [`Store::version`].
    pub version: u16,
}

/// The writer.
pub struct Store {
    shard_map: Arc<ShardMap>,
    shards: Vec<Shard>,
    /// Leases, alarms, members.
    pub system: System,
    system_sum: EffectSum,
    /// The last applied entry; set by the one who applies.
    pub applied: LogPosition,
    /// The largest proposer time applied, ns since 1970.
    pub time_unix_ns: i64,
    /// Who belongs to the cluster after that entry; set by the one who applies.
    pub conf_state: Bytes,
    /// The form in which manifests are to be written ([`Manifest::version`](crate::checkpoint::manifest::Manifest)); set by the
    /// one who applies.
    pub version: u16,
    revision: i64,
    compact_revision: i64,
    sweep: Option<Sweep>,
    /// The last compaction whose sweep ended, and the last one all of which a checkpoint contains.
    swept_revision: i64,
    swept_in_pages: i64,
    freezing: Option<Freezing>,
}

/// A checkpoint that runs.
#[derive(Clone, Copy)]
struct Freezing {
    /// What [`Store::swept_revision`] was when it began.
    swept_revision: i64,
}

struct Shard {
    index: KeyIndex,
    /// Of all effects since birth.
    sum: EffectSum,
    delta: Delta,
    frozen: DeltaView,
    checkpointed: Checkpointed,
    /// Dropped by compaction, not yet known to a checkpoint.
    dead: Vec<Revision>,
    /// Keys that compaction removed from the index, not yet known to a checkpoint.
    removed_keys: Vec<Vec<u8>>,
}

/// The walk of a compaction over all indexes.
struct Sweep {
    at: i64,
    shard: usize,
    cursor: Option<Vec<u8>>,
}

/// A shard as a checkpoint sees it.
pub struct FrozenShard {
    /// Revisions to write.
    pub frozen: DeltaView,
    /// The index at the instant of the freeze.
    pub index: IndexRoot,
    /// Revisions to mark dead; those of `frozen` are among them.
    pub dead: Vec<Revision>,
    /// Keys that are gone.
    pub removed_keys: Vec<Vec<u8>>,
    /// Of all effects since birth.
    pub sum: EffectSum,
}

/// Everything a checkpoint writes, at one log index.
pub struct Frozen {
    /// One for each shard.
    pub shards: Vec<FrozenShard>,
    /// Touched system records.
    pub system: Vec<SystemRecord>,
    /// Of all effects on system records since birth.
    pub system_sum: EffectSum,
    /// The store's revision.
    pub revision: i64,
    /// See [`View::compact_revision`].
    pub compact_revision: i64,
    /// The last applied entry.
    pub applied: LogPosition,
    /// The largest proposer time applied, ns since 1970.
    pub time_unix_ns: i64,
    /// Who belongs to the cluster.
    pub conf_state: Bytes,
    /// See [`Store::version`].
    pub version: u16,
    /// Whether every partly dead leaf is to be rewritten, as `Defragment` asks; else as many as keep files within
    /// bounds.
    pub rewrite_all: bool,
}

impl std::fmt::Debug for Frozen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Frozen")
            .field("applied", &self.applied)
            .field("revision", &self.revision)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// A store over what recovery found.
    ///
    /// # Panics
    /// When the number of shards is not the map's.
    pub fn new(state: StoreState) -> Self {
        assert_eq!(state.shards.len(), state.shard_map.shards().len(), "one state for each shard of the map");
        let shard = |ShardState { index, checkpointed, sum }| Shard {
            index,
            sum,
            delta: Delta::default(),
            frozen: DeltaView::default(),
            checkpointed,
            dead: Vec::new(),
            removed_keys: Vec::new(),
        };
        // A checkpoint may hold revisions that a sweep had dropped from memory only: sweeping again is harmless.
        let resumed =
            (state.compact_revision > 0).then_some(Sweep { at: state.compact_revision, shard: 0, cursor: None });
        Self {
            shard_map: Arc::new(state.shard_map),
            shards: state.shards.into_iter().map(shard).collect(),
            system: state.system,
            system_sum: state.system_sum,
            applied: state.applied,
            time_unix_ns: state.time_unix_ns,
            conf_state: state.conf_state,
            version: state.version,
            revision: state.revision,
            compact_revision: state.compact_revision,
            sweep: resumed,
            swept_revision: NEVER_COMPACTED,
            swept_in_pages: NEVER_COMPACTED,
            freezing: None,
        }
    }

    /// The store's revision.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// See [`View::compact_revision`].
    pub fn compact_revision(&self) -> i64 {
        self.compact_revision
    }

    /// How keys are split.
    pub fn shard_map(&self) -> &ShardMap {
        &self.shard_map
    }

    /// A shard's index at head.
    pub(super) fn index(&self, shard: ShardId) -> &IndexRoot {
        self.shards[shard.position()].index.head()
    }

    /// The live state of a key.
    pub fn get(&self, key: &[u8]) -> Option<KeyState> {
        self.shards[self.shard_map.shard_of(key).position()].index.get(key)
    }

    /// A stored value if it needs no disk.
    pub fn resident(&self, hit: Hit) -> Option<Bytes> {
        let shard = &self.shards[hit.shard.position()];
        let entry = shard.delta.view_ref().get(hit.revision).or_else(|| shard.frozen.get(hit.revision));
        entry.map(|entry| entry.key_value.clone())
    }

    /// Visits the live keys of a range, shard by shard, ascending within each, until it is told to stop.
    pub fn for_each_live(&self, range: &KeyRange, mut visit: impl FnMut(&[u8], KeyState) -> ControlFlow<()>) {
        for shard in self.shard_map.shards_of(range) {
            let index = self.shards[shard.position()].index.head();
            if index.scan_head(range, &mut visit).is_break() {
                return;
            }
        }
    }

    /// All shards as they stand. Costs a few reference counts a shard.
    pub fn head(&self) -> View {
        let shard = |shard: &Shard| ShardView {
            index: shard.index.root(),
            delta: shard.delta.view(),
            frozen: shard.frozen.clone(),
            checkpointed: shard.checkpointed.clone(),
        };
        View {
            shard_map: self.shard_map.clone(),
            revision: self.revision,
            compact_revision: self.compact_revision,
            swept_revision: self.swept_in_pages,
            applied: self.applied,
            shards: self.shards.iter().map(shard).collect(),
        }
    }

    /// Begins a write transaction over the latest state.
    pub fn begin(&self) -> Transaction<'_> {
        Transaction::new(self)
    }

    /// Makes the changes of one transaction the latest state.
    ///
    /// # Panics
    /// When they were not made over this state: their main revision must be the next, their subs 0, 1, 2 and on.
    pub fn install(&mut self, changes: &[Change]) {
        for (sub, change) in (0i64..).zip(changes) {
            let expected = Revision::new(self.revision + 1, sub);
            assert_eq!(change.revision, expected, "a change was made over another state");
            let shard = &mut self.shards[change.shard.position()];
            let (tombstone, key_value) = match &change.kind {
                ChangeKind::Put { key_value, lease, .. } => {
                    shard.index.put(&change.key, change.revision, *lease);
                    shard.sum.add_change(change.revision, &change.key, Some(key_value));
                    (false, key_value.clone())
                }
                ChangeKind::Delete => {
                    let deleted = shard.index.delete(&change.key, change.revision);
                    assert!(deleted.is_some(), "a transaction deletes only live keys");
                    shard.sum.add_change(change.revision, &change.key, None);
                    (true, KeyValue { key: &change.key, ..KeyValue::default() }.encode())
                }
            };
            let previous = change.previous;
            shard.delta.append(DeltaEntry { revision: change.revision, tombstone, previous, key_value });
        }
        self.revision += i64::from(!changes.is_empty());
    }

    /// Sets a system record, or removes it with `None`.
    pub fn set_record(&mut self, table: Table, key: &[u8], value: Option<Bytes>) {
        self.system_sum.add_record(table, key, value.as_deref());
        self.system.set(table, key, value);
    }

    /// The sums over all effects since birth: of each shard, then of system records.
    pub fn sums(&self) -> (Vec<EffectSum>, EffectSum) {
        (self.shards.iter().map(|shard| shard.sum).collect(), self.system_sum)
    }

    /// Checks whether a compaction at `revision` is allowed (etcd-contract 13).
    ///
    /// # Errors
    /// [`RevisionError`] when it is not above the last one or above the store's revision.
    pub fn compactable(&self, revision: i64) -> Result<(), RevisionError> {
        if revision <= self.compact_revision {
            return Err(RevisionError::Compacted);
        }
        if revision > self.revision {
            return Err(RevisionError::Future);
        }
        Ok(())
    }

    /// Makes revisions below `revision` unreadable at once; [`Self::sweep`] drops what they held.
    ///
    /// # Panics
    /// When [`Self::compactable`] would refuse it.
    pub fn compact(&mut self, revision: i64) {
        assert!(self.compactable(revision).is_ok(), "compaction at {revision} was not checked");
        self.compact_revision = revision;
        self.sweep = Some(Sweep { at: revision, shard: 0, cursor: None });
    }

    /// Whether a compaction still has keys to visit.
    pub fn is_sweeping(&self) -> bool {
        self.sweep.is_some()
    }

    /// Drops superseded revisions, about `budget` of them, or in as many keys if few are to be dropped; gives how many were.
    pub fn sweep(&mut self, budget: usize) -> usize {
        let Some(sweep) = &mut self.sweep else { return 0 };
        let shard = &mut self.shards[sweep.shard];
        let step = shard.index.compact_step(sweep.at, sweep.cursor.take(), budget);
        let dropped = step.dropped.len();
        shard.dead.extend(step.dropped);
        shard.removed_keys.extend(step.removed_keys);
        sweep.cursor = step.next;
        if sweep.cursor.is_none() {
            sweep.shard += 1;
        }
        if sweep.shard == self.shards.len() {
            self.swept_revision = sweep.at;
            self.sweep = None;
        }
        dropped
    }

    /// Bytes of revisions that no checkpoint holds yet, those among them that one is writing: what counts as stored
    /// beside page files, and what memory holds.
    pub fn uncheckpointed_bytes(&self) -> usize {
        self.shards.iter().map(|shard| shard.delta.view_ref().bytes() + shard.frozen.bytes()).sum()
    }

    /// Bytes of revisions that no checkpoint has begun to write: what says when to start one.
    pub fn delta_bytes(&self) -> usize {
        self.shards.iter().map(|shard| shard.delta.view_ref().bytes()).sum()
    }

    /// Revisions in all deltas that no checkpoint has begun to write.
    pub fn delta_entries(&self) -> usize {
        self.shards.iter().map(|shard| shard.delta.view_ref().len()).sum()
    }

    /// Takes what a checkpoint writes. Costs nothing that grows with the data.
    ///
    /// # Panics
    /// When one is running already.
    pub fn freeze(&mut self) -> Frozen {
        assert!(self.freezing.is_none(), "one checkpoint at a time");
        self.freezing = Some(Freezing { swept_revision: self.swept_revision });
        let shards = self.shards.iter_mut().map(|shard| {
            shard.frozen = shard.delta.freeze();
            FrozenShard {
                frozen: shard.frozen.clone(),
                index: shard.index.root(),
                dead: std::mem::take(&mut shard.dead),
                removed_keys: std::mem::take(&mut shard.removed_keys),
                sum: shard.sum,
            }
        });
        Frozen {
            shards: shards.collect(),
            system: self.system.take_touched(),
            system_sum: self.system_sum,
            revision: self.revision,
            compact_revision: self.compact_revision,
            applied: self.applied,
            time_unix_ns: self.time_unix_ns,
            conf_state: self.conf_state.clone(),
            version: self.version,
            rewrite_all: false,
        }
    }

    /// The frozen revisions are in pages now: reads go there from the next View on.
    pub fn checkpointed(&mut self, shards: Vec<Checkpointed>) {
        let Freezing { swept_revision } = self.freezing.take().expect("no checkpoint runs");
        assert_eq!(shards.len(), self.shards.len(), "a checkpoint covers all shards");
        self.swept_in_pages = swept_revision;
        for (shard, checkpointed) in self.shards.iter_mut().zip(shards) {
            shard.checkpointed = checkpointed;
            shard.frozen = DeltaView::default();
        }
    }

    /// The checkpoint of `frozen` was abandoned: all of it belongs to the next one.
    pub fn checkpoint_failed(&mut self, frozen: Frozen) {
        assert!(self.freezing.take().is_some(), "no checkpoint runs");
        self.system.touch_again(&frozen.system);
        for (shard, given_back) in self.shards.iter_mut().zip(frozen.shards) {
            let mut delta = Delta::default();
            let newer = shard.delta.freeze();
            given_back.frozen.iter().chain(newer.iter()).for_each(|entry| delta.append(entry.clone()));
            shard.delta = delta;
            shard.frozen = DeltaView::default();
            shard.dead.splice(..0, given_back.dead);
            shard.removed_keys.splice(..0, given_back.removed_keys);
        }
    }
}
