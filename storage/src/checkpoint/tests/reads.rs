//! Stores between checkpoints, full disks, stops and restarts: what is read, and what is on the disk.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use crate::mvcc::fetch::Fetch;
use crate::mvcc::history::History;
use crate::mvcc::key_range::KeyRange;
use crate::mvcc::range::RangeQuery;
use crate::mvcc::shard_map::ShardId;
use crate::mvcc::view::View;
use crate::revision::Revision;
use crate::snapshot::view_rig::{Event, ViewRig, Written, events_and_stops};

/// The live keys at a revision, in order.
fn live(written: &BTreeMap<Revision, Written>, at: i64) -> Vec<Bytes> {
    let mut live = BTreeMap::new();
    for (_, written) in written.range(..Revision::new(at + 1, 0)) {
        live.insert(&written.key, written);
    }
    live.into_values().filter(|written| !written.tombstone).map(|written| written.key_value.clone()).collect()
}

/// Every readable revision answers as if there were no checkpoints and no compaction.
fn check_reads(rig: &ViewRig, view: &Arc<View>) {
    for at in view.compact_revision.max(1)..=view.revision {
        let plan = view.plan(&RangeQuery { revision: at, ..RangeQuery::all(KeyRange::ALL) }).unwrap();
        let values = rig.run(&mut Fetch::new(view.clone(), plan.hits), 1).unwrap();
        let expected = live(&rig.written, at);
        assert_eq!(values.len(), expected.len(), "live keys at {at}");
        assert!(values == expected, "other values at {at}");
        assert_eq!(plan.count, expected.len() as i64);
    }
}

/// A watch from the compact revision on finds everything above it.
fn check_history(rig: &ViewRig, view: &Arc<View>) {
    let from = Revision::new(view.compact_revision.max(0) + 1, 0);
    let to = Revision::new(view.revision, i64::MAX);
    for shard in (0..view.shards.len() as u32).map(ShardId) {
        let mut history = History::new(view.clone(), shard, from, to, usize::MAX);
        let found = rig.run(&mut history, 1).unwrap().entries;
        let expected = rig.written.range(from..).filter(|(_, w)| view.shard_map.shard_of(&w.key) == shard);
        assert!(
            found.iter().map(|entry| (&entry.revision, &entry.key_value)).eq(expected.map(|(r, w)| (r, &w.key_value)))
        );
    }
}

/// Bytes stored in pages and bytes that live there, over all shards.
fn stored_and_live(rig: &ViewRig) -> (u64, u64) {
    let view = rig.view();
    let roots = view.shards.iter().map(|shard| &shard.checkpointed.root.root);
    roots.fold((0, 0), |(stored, live), root| (stored + root.stored_bytes, live + root.live_bytes))
}

/// A store of 8 MB in one checkpoint, of which a compaction dropped three of five keys.
fn mostly_deleted() -> ViewRig {
    let mut rig = ViewRig::new();
    let keys: Vec<String> = (0..8000).map(|number| format!("/registry/pods/{number:05}")).collect();
    for keys in keys.chunks(100) {
        rig.write(&keys.iter().map(|key| (key.as_str(), Some(vec![7; 1000]))).collect::<Vec<_>>());
    }
    rig.checkpoint();
    let deleted = keys.iter().enumerate().filter(|(number, _)| number % 5 < 3);
    let deleted: Vec<_> = deleted.map(|(_, key)| (key.as_str(), None)).collect();
    deleted.chunks(100).for_each(|keys| rig.write(keys));
    rig.store.compact(rig.store.revision());
    rig.sweep();
    rig
}

#[test]
fn checkpoints_without_changes_go_on_rewriting_until_little_is_garbage() {
    let mut rig = mostly_deleted();
    assert!(!rig.checkpoint_and_rewrite(false));
    let mut checkpoints = 1;
    while !rig.checkpoint_and_rewrite(false) {
        checkpoints += 1;
        assert!(checkpoints < 50);
    }
    let (stored, live) = stored_and_live(&rig);
    assert!(checkpoints > 1 && stored * 4 <= live * 5, "{stored} bytes for {live} after {checkpoints} checkpoints");
    rig.verify();
    check_reads(&rig, &rig.view());
}

#[test]
fn tidying_goes_on_after_a_restart() {
    let mut rig = mostly_deleted();
    rig.apply(&Event::Reopen);
    assert!(!rig.checkpoint_and_rewrite(false));
    while !rig.checkpoint_and_rewrite(false) {}
    let (stored, live) = stored_and_live(&rig);
    assert!(stored * 4 <= live * 5, "{stored} bytes for {live}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_checkpoint_that_rewrites_all_leaves_nothing_dead(events in events_and_stops()) {
        let mut rig = ViewRig::new();
        events.iter().for_each(|event| rig.apply(event));
        rig.sweep();
        // What is frozen already was frozen before the last of it was dropped.
        rig.checkpoint();
        let mut checkpoints = 0;
        while !rig.checkpoint_and_rewrite(true) {
            checkpoints += 1;
            prop_assert!(checkpoints < 3);
        }
        let (stored, live) = stored_and_live(&rig);
        prop_assert_eq!(stored, live);
        rig.verify();
        check_reads(&rig, &rig.view());
        check_history(&rig, &rig.view());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn reads_do_not_depend_on_checkpoints(events in events_and_stops()) {
        let mut rig = ViewRig::new();
        for event in &events {
            // A View taken before answers as before, whatever becomes of the pages beneath it.
            let before = (rig.view(), rig.written.clone());
            rig.apply(event);
            check_reads(&rig, &rig.view());
            check_history(&rig, &rig.view());
            if !matches!(event, Event::Stop(_) | Event::Reopen) {
                let after = std::mem::replace(&mut rig.written, before.1);
                check_reads(&rig, &before.0);
                rig.written = after;
            }
            rig.verify();
        }
        rig.sweep();
        rig.checkpoint();
        rig.checkpoint();
        let live = |view: &View| view.shards.iter().map(|shard| shard.checkpointed.root.root.live_entries).sum::<u64>();
        prop_assert_eq!(live(&rig.view()), rig.survivors().len() as u64, "what is dropped is marked in the end");
    }
}
