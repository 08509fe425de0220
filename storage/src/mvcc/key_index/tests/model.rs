//! A naive index, and the index beside it with every answer compared.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use crate::mvcc::key_index::*;
use crate::mvcc::key_range::KeyRange;
use crate::revision::Revision;

/// One stored revision: of a put its state, of a delete none.
pub(super) type Stored = (Revision, Option<KeyState>);

/// Every key with all that is stored of it, oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    pub(super) keys: BTreeMap<Vec<u8>, Vec<Stored>>,
}

impl Model {
    pub(super) fn newest(&self, key: &[u8]) -> Option<Stored> {
        self.keys.get(key)?.last().copied()
    }

    pub(super) fn put(&mut self, key: &[u8], revision: Revision, lease: i64) -> KeyState {
        let live = self.newest(key).and_then(|(_, state)| state);
        let (create_revision, version) = live.map_or((revision.main, 0), |s| (s.create_revision, s.version));
        let state = KeyState { create_revision, mod_revision: revision, version: version + 1, lease };
        self.keys.entry(key.to_vec()).or_default().push((revision, Some(state)));
        state
    }

    pub(super) fn delete(&mut self, key: &[u8], revision: Revision) {
        self.keys.get_mut(key).unwrap().push((revision, None));
    }

    /// Compacts the keys below `end`, all if there is none.
    pub(super) fn compact(&mut self, at: i64, end: Option<&[u8]>) -> Vec<Revision> {
        let mut dropped = Vec::new();
        for (_, stored) in self.keys.iter_mut().filter(|(key, _)| end.is_none_or(|end| key.as_slice() < end)) {
            let below = stored.iter().take_while(|(revision, _)| revision.main <= at).count();
            let Some(base) = below.checked_sub(1) else { continue };
            let gone = stored[base].1.is_none() && stored[base].0.main < at;
            dropped.extend(stored.drain(..base + usize::from(gone)).map(|(revision, _)| revision));
        }
        self.keys.retain(|_, stored| !stored.is_empty());
        dropped.sort();
        dropped
    }

    pub(super) fn at(stored: &[Stored], at: i64) -> Option<Stored> {
        let at = if at <= 0 { i64::MAX } else { at };
        stored.iter().rfind(|(revision, _)| revision.main <= at).copied().filter(|(_, state)| state.is_some())
    }

    pub(super) fn scan(&self, range: &KeyRange, at: i64) -> Vec<(Vec<u8>, Revision)> {
        let in_range = self.keys.iter().filter(|(key, _)| range.contains(key));
        in_range.filter_map(|(key, stored)| Some((key.clone(), Self::at(stored, at)?.0))).collect()
    }
}

pub(super) fn scan(root: &IndexRoot, range: &KeyRange, at: i64) -> Vec<(Vec<u8>, Revision)> {
    let mut found = Vec::new();
    let end = root.scan::<()>(range, at, |key, revision| {
        found.push((key.to_vec(), revision));
        ControlFlow::Continue(())
    });
    assert_eq!(end, ControlFlow::Continue(()));
    found
}

pub(super) fn records(root: &IndexRoot, after: i64) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut found = Vec::new();
    let _ = root.scan_records::<()>(&KeyRange::ALL, after, |key, record| {
        found.push((key.to_vec(), record));
        ControlFlow::Continue(())
    });
    found
}

pub(super) fn reload(root: &IndexRoot) -> KeyIndex {
    let mut builder = IndexBuilder::new();
    for (key, record) in records(root, 0) {
        builder.push(&key, &record).unwrap();
    }
    builder.finish()
}

/// Compares every answer of `root` with the model's, at head and at every revision from `compacted` to `newest`.
pub(super) fn check(root: &IndexRoot, model: &Model, ranges: &[KeyRange], compacted: i64, newest: i64) {
    let live = |stored: &Vec<Stored>| stored.last().unwrap().1;
    assert_eq!(root.stored_len(), model.keys.len() as u64);
    assert_eq!(root.len(), model.keys.values().filter_map(live).count() as u64);
    for (key, stored) in &model.keys {
        assert_eq!(root.get(key), live(stored));
        assert!(root.encode_record(key).is_some());
    }
    let mut states = Vec::new();
    let _ = root.scan_head::<()>(&KeyRange::ALL, |key, state| {
        states.push((key.to_vec(), state));
        ControlFlow::Continue(())
    });
    assert!(states.into_iter().eq(model.keys.iter().filter_map(|(key, stored)| Some((key.clone(), live(stored)?)))));
    for at in std::iter::once(0).chain(compacted.max(1)..=newest + 1) {
        for range in ranges.iter().chain([&KeyRange::ALL]) {
            let expected = model.scan(range, at);
            assert_eq!(root.count(range, at), expected.len() as u64, "count of {range:?} at {at}");
            assert_eq!(scan(root, range, at), expected, "scan of {range:?} at {at}");
        }
        for (key, stored) in &model.keys {
            assert_eq!(root.at(key, at), Model::at(stored, at).map(|(revision, _)| revision), "{key:?} at {at}");
        }
    }
}

/// One step of both.
#[derive(Clone, Debug)]
pub(super) enum Op {
    Put(Vec<u8>, i64),
    Delete(Vec<u8>),
    /// Deletes and puts again within one transaction.
    Replace(Vec<u8>),
    Compact {
        behind: i64,
        budget: usize,
    },
    Publish,
    Reload,
}

/// The index, its model, and what was published, each with the model of that moment.
#[derive(Default)]
pub(super) struct Pair {
    pub(super) index: KeyIndex,
    pub(super) model: Model,
    pub(super) main: i64,
    pub(super) compacted: i64,
    /// The compaction that runs: its revision, and where its next step starts.
    pub(super) compacting: Option<(i64, Option<Vec<u8>>)>,
    pub(super) published: Vec<(IndexRoot, Model, i64, i64)>,
}

impl Pair {
    pub(super) fn put(&mut self, key: &[u8], revision: Revision, lease: i64) {
        let before = self.model.newest(key);
        let state = self.model.put(key, revision, lease);
        let outcome = self.index.put(key, revision, lease);
        let previous = before.and_then(|(_, state)| state);
        let previous_revision = before.map(|(revision, _)| revision);
        assert_eq!(outcome, PutOutcome { previous, previous_revision, state });
    }

    pub(super) fn delete(&mut self, key: &[u8], revision: Revision) {
        let previous = self.model.newest(key).and_then(|(_, state)| state);
        assert_eq!(self.index.delete(key, revision), previous.map(|previous| DeleteOutcome { previous }));
        if previous.is_some() {
            self.model.delete(key, revision);
        }
    }

    /// One step of the compaction that runs, or of a new one at `at`.
    pub(super) fn compact_step(&mut self, at: i64, budget: usize) {
        let (at, cursor) = self.compacting.take().unwrap_or((at, None));
        let mut step = self.index.compact_step(at, cursor, budget);
        step.dropped.sort();
        assert_eq!(step.dropped, self.model.compact(at, step.next.as_deref()), "compaction at {at}");
        self.compacted = at;
        match step.next {
            Some(next) => self.compacting = Some((at, Some(next))),
            None => assert_eq!(self.index.compact_step(at, None, 1), CompactStep::default(), "nothing is left to drop"),
        }
    }

    /// A whole compaction.
    pub(super) fn compact(&mut self, at: i64, budget: usize) {
        self.compact_step(at, budget);
        while self.compacting.is_some() {
            self.compact_step(at, budget);
        }
    }

    pub(super) fn apply(&mut self, op: Op) {
        self.main += 1;
        match op {
            Op::Put(key, lease) => self.put(&key, Revision::new(self.main, 0), lease),
            Op::Delete(key) => self.delete(&key, Revision::new(self.main, 0)),
            Op::Replace(key) => {
                self.delete(&key, Revision::new(self.main, 0));
                self.put(&key, Revision::new(self.main, 1), 7);
            }
            Op::Compact { behind, budget } => {
                let at = (self.main - 1 - behind).max(self.compacted);
                self.compact_step(at, budget);
            }
            Op::Publish => self.published.push((self.index.root(), self.model.clone(), self.compacted, self.main)),
            Op::Reload => self.index = reload(self.index.head()),
        }
    }
}

/// Some 64 bytes, namespaces and deployments interleaved.
pub(super) fn kubernetes_key(number: u64) -> Vec<u8> {
    let scrambled = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let (namespace, hash) = (scrambled % 97, scrambled >> 24);
    format!("/registry/pods/namespace-{namespace:02}/deployment-{:07}-{hash:010x}-{:05x}", hash % 331, number)
        .into_bytes()
}
