//! A write transaction: it sees its own writes, shares one main revision, and changes nothing until it is installed.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;

use super::key_index::KeyState;
use super::key_range::{KeyRange, RangeEnd};
use super::key_value::KeyValue;
use super::range::{Hit, RangePlan, RangeQuery, RevisionError};
use super::shard_map::ShardId;
use super::store::Store;
use crate::revision::Revision;

/// One stored revision that a transaction makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Where the key lives.
    pub shard: ShardId,
    /// The key.
    pub key: Bytes,
    /// The new revision.
    pub revision: Revision,
    /// The live version that this one replaces or deletes. Never a tombstone: whether one is still stored says how far
    /// this member's compaction is, and changes are equal on all members.
    pub previous: Option<Revision>,
    /// What happens to the key.
    pub kind: ChangeKind,
}

/// What happens to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It gets a value.
    Put {
        /// The encoded KeyValue to store.
        key_value: Bytes,
        /// Main revision of the put that created the key; this one's for a new key.
        create_revision: i64,
        /// The attached lease, or 0.
        lease: i64,
    },
    /// It is deleted.
    Delete,
}

/// What a put replaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replaced {
    /// The live version before, to be fetched for `prev_kv`.
    pub previous: Option<Hit>,
}

/// A transaction over a store's latest state. Dropped, it leaves no trace; [`Self::finish`] gives what
/// [`Store::install`] takes.
pub struct Transaction<'a> {
    store: &'a Store,
    changes: Vec<Change>,
    /// Keys of `changes`: the live state after it, or none once deleted.
    written: BTreeMap<Bytes, Option<KeyState>>,
}

impl<'a> Transaction<'a> {
    pub(super) fn new(store: &'a Store) -> Self {
        Self { store, changes: Vec::new(), written: BTreeMap::new() }
    }

    /// The state it began with.
    pub fn store(&self) -> &'a Store {
        self.store
    }

    /// The revision that a header shows: one above the store's once something changed.
    pub fn revision(&self) -> i64 {
        self.store.revision() + i64::from(!self.changes.is_empty())
    }

    /// The live state of a key.
    pub fn get(&self, key: &[u8]) -> Option<KeyState> {
        match self.written.get(key) {
            Some(state) => *state,
            None => self.store.get(key),
        }
    }

    /// Where the live version of a key is stored.
    pub fn hit(&self, key: &[u8]) -> Option<Hit> {
        let shard = self.store.shard_map().shard_of(key);
        self.get(key).map(|state| Hit { shard, revision: state.mod_revision })
    }

    /// Puts a value. A put without a lease detaches the old one (etcd-contract 19).
    pub fn put(&mut self, key: &Bytes, value: &[u8], lease: i64) -> Replaced {
        let shard = self.store.shard_map().shard_of(key);
        let revision = self.next_revision();
        let live = self.get(key);
        let previous = live.map(|state| state.mod_revision);
        let create_revision = live.map_or(revision.main, |state| state.create_revision);
        let version = live.map_or(1, |state| state.version + 1);
        let key_value = KeyValue { key, create_revision, mod_revision: revision.main, version, value, lease }.encode();
        let key = KeyValue::key_of(&key_value);
        let state = KeyState { create_revision, mod_revision: revision, version, lease };
        self.written.insert(key.clone(), Some(state));
        let kind = ChangeKind::Put { key_value, create_revision, lease };
        self.changes.push(Change { shard, key, revision, previous, kind });
        Replaced { previous: previous.map(|revision| Hit { shard, revision }) }
    }

    /// Deletes all live keys of a range, in key order over all shards; gives the deleted versions.
    pub fn delete_range(&mut self, range: &KeyRange) -> Vec<Hit> {
        let doomed = self.live(range);
        for (key, hit) in &doomed {
            let revision = self.next_revision();
            let previous = Some(hit.revision);
            self.written.insert(key.clone(), None);
            let kind = ChangeKind::Delete;
            self.changes.push(Change { shard: hit.shard, key: key.clone(), revision, previous, kind });
        }
        doomed.into_iter().map(|(_, hit)| hit).collect()
    }

    /// Plans a range that sees this transaction's writes when it asks for the latest revision.
    ///
    /// # Errors
    /// [`RevisionError`]; a negative revision is the latest here, callers check it (etcd-contract 11).
    pub fn plan(&self, query: &RangeQuery) -> Result<RangePlan, RevisionError> {
        if self.changes.is_empty() || (query.revision > 0 && query.revision <= self.store.revision()) {
            let mut plan = self.store.head().plan(query)?;
            plan.revision = self.revision();
            return Ok(plan);
        }
        if query.revision > self.revision() {
            return Err(RevisionError::Future);
        }
        let live = self.live(&query.range);
        let count = live.len() as u64;
        let hits_max = if query.count_only { 0 } else { query.hits_max() };
        let hits = live.into_iter().take(hits_max).map(|(_, hit)| hit).collect();
        Ok(query.planned(self.revision(), count, hits))
    }

    /// The changes in the order they were made.
    pub fn finish(self) -> Vec<Change> {
        self.changes
    }

    fn next_revision(&self) -> Revision {
        let sub = i64::try_from(self.changes.len()).expect("a transaction holds far fewer than 2^63 changes");
        Revision::new(self.store.revision() + 1, sub)
    }

    /// Live keys of a range with this transaction's writes, ascending.
    fn live(&self, range: &KeyRange) -> Vec<(Bytes, Hit)> {
        if range.end == RangeEnd::Single {
            let key = || Bytes::copy_from_slice(&range.start);
            return self.hit(&range.start).map(|hit| (key(), hit)).into_iter().collect();
        }
        let mut live = BTreeMap::new();
        for shard in self.store.shard_map().shards_of(range) {
            let _: ControlFlow<()> = self.store.index(shard).scan(range, 0, |key, revision| {
                live.insert(Bytes::copy_from_slice(key), Hit { shard, revision });
                ControlFlow::Continue(())
            });
        }
        for (key, state) in self.written.iter().filter(|(key, _)| range.contains(key)) {
            match state {
                Some(state) => {
                    let shard = self.store.shard_map().shard_of(key);
                    live.insert(key.clone(), Hit { shard, revision: state.mod_revision });
                }
                None => drop(live.remove(key)),
            }
        }
        live.into_iter().collect()
    }
}
