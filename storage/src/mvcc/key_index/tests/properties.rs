//! Random writes, snapshots, compactions and reloads against the model; hostile records.

use proptest::prelude::*;

use super::model::{Op, Pair, check, kubernetes_key, records, reload, scan};
use crate::mvcc::key_index::*;
use crate::mvcc::key_range::{KeyRange, RangeEnd};
use crate::revision::Revision;

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
        3 => (0i64..8, 1usize..128).prop_map(|(behind, budget)| Op::Compact { behind, budget }),
        2 => Just(Op::Publish),
        1 => Just(Op::Reload),
    ]
}

fn range() -> impl Strategy<Value = KeyRange> {
    (key(), prop_oneof![Just(RangeEnd::Single), Just(RangeEnd::Unbounded), key().prop_map(RangeEnd::Before)])
        .prop_map(|(start, end)| KeyRange { start, end })
}

/// A write of many keys, numbered from a start, or one of the other operations.
fn bulk() -> impl Strategy<Value = (Op, u64, u64)> {
    let op = prop_oneof![
        6 => Just(Op::Put(Vec::new(), 0)),
        3 => Just(Op::Delete(Vec::new())),
        6 => (0i64..2_000, 1usize..2_560).prop_map(|(behind, budget)| Op::Compact { behind, budget }),
        1 => Just(Op::Publish),
        1 => Just(Op::Reload),
    ];
    (op, 0u64..6_000, 1u64..1_500)
}

fn pods() -> impl Strategy<Value = KeyRange> {
    (0u64..8_000, 0u64..8_000)
        .prop_map(|(start, end)| KeyRange::from_wire(&kubernetes_key(start), &kubernetes_key(end)))
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
                1 => pair.apply(Op::Compact { behind, budget: 1 }),
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn trees_of_several_levels(ops in prop::collection::vec(bulk(), 1..24), ranges in prop::collection::vec(pods(), 3)) {
        let mut pair = Pair::default();
        for (op, start, count) in ops {
            let keys = (start..start + count).map(kubernetes_key);
            match op {
                Op::Put(..) => keys.for_each(|key| pair.apply(Op::Put(key, 0))),
                Op::Delete(_) => keys.for_each(|key| pair.apply(Op::Delete(key))),
                other => pair.apply(other),
            }
        }
        pair.apply(Op::Publish);
        pair.compact(pair.main - 1, 1);
        pair.apply(Op::Publish);
        for (root, model, compacted, newest) in &pair.published {
            for at in [0, *compacted, i64::midpoint(*compacted, *newest), *newest - 1] {
                for range in &ranges {
                    let expected = model.scan(range, at.max(*compacted));
                    prop_assert_eq!(root.count(range, at.max(*compacted)), expected.len() as u64);
                    prop_assert_eq!(scan(root, range, at.max(*compacted)), expected);
                }
            }
            prop_assert_eq!(root.stored_len(), model.keys.len() as u64);
        }
        let again = reload(pair.index.head());
        prop_assert_eq!(records(again.head(), 0), records(pair.index.head(), 0));
    }
}
