//! The index against a naive model, with snapshots, compactions in steps, reloads and hostile records.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use proptest::prelude::*;

use super::*;
use crate::mvcc::key_range::{KeyRange, RangeEnd};
use crate::revision::Revision;

/// One stored revision: of a put its state, of a delete none.
type Stored = (Revision, Option<KeyState>);

/// Every key with all that is stored of it, oldest first.
#[derive(Clone, Debug, Default)]
struct Model {
    keys: BTreeMap<Vec<u8>, Vec<Stored>>,
}

impl Model {
    fn newest(&self, key: &[u8]) -> Option<Stored> {
        self.keys.get(key)?.last().copied()
    }

    fn put(&mut self, key: &[u8], revision: Revision, lease: i64) -> KeyState {
        let live = self.newest(key).and_then(|(_, state)| state);
        let (create_revision, version) = live.map_or((revision.main, 0), |s| (s.create_revision, s.version));
        let state = KeyState { create_revision, mod_revision: revision, version: version + 1, lease };
        self.keys.entry(key.to_vec()).or_default().push((revision, Some(state)));
        state
    }

    fn delete(&mut self, key: &[u8], revision: Revision) {
        self.keys.get_mut(key).unwrap().push((revision, None));
    }

    fn compact(&mut self, at: i64) -> Vec<Revision> {
        let mut dropped = Vec::new();
        for stored in self.keys.values_mut() {
            let below = stored.iter().take_while(|(revision, _)| revision.main <= at).count();
            let Some(base) = below.checked_sub(1) else { continue };
            let gone = stored[base].1.is_none() && stored[base].0.main < at;
            dropped.extend(stored.drain(..base + usize::from(gone)).map(|(revision, _)| revision));
        }
        self.keys.retain(|_, stored| !stored.is_empty());
        dropped.sort();
        dropped
    }

    fn at(stored: &[Stored], at: i64) -> Option<Stored> {
        let at = if at <= 0 { i64::MAX } else { at };
        stored.iter().rfind(|(revision, _)| revision.main <= at).copied().filter(|(_, state)| state.is_some())
    }

    fn scan(&self, range: &KeyRange, at: i64) -> Vec<(Vec<u8>, Revision)> {
        let in_range = self.keys.iter().filter(|(key, _)| range.contains(key));
        in_range.filter_map(|(key, stored)| Some((key.clone(), Self::at(stored, at)?.0))).collect()
    }
}

fn scan(root: &IndexRoot, range: &KeyRange, at: i64) -> Vec<(Vec<u8>, Revision)> {
    let mut found = Vec::new();
    let end = root.scan::<()>(range, at, |key, revision| {
        found.push((key.to_vec(), revision));
        ControlFlow::Continue(())
    });
    assert_eq!(end, ControlFlow::Continue(()));
    found
}

fn records(root: &IndexRoot, after: i64) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut found = Vec::new();
    let _ = root.scan_records::<()>(&KeyRange::ALL, after, |key, record| {
        found.push((key.to_vec(), record));
        ControlFlow::Continue(())
    });
    found
}

fn reload(root: &IndexRoot) -> KeyIndex {
    let mut builder = IndexBuilder::new();
    for (key, record) in records(root, 0) {
        builder.push(&key, &record).unwrap();
    }
    builder.finish()
}

/// Compares every answer of `root` with the model's, at head and at every revision from `compacted` to `newest`.
fn check(root: &IndexRoot, model: &Model, ranges: &[KeyRange], compacted: i64, newest: i64) {
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

#[derive(Clone, Debug)]
enum Op {
    Put(Vec<u8>, i64),
    Delete(Vec<u8>),
    /// Deletes and puts again within one transaction.
    Replace(Vec<u8>),
    Compact {
        behind: i64,
        leaves_budget: usize,
    },
    Publish,
    Reload,
}

/// Keys with shared prefixes, few enough to be written again.
fn key() -> impl Strategy<Value = Vec<u8>> {
    let prefix =
        prop::sample::select(vec![&b""[..], b"/registry/pods/default/", b"/registry/pods/", b"\0", b"\xff\xff"]);
    let byte = prop::sample::select(vec![0u8, 1, b'a', b'b', 0xfe, 0xff]);
    (prefix, prop::collection::vec(byte, 0..3)).prop_map(|(prefix, tail)| [prefix, &tail].concat())
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        30 => (key(), prop_oneof![3 => Just(0i64), 1 => any::<i64>()]).prop_map(|(key, lease)| Op::Put(key, lease)),
        12 => key().prop_map(Op::Delete),
        2 => key().prop_map(Op::Replace),
        1 => (0i64..8, 1usize..4).prop_map(|(behind, leaves_budget)| Op::Compact { behind, leaves_budget }),
        2 => Just(Op::Publish),
        1 => Just(Op::Reload),
    ]
}

fn range() -> impl Strategy<Value = KeyRange> {
    (key(), prop_oneof![Just(RangeEnd::Single), Just(RangeEnd::Unbounded), key().prop_map(RangeEnd::Before)])
        .prop_map(|(start, end)| KeyRange { start, end })
}

/// The index, its model, and what was published, each with the model of that moment.
#[derive(Default)]
struct Pair {
    index: KeyIndex,
    model: Model,
    main: i64,
    compacted: i64,
    published: Vec<(IndexRoot, Model, i64, i64)>,
}

impl Pair {
    fn put(&mut self, key: &[u8], revision: Revision, lease: i64) {
        let before = self.model.newest(key);
        let state = self.model.put(key, revision, lease);
        let outcome = self.index.put(key, revision, lease);
        let previous = before.and_then(|(_, state)| state);
        let previous_revision = before.map(|(revision, _)| revision);
        assert_eq!(outcome, PutOutcome { previous, previous_revision, state });
    }

    fn delete(&mut self, key: &[u8], revision: Revision) {
        let previous = self.model.newest(key).and_then(|(_, state)| state);
        assert_eq!(self.index.delete(key, revision), previous.map(|previous| DeleteOutcome { previous }));
        if previous.is_some() {
            self.model.delete(key, revision);
        }
    }

    fn compact(&mut self, at: i64, leaves_budget: usize) {
        let (mut cursor, mut dropped) = (None, Vec::new());
        loop {
            let step = self.index.compact_step(at, cursor, leaves_budget);
            dropped.extend(step.dropped);
            cursor = step.next;
            if cursor.is_none() {
                break;
            }
        }
        dropped.sort();
        assert_eq!(dropped, self.model.compact(at), "compaction at {at}");
        self.compacted = at;
        assert_eq!(self.index.compact_step(at, None, 1), CompactStep::default(), "nothing is left to drop");
    }

    fn apply(&mut self, op: Op) {
        self.main += 1;
        match op {
            Op::Put(key, lease) => self.put(&key, Revision::new(self.main, 0), lease),
            Op::Delete(key) => self.delete(&key, Revision::new(self.main, 0)),
            Op::Replace(key) => {
                self.delete(&key, Revision::new(self.main, 0));
                self.put(&key, Revision::new(self.main, 1), 7);
            }
            Op::Compact { behind, leaves_budget } => {
                let at = (self.main - 1 - behind).max(self.compacted);
                self.compact(at, leaves_budget);
            }
            Op::Publish => self.published.push((self.index.root(), self.model.clone(), self.compacted, self.main)),
            Op::Reload => self.index = reload(self.index.head()),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn every_root_answers_every_revision_as_the_model(
        ops in prop::collection::vec(op(), 1..160),
        ranges in prop::collection::vec(range(), 1..4),
    ) {
        let mut pair = Pair::default();
        ops.into_iter().for_each(|op| pair.apply(op));
        pair.apply(Op::Publish);
        for (root, model, compacted, newest) in pair.published.iter().rev().take(4) {
            check(root, model, &ranges, (*compacted).max(newest - 40), *newest);
            let again = reload(root);
            prop_assert_eq!(records(again.head(), 0), records(root, 0));
        }
    }

    #[test]
    fn many_versions_of_few_keys(ops in prop::collection::vec((0u8..3, 0u8..40), 1..600), behind in 0i64..300) {
        let mut pair = Pair::default();
        for (key, kind) in ops {
            match kind {
                0 => pair.apply(Op::Delete(vec![key])),
                1 => pair.apply(Op::Compact { behind, leaves_budget: 1 }),
                2 => pair.apply(Op::Reload),
                _ => pair.apply(Op::Put(vec![key], i64::from(kind))),
            }
        }
        check(&pair.index.root(), &pair.model, &[], pair.compacted, pair.main);
        let again = reload(pair.index.head());
        check(again.head(), &pair.model, &[], pair.compacted, pair.main);
    }

    #[test]
    fn hostile_records_are_errors(
        key in key(),
        mut record in prop::collection::vec(any::<u8>(), 0..40),
        flags in 0u8..16,
    ) {
        if let Some(first) = record.first_mut() {
            *first = flags;
        }
        let mut builder = IndexBuilder::new();
        if builder.push(&key, &record).is_ok() {
            let index = builder.finish();
            let root = index.root();
            prop_assert_eq!(root.stored_len(), 1);
            prop_assert!(root.encode_record(&key).is_some());
            let _ = root.at(&key, 1);
        }
    }

    #[test]
    fn damaged_records_never_panic(at in 0usize..200, bit in 0u8..8, cut in 0usize..200) {
        let mut index = KeyIndex::new();
        for main in 1..70 {
            index.put(b"k", Revision::new(main * 100, main % 2), main);
        }
        let mut record = index.encode_record(b"k").unwrap();
        let at = at % record.len();
        record[at] ^= 1 << bit;
        let mut builder = IndexBuilder::new();
        if builder.push(b"k", &record).is_ok() {
            let mut index = builder.finish();
            let newest = index.encode_record(b"k").unwrap();
            prop_assert_eq!(newest.len(), record.len());
            index.compact_step(3_000, None, 1);
        }
        record.truncate(cut.min(record.len() - 1));
        prop_assert!(IndexBuilder::new().push(b"k", &record).is_err());
    }
}

fn kubernetes_key(number: u64) -> Vec<u8> {
    let scrambled = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let (namespace, hash) = (scrambled % 97, scrambled >> 24);
    format!("/registry/pods/namespace-{namespace:02}/deployment-{:03}-{hash:010x}-{:05x}", hash % 331, number)
        .into_bytes()
}

#[test]
fn splits_joins_and_counts_over_many_leaves() {
    let mut pair = Pair::default();
    for number in 0..4_000 {
        let key = kubernetes_key(number);
        pair.apply(Op::Put(key, 0));
        if number % 500 == 0 {
            pair.apply(Op::Publish);
        }
    }
    let prefix = |prefix: &str, end: &str| KeyRange::from_wire(prefix.as_bytes(), end.as_bytes());
    let ranges = [
        prefix("/registry/pods/namespace-07/", "/registry/pods/namespace-070"),
        prefix("/registry/pods/namespace-1", "/registry/pods/namespace-4"),
        prefix("/registry/pods/", "/registry/pods0"),
        prefix("/registry/pods/namespace-5", "\0"),
    ];
    let check_ranges = |pair: &Pair, at: i64| {
        let root = pair.index.root();
        for range in &ranges {
            assert_eq!(root.count(range, at), pair.model.scan(range, at).len() as u64);
            assert_eq!(scan(&root, range, at), pair.model.scan(range, at));
        }
    };
    [0, 1, 700, 3_999].into_iter().for_each(|at| check_ranges(&pair, at));
    for number in (0..4_000).filter(|number| number % 16 != 3) {
        pair.apply(Op::Delete(kubernetes_key(number)));
    }
    [0, 3_000, pair.main - 100].into_iter().for_each(|at| check_ranges(&pair, at));
    let before = pair.index.head().memory_bytes();
    pair.compact(pair.main, 3);
    check_ranges(&pair, 0);
    assert_eq!(pair.index.head().len(), 250);
    assert!(pair.index.head().memory_bytes() < before / 8, "leaves were joined");
    for (root, model, _, newest) in &pair.published {
        assert_eq!(scan(root, &KeyRange::ALL, 0), model.scan(&KeyRange::ALL, 0));
        assert_eq!(root.count(&ranges[1], newest / 2), model.scan(&ranges[1], newest / 2).len() as u64);
    }
    for number in 0..4_000 {
        pair.apply(Op::Delete(kubernetes_key(number)));
    }
    pair.compact(pair.main + 1, 1_000);
    assert_eq!((pair.index.head().stored_len(), pair.index.head().len()), (0, 0));
    pair.apply(Op::Put(b"again".to_vec(), 0));
    check_ranges(&pair, 0);
}

#[test]
fn long_keys_keep_their_own_leaves() {
    let mut pair = Pair::default();
    let long = |fill: u8, len: usize, tail: &[u8]| [&vec![fill; len], tail].concat();
    for tail in 0..200u8 {
        pair.apply(Op::Put(long(b'p', 60_000, &[tail]), 0));
    }
    pair.apply(Op::Put(b"a".to_vec(), 0));
    pair.apply(Op::Put(b"z".to_vec(), 0));
    pair.apply(Op::Put(Vec::new(), 0));
    for len in [65_536, 65_535, 30_000, 60_000] {
        pair.apply(Op::Put(long(b'p', len, &[]), 0));
    }
    let ranges = [KeyRange::from_wire(&long(b'p', 60_000, &[7]), &long(b'p', 60_000, &[9, 0]))];
    check(&pair.index.root(), &pair.model, &ranges, pair.main - 3, pair.main);
    assert!(pair.index.head().memory_bytes() < 2 << 20, "200 keys share their first 60,000 bytes in a few leaves");
    let again = reload(pair.index.head());
    check(again.head(), &pair.model, &ranges, pair.main - 3, pair.main);
    assert!(again.head().memory_bytes() < 2 << 20);
}

#[test]
fn a_tombstone_at_the_compact_revision_stays_until_the_next() {
    let mut pair = Pair::default();
    pair.apply(Op::Put(b"a".to_vec(), 0));
    pair.apply(Op::Delete(b"a".to_vec()));
    assert_eq!(pair.index.compact_step(2, None, 8).dropped, [Revision::new(1, 0)]);
    assert_eq!((pair.index.head().stored_len(), pair.index.head().len()), (1, 0));
    assert_eq!(pair.index.put(b"b", Revision::new(3, 0), 0).previous_revision, None);
    assert_eq!(pair.index.compact_step(3, None, 8).dropped, [Revision::new(2, 0)]);
    assert_eq!(pair.index.head().stored_len(), 1);
}

#[test]
fn a_compaction_without_drops_copies_nothing() {
    let mut index = KeyIndex::new();
    for number in 0..1_000 {
        index.put(&kubernetes_key(number as u64), Revision::new(number + 1, 0), 0);
    }
    let before = index.root();
    assert_eq!(index.compact_step(900, None, usize::MAX), CompactStep::default());
    assert!(before.shares_all_nodes_with(index.head()));
    index.put(&kubernetes_key(5), Revision::new(2_000, 0), 0);
    assert!(!before.shares_all_nodes_with(index.head()));
}

#[test]
fn a_checkpoint_run_holds_what_was_written_since() {
    let mut index = KeyIndex::new();
    for number in 0..1_000 {
        index.put(&kubernetes_key(number as u64), Revision::new(number + 1, 0), 0);
    }
    index.delete(&kubernetes_key(3), Revision::new(1_001, 0));
    index.put(&kubernetes_key(8), Revision::new(1_002, 0), 0);
    let run = records(index.head(), 1_000);
    let mut expected = vec![kubernetes_key(3), kubernetes_key(8)];
    expected.sort();
    assert_eq!(run.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>(), expected);
    assert!(run.iter().all(|(key, record)| index.encode_record(key).as_ref() == Some(record)));
}

#[test]
fn memory_of_keys_and_of_older_revisions() {
    const KEYS: u64 = 200_000;
    let mut index = KeyIndex::new();
    let mut key_bytes = 0;
    for number in 0..KEYS {
        let key = kubernetes_key(number);
        key_bytes += key.len() as u64;
        index.put(&key, Revision::new(1_000_000_000 + number as i64, 0), 0);
        if number % 64 == 0 {
            index.root();
        }
    }
    let per_key = index.head().memory_bytes() / KEYS;
    println!("{per_key} bytes a key of {} on average", key_bytes / KEYS);
    assert!(per_key < 80, "{per_key} bytes a key");
    let loaded = reload(index.head()).head().memory_bytes() / KEYS;
    assert!(loaded < 60, "{loaded} bytes a loaded key");

    let mut main = 2_000_000_000;
    let before = index.head().memory_bytes();
    const VERSIONS: u64 = 200;
    for _ in 0..VERSIONS {
        for number in 0..100 {
            main += 10_000;
            index.put(&kubernetes_key(number), Revision::new(main, 0), 0);
        }
    }
    let per_revision = (index.head().memory_bytes() - before) as f64 / (VERSIONS * 100) as f64;
    println!("{per_revision:.1} bytes an older revision");
    assert!(per_revision < 8.0, "{per_revision} bytes an older revision");
}

#[test]
fn a_key_with_very_many_versions() {
    let mut index = KeyIndex::new();
    const VERSIONS: i64 = 200_000;
    for main in 1..=VERSIONS {
        index.put(b"hot", Revision::new(main * 2, 0), 0);
    }
    let root = index.root();
    for at in [2, 3, 1_001, 77_777, VERSIONS, VERSIONS * 2 - 1, VERSIONS * 2] {
        assert_eq!(root.at(b"hot", at), Some(Revision::new(at / 2 * 2, 0)));
    }
    assert_eq!(root.at(b"hot", 1), None);
    assert!(root.memory_bytes() < VERSIONS as u64 * 8);
    let step = index.compact_step(300_001, None, 1);
    assert!(step.dropped.iter().map(|revision| revision.main).eq((2..300_000).step_by(2)));
    assert_eq!(index.head().at(b"hot", 300_001), Some(Revision::new(300_000, 0)));
    assert_eq!(index.head().at(b"hot", 299_999), None);
    assert_eq!(root.at(b"hot", 5), Some(Revision::new(4, 0)), "a published root keeps its revisions");
}

#[test]
fn the_widest_revisions_fit() {
    let mut index = KeyIndex::new();
    index.put(b"k", Revision::new(1, 0), i64::MIN);
    index.delete(b"k", Revision::new(i64::MAX - 1, i64::MAX));
    index.put(b"k", Revision::new(i64::MAX, i64::MAX), i64::MAX);
    let again = reload(index.head());
    for root in [index.head(), again.head()] {
        assert_eq!(root.at(b"k", i64::MAX - 2), Some(Revision::new(1, 0)));
        assert_eq!(root.at(b"k", i64::MAX - 1), None);
        assert_eq!(root.get(b"k").map(|state| state.lease), Some(i64::MAX));
    }
    assert_eq!(index.compact_step(i64::MAX, None, 1).dropped.len(), 2);
}

#[test]
fn keys_out_of_order_are_refused() {
    let mut index = KeyIndex::new();
    index.put(b"k", Revision::new(1, 0), 0);
    let record = index.encode_record(b"k").unwrap();
    let mut builder = IndexBuilder::new();
    builder.push(b"k", &record).unwrap();
    assert_eq!(builder.push(b"k", &record), Err(KeyIndexError::NotAscending { position: 1 }));
    let long = vec![0xff; KEY_BYTES_MAX + 1];
    assert_eq!(builder.push(&long, &record), Err(KeyIndexError::KeyTooLong { position: 1, bytes: long.len() }));
    assert_eq!(builder.push(b"l", &[]), Err(KeyIndexError::MalformedRecord { position: 1 }));
}
