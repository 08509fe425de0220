//! HashKV against figures of a real etcd, and against a plain transcription of its algorithm.

mod jobs;

use std::collections::{BTreeMap, HashSet};

use proptest::prelude::*;

use super::*;
use crate::revision::Revision;

/// One stored revision with its bytes.
#[derive(Clone, Debug)]
struct Stored {
    tombstone: bool,
    previous: Option<Revision>,
    value: Vec<u8>,
}

type Store = BTreeMap<Revision, Stored>;

fn bucket_key(revision: Revision, tombstone: bool) -> Vec<u8> {
    if tombstone { revision.to_tombstone_key().to_vec() } else { revision.to_key().to_vec() }
}

fn slots(store: &Store) -> Vec<HashSlot> {
    let slot = |(revision, stored): (&Revision, &Stored)| {
        let bytes = [bucket_key(*revision, stored.tombstone), stored.value.clone()].concat();
        let (crc, length) = (crc32c::crc32c(&bytes), bytes.len() as u32);
        HashSlot { revision: *revision, tombstone: stored.tombstone, previous: stored.previous, crc, length }
    };
    store.iter().map(slot).collect()
}

fn hash_kv(store: &Store, scope: HashScope) -> u32 {
    let slots = slots(store);
    let mut superseded = Superseded::new(scope);
    slots.iter().for_each(|slot| superseded.note(slot.revision, slot.tombstone, slot.previous));
    let mut hasher = superseded.into_hasher();
    slots.iter().for_each(|slot| hasher.push(slot).unwrap());
    hasher.finish().hash
}

fn scope(revision: i64, compact_revision: i64) -> HashScope {
    HashScope { revision, compact_revision, swept_revision: -1, purpose: HashPurpose::Request }
}

/// A put of a one-letter key, encoded as etcd does.
fn put(key: u8, value: u8, create: u8, revision: u8, version: u8) -> Vec<u8> {
    vec![0x0a, 1, key, 0x10, create, 0x18, revision, 0x20, version, 0x2a, 1, value]
}

fn stored(previous: Option<i64>, value: Vec<u8>) -> Stored {
    let tombstone = value.len() == 3;
    Stored { tombstone, previous: previous.map(|main| Revision::new(main, 0)), value }
}

fn store_of(entries: impl IntoIterator<Item = (i64, Stored)>) -> Store {
    entries.into_iter().map(|(main, stored)| (Revision::new(main, 0), stored)).collect()
}

/// Read from an etcd 3.7.3: puts of `1` to a and b, Compact 3, a put of `2` to a.
#[test]
fn figures_of_etcd_with_the_filter_on() {
    let two_puts = [(2, stored(None, put(b'a', b'1', 2, 2, 1))), (3, stored(None, put(b'b', b'1', 3, 3, 1)))];
    let mut store = store_of(two_puts);
    assert_eq!(hash_kv(&store, scope(3, -1)), 2_143_169_314);
    store.extend(store_of([(4, stored(Some(2), put(b'a', b'2', 2, 4, 2)))]));
    assert_eq!(hash_kv(&store, scope(4, 3)), 2_393_049_859);
}

/// Read from an etcd 3.7.3: a put of `1` to a, Compact 2, a deletion; then Compact 3, whose own hash differs.
#[test]
fn figures_of_etcd_with_the_filter_off() {
    let store = store_of([(2, stored(None, put(b'a', b'1', 2, 2, 1))), (3, stored(Some(2), vec![0x0a, 1, b'a']))]);
    assert_eq!(hash_kv(&store, scope(3, 2)), 3_520_211_144);
    let compaction = HashScope { purpose: HashPurpose::Compaction, ..scope(3, 2) };
    assert_eq!(hash_kv(&store, compaction), 3_681_333_679);
}

#[test]
fn a_negative_revision_hashes_the_bucket_name() {
    let store = store_of([(2, stored(None, put(b'a', b'1', 2, 2, 1)))]);
    assert_eq!(hash_kv(&store, scope(-5, -1)), 1_084_519_789);
}

#[test]
fn slots_must_ascend() {
    let slot = slots(&store_of([(2, stored(None, put(b'a', b'1', 2, 2, 1)))]))[0];
    let mut hasher = Superseded::new(scope(9, -1)).into_hasher();
    hasher.push(&slot).unwrap();
    assert_eq!(hasher.push(&slot), Err(HashError::OutOfOrder { revision: slot.revision }));
}

/// etcd's `keyIndex`: the revisions of one key, in generations that end with a tombstone; the last is open.
#[derive(Clone, Debug, Default)]
struct KeyIndex {
    generations: Vec<Vec<Revision>>,
}

impl KeyIndex {
    fn put(&mut self, revision: Revision) {
        if self.generations.is_empty() {
            self.generations.push(vec![]);
        }
        self.generations.last_mut().unwrap().push(revision);
    }

    fn tombstone(&mut self, revision: Revision) {
        self.put(revision);
        self.generations.push(vec![]);
    }

    fn is_alive(&self) -> bool {
        self.generations.last().is_some_and(|generation| !generation.is_empty())
    }

    fn is_empty(&self) -> bool {
        self.generations.len() == 1 && self.generations[0].is_empty()
    }

    /// `doCompact`.
    fn find(&self, at: i64, available: &mut HashSet<Revision>) -> (usize, Option<usize>) {
        let mut index = 0;
        while index < self.generations.len() - 1 && self.generations[index].last().unwrap().main < at {
            index += 1;
        }
        let found = self.generations[index].iter().rposition(|revision| revision.main <= at);
        available.extend(found.map(|found| self.generations[index][found]));
        (index, found)
    }

    fn compact(&mut self, at: i64, available: &mut HashSet<Revision>) {
        let (index, found) = self.find(at, available);
        if let Some(found) = found {
            self.generations[index].drain(..found);
        }
        self.generations.drain(..index);
    }

    fn keep(&self, at: i64, available: &mut HashSet<Revision>) {
        if self.is_empty() {
            return;
        }
        let (index, found) = self.find(at, available);
        let generation = &self.generations[index];
        if found.is_some() && found == generation.len().checked_sub(1) && index != self.generations.len() - 1 {
            available.remove(generation.last().unwrap());
        }
    }
}

/// etcd's store as far as hashes see it.
#[derive(Clone, Debug)]
struct Etcd {
    revision: i64,
    compact_revision: i64,
    index: BTreeMap<u8, KeyIndex>,
    stored: Store,
}

impl Etcd {
    fn new() -> Self {
        Self { revision: 1, compact_revision: -1, index: BTreeMap::new(), stored: Store::new() }
    }

    /// `newKVHasher` and `WriteKeyValue` over everything stored.
    fn hash(&self, compact_revision: i64, revision: i64, keep: &HashSet<Revision>) -> u32 {
        let mut hash = crc32c::crc32c(b"key");
        for (at, stored) in &self.stored {
            let filtered = at.main <= compact_revision && !keep.is_empty() && !keep.contains(at);
            if at.main > revision || filtered || (at.main == compact_revision && stored.tombstone) {
                continue;
            }
            hash = crc32c::crc32c_append(hash, &bucket_key(*at, stored.tombstone));
            hash = crc32c::crc32c_append(hash, &stored.value);
        }
        hash
    }

    fn hash_by_revision(&self, revision: i64) -> u32 {
        let mut keep = HashSet::new();
        self.index.values().for_each(|key| key.keep(revision, &mut keep));
        self.hash(self.compact_revision, revision, &keep)
    }

    /// `scheduleCompaction`: returns the hash that it stores.
    fn compact(&mut self, revision: i64) -> u32 {
        let mut keep = HashSet::new();
        self.index.values_mut().for_each(|key| key.compact(revision, &mut keep));
        self.index.retain(|_, key| !key.is_empty());
        let hash = self.hash(self.compact_revision, revision, &keep);
        self.stored.retain(|at, _| at.main > revision || keep.contains(at));
        self.compact_revision = revision;
        hash
    }
}

#[derive(Clone, Debug)]
enum Operation {
    /// One transaction: each key is put or, if it is alive and the flag says so, deleted.
    Write(BTreeMap<u8, bool>),
    Compact(prop::sample::Index),
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let write = proptest::collection::btree_map(0u8..4, prop::bool::weighted(0.6), 1..3).prop_map(Operation::Write);
    let compact = any::<prop::sample::Index>().prop_map(Operation::Compact);
    proptest::collection::vec(prop_oneof![4 => write, 1 => compact], 1..25)
}

/// Drives etcd's algorithm and keeps beside it all revisions ever written, as a store that never compacted has them.
struct Harness {
    etcd: Etcd,
    all: Store,
    last: BTreeMap<u8, Revision>,
    /// What was stored, and the compact revision, before the last compaction.
    before: (Store, i64),
    names_tombstones: bool,
}

impl Harness {
    fn write(&mut self, keys: &BTreeMap<u8, bool>) {
        let main = self.etcd.revision + 1;
        for (sub, (key, delete)) in (0..).zip(keys) {
            let index = self.etcd.index.entry(*key).or_default();
            let (alive, revision) = (index.is_alive(), Revision::new(main, sub));
            let tombstone = *delete && alive;
            if tombstone {
                index.tombstone(revision)
            } else {
                index.put(revision)
            }
            let previous = self.last.insert(*key, revision).filter(|_| alive || self.names_tombstones);
            let stored = Stored { tombstone, previous, value: vec![*key; usize::from(*key) * 3] };
            for store in [&mut self.etcd.stored, &mut self.all, &mut self.before.0] {
                store.insert(revision, stored.clone());
            }
        }
        self.etcd.revision = main;
    }

    fn compact(&mut self, at: &prop::sample::Index) -> Result<(), TestCaseError> {
        let span = self.etcd.revision - self.etcd.compact_revision;
        let revision = self.etcd.compact_revision + 1 + at.index(span as usize) as i64;
        self.before = (self.etcd.stored.clone(), self.etcd.compact_revision);
        let scope = HashScope { purpose: HashPurpose::Compaction, ..scope(revision, self.before.1) };
        let hash = self.etcd.compact(revision);
        let finished = HashScope { swept_revision: self.before.1, ..scope };
        prop_assert_eq!(hash_kv(&self.before.0, finished), hash);
        prop_assert_eq!(hash_kv(&self.all, scope), hash);
        Ok(())
    }

    /// The same hashes whether compaction never ran, is running or has finished.
    fn check(&self) -> Result<(), TestCaseError> {
        let compact_revision = self.etcd.compact_revision;
        for revision in compact_revision.max(1)..=self.etcd.revision {
            let expected = self.etcd.hash_by_revision(revision);
            let scope = scope(revision, compact_revision);
            prop_assert_eq!(hash_kv(&self.all, scope), expected);
            let running = HashScope { swept_revision: self.before.1, ..scope };
            prop_assert_eq!(hash_kv(&self.before.0, running), expected);
            let finished = HashScope { swept_revision: compact_revision, ..scope };
            prop_assert_eq!(hash_kv(&self.etcd.stored, finished), expected);
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn equals_etcds_algorithm(operations in operations(), names_tombstones: bool) {
        let (all, last, before) = (Store::new(), BTreeMap::new(), (Store::new(), -1));
        let mut harness = Harness { etcd: Etcd::new(), all, last, before, names_tombstones };
        for operation in &operations {
            match operation {
                Operation::Write(keys) => harness.write(keys),
                Operation::Compact(_) if harness.etcd.compact_revision == harness.etcd.revision => {}
                Operation::Compact(at) => harness.compact(at)?,
            }
            harness.check()?;
        }
    }
}
