//! Snapshots of stores with every mix of pages, frozen revisions and deltas.

use std::sync::Arc;

use bytes::Bytes;
use crc32c::crc32c;
use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::bbolt::{Item, Reader};
use super::view_rig::{ViewRig, events_and_stops};
use super::*;
use crate::hashes::{ContentHash, ContentHashJob, HashedContent};
use crate::mvcc::view::View;
use crate::revision::Revision;

/// Of each stored revision whether it is a tombstone, and length and CRC of its KeyValue: values may be long to print.
type Stored = Vec<(Revision, bool, usize, u32)>;

fn naive(rig: &ViewRig) -> Stored {
    let survivors = rig.survivors();
    let stored = rig.written.iter().filter(|(revision, _)| survivors.contains(revision));
    stored.map(|(revision, w)| (*revision, w.tombstone, w.key_value.len(), crc32c(&w.key_value))).collect()
}

/// The file of a View; checks what is told about it.
fn file(rig: &ViewRig, view: &Arc<View>, tables: SystemTables, budget: usize) -> Bytes {
    let mut snapshot = SnapshotJob::new(view.clone(), tables);
    assert_eq!(snapshot.file_bytes(), None);
    let mut file = Vec::new();
    while let Some(chunks) = rig.run(&mut snapshot.next_chunk(), budget).unwrap() {
        assert!(chunks.iter().any(|chunk| !chunk.is_empty()));
        file.extend(chunks.concat());
        assert!(snapshot.file_bytes().unwrap() >= file.len() as u64);
    }
    assert_eq!(snapshot.file_bytes(), Some(file.len() as u64));
    assert_eq!(snapshot.digest().unwrap(), <[u8; 32]>::from(Sha256::digest(&file)));
    assert!(rig.run(&mut snapshot.next_chunk(), budget).unwrap().is_none());
    Bytes::from(file)
}

/// The revisions in a file, and the hash of its content.
fn read(file: Bytes) -> (Stored, u32) {
    let (mut stored, mut hash, mut in_keys) = (Vec::new(), ContentHash::new(HashedContent::Shared), false);
    for item in Reader::open(file).unwrap().items() {
        match item.unwrap() {
            Item::Bucket(name) => {
                hash.bucket(&name);
                in_keys = name == KEY_BUCKET;
            }
            Item::Entry { key, value } => {
                hash.entry(&key, &value);
                if in_keys {
                    let (revision, tombstone) = Revision::parse(&key).unwrap();
                    stored.push((revision, tombstone, value.len(), crc32c(&value)));
                }
            }
        }
    }
    (stored, hash.finish())
}

fn check(rig: &ViewRig, budget: usize) {
    let view = rig.view();
    let tables = SystemTables::new().with_applied(7, 2).with_lease(5, 60, 0).with_compact_revision(1);
    let (stored, hash) = read(file(rig, &view, tables.clone(), budget));
    assert_eq!(stored, naive(rig));
    let mut content_hash = ContentHashJob::new(view, tables, HashedContent::Shared);
    assert_eq!(rig.run(&mut content_hash, budget).unwrap(), hash);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_snapshot_holds_what_a_finished_compaction_leaves(events in events_and_stops(), budget in 0usize..20) {
        let mut rig = ViewRig::new();
        for event in &events {
            rig.apply(event);
            check(&rig, budget);
        }
    }
}

/// Also those that are empty: etcd's tools look for all of them (etcd-contract 59).
#[test]
fn a_snapshot_has_all_of_etcds_buckets() {
    let file = file(&ViewRig::new(), &ViewRig::new().view(), SystemTables::new(), 100);
    let mut names = Vec::new();
    for item in Reader::open(file).unwrap().items() {
        if let Item::Bucket(name) = item.unwrap() {
            names.push(String::from_utf8(name.to_vec()).unwrap());
        }
    }
    let etcds = "alarm auth authRoles authUsers cluster key lease members members_removed meta";
    assert_eq!(names.join(" "), etcds);
}

#[test]
fn an_empty_store_has_a_snapshot() {
    check(&ViewRig::new(), 100);
}

/// More slots than are read at a time, in pages, frozen and in a delta; and a compaction in the middle of them.
#[test]
fn many_revisions() {
    let mut rig = ViewRig::new();
    let keys: Vec<String> = (0..200).map(|key| format!("/registry/{}/{key}", ["pods", "events"][key % 2])).collect();
    let write = |rig: &mut ViewRig, rounds: i32| {
        for _ in 0..rounds {
            rig.write(&keys.iter().map(|key| (key.as_str(), Some(vec![7; key.len() * 3]))).collect::<Vec<_>>());
        }
    };
    write(&mut rig, 12);
    rig.checkpoint();
    write(&mut rig, 12);
    rig.store.compact(8);
    rig.freeze();
    write(&mut rig, 12);
    check(&rig, usize::MAX);
    rig.sweep();
    rig.checkpoint();
    rig.checkpoint();
    check(&rig, 1000);
}

/// Values beyond what is read at a time, some of them alone.
#[test]
fn large_values() {
    let mut rig = ViewRig::new();
    for round in 0..3u8 {
        for key in ["a", "b", "c", "d"] {
            rig.write(&[(key, Some(vec![round; 1 << 20])), ("small", Some(vec![round]))]);
        }
        rig.write(&[("huge", Some(vec![round; 5 << 20]))]);
        rig.checkpoint();
    }
    rig.store.compact(10);
    check(&rig, 1000);
}

/// A page that went bad ends the stream without a digest.
#[test]
fn damage_is_an_error() {
    let mut rig = ViewRig::new();
    rig.write(&[("a", Some(vec![1; 100]))]);
    rig.checkpoint();
    rig.damage_pages();
    let mut snapshot = SnapshotJob::new(rig.view(), SystemTables::new());
    let failed = loop {
        match rig.run(&mut snapshot.next_chunk(), 10) {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the damage went unnoticed"),
            Err(error) => break error,
        }
    };
    assert!(matches!(failed, SnapshotError::Pages(_)), "{failed}");
    assert_eq!(snapshot.digest(), None);
}

/// What superseded a slot is gone with its leaf, but the slot is still there, marked dead beside a live one.
#[test]
fn a_dead_slot_may_outlive_the_one_that_supersedes_it() {
    let mut rig = ViewRig::new();
    rig.write(&[("a", Some(vec![1])), ("b", Some(vec![1]))]);
    rig.checkpoint();
    rig.write(&[("a", Some(vec![2; 40_000]))]);
    rig.write(&[("a", Some(vec![3]))]);
    rig.checkpoint();
    rig.store.compact(4);
    rig.sweep();
    rig.checkpoint();
    check(&rig, 100);
}
