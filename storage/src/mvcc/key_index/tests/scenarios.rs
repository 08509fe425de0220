//! Shapes that random operations seldom reach: many leaves, long keys, many versions, extremes, memory.

use super::model::{Op, Pair, check, kubernetes_key, records, reload, scan};
use crate::mvcc::key_index::node::Node;
use crate::mvcc::key_index::unshared::unshared_bytes;
use crate::mvcc::key_index::*;
use crate::mvcc::key_range::KeyRange;
use crate::revision::Revision;

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
    println!("{per_key} bytes a key, itself of {} on average", key_bytes / KEYS);
    assert!(per_key < 80, "{per_key} bytes a key");
    let counted = unshared_bytes(&index.head().node, &Node::default(), u64::MAX);
    assert_eq!(index.head().memory_bytes(), counted, "the running figure is the sum over all nodes");
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
fn a_loaded_record_may_claim_the_last_version() {
    let mut record = vec![0, 5, 0];
    record.extend([0xff; 8]);
    record.push(0x7f);
    let mut builder = IndexBuilder::new();
    builder.push(b"k", &record).unwrap();
    let mut index = builder.finish();
    assert_eq!(index.head().newest_main(), 5);
    assert_eq!(index.put(b"k", Revision::new(6, 0), 0).state.version, i64::MAX);
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

#[test]
fn readers_on_other_threads_keep_their_version() {
    let mut index = KeyIndex::new();
    for number in 0..2_000 {
        index.put(&kubernetes_key(number as u64), Revision::new(number + 1, 0), 0);
    }
    let root = index.root();
    let before = scan(&root, &KeyRange::ALL, 0);
    std::thread::scope(|threads| {
        let reader = threads.spawn(|| (0..20).all(|_| scan(&root, &KeyRange::ALL, 0) == before));
        for number in 0..2_000 {
            let key = kubernetes_key(number as u64);
            match number % 3 {
                0 => drop(index.delete(&key, Revision::new(number + 5_000, 0))),
                _ => drop(index.put(&key, Revision::new(number + 5_000, 0), 0)),
            }
        }
        index.compact_step(7_000, None, usize::MAX);
        assert!(reader.join().expect("the reader did not panic"));
    });
    assert_eq!((root.len(), index.head().len()), (2_000, 1_333));
}
