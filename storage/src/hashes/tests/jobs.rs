//! HashKV of stores with every mix of pages, frozen revisions and deltas, against the transcription of etcd.

use super::*;
use crate::snapshot::view_rig::{Event, ViewRig, events};

/// etcd beside a store.
struct Pair {
    rig: ViewRig,
    etcd: Etcd,
    /// Numbers of keys for the transcription.
    keys: BTreeMap<Vec<u8>, u8>,
    budget: usize,
}

impl Pair {
    fn new(budget: usize) -> Self {
        Self { rig: ViewRig::new(), etcd: Etcd::new(), keys: BTreeMap::new(), budget }
    }

    /// Tells etcd what the store has got since.
    fn follow(&mut self) {
        for (revision, written) in self.rig.written.range(Revision::new(self.etcd.revision + 1, 0)..) {
            let number = self.keys.len() as u8;
            let number = *self.keys.entry(written.key.clone()).or_insert(number);
            let index = self.etcd.index.entry(number).or_default();
            if written.tombstone {
                index.tombstone(*revision)
            } else {
                index.put(*revision)
            }
            let stored = Stored { tombstone: written.tombstone, previous: None, value: written.key_value.to_vec() };
            self.etcd.stored.insert(*revision, stored);
        }
        self.etcd.revision = self.rig.store.revision();
    }

    fn hash(&self, revision: i64, compact_revision: i64, purpose: HashPurpose) -> HashKv {
        let mut job = HashKvJob::new(self.rig.view(), revision, compact_revision, purpose);
        self.rig.run(&mut job, self.budget).unwrap()
    }

    /// Compacts both; their own hashes must agree.
    fn compact(&mut self, revision: i64) {
        let before = self.rig.store.compact_revision();
        let hash = self.hash(revision, before, HashPurpose::Compaction);
        assert_eq!(hash, HashKv { hash: self.etcd.compact(revision), compact_revision: before, revision });
        self.rig.store.compact(revision);
        // Also when the View knows of the compaction, as long as nothing was swept.
        assert_eq!(self.hash(revision, before, HashPurpose::Compaction), hash);
    }

    fn check(&self) {
        let compact_revision = self.rig.store.compact_revision();
        for revision in compact_revision.max(1)..=self.rig.store.revision() {
            let hash = self.etcd.hash_by_revision(revision);
            let expected = HashKv { hash, compact_revision, revision };
            assert_eq!(self.hash(revision, compact_revision, HashPurpose::Request), expected);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_job_equals_etcds_algorithm_however_far_checkpoint_and_sweep_are(events in events(), budget in 0usize..20) {
        let mut pair = Pair::new(budget);
        for event in &events {
            match event {
                Event::Compact(at) => {
                    if let Some(revision) = pair.rig.compactable(at) {
                        pair.compact(revision);
                    }
                }
                _ => pair.rig.apply(event),
            }
            pair.follow();
            pair.check();
        }
    }
}

/// etcd-contract 52: a@2 b@3, Compact 3, a@4; and before the compaction.
#[test]
fn figures_of_etcd_with_the_filter_on_from_a_store() {
    for checkpoints in 0..8 {
        let mut pair = Pair::new(10);
        let checkpoint = |pair: &mut Pair, number: u32| {
            if checkpoints >> number & 1 == 1 {
                pair.rig.checkpoint();
            }
        };
        pair.rig.write(&[("a", Some(b"1".to_vec()))]);
        checkpoint(&mut pair, 0);
        pair.rig.write(&[("b", Some(b"1".to_vec()))]);
        assert_eq!(pair.hash(3, -1, HashPurpose::Request).hash, 2_143_169_314);
        pair.rig.store.compact(3);
        checkpoint(&mut pair, 1);
        pair.rig.write(&[("a", Some(b"2".to_vec()))]);
        checkpoint(&mut pair, 2);
        assert_eq!(pair.hash(4, 3, HashPurpose::Request).hash, 2_393_049_859);
        assert_eq!(pair.hash(-5, 3, HashPurpose::Request).hash, 1_084_519_789);
    }
}

/// etcd-contract 52: a@2, Compact 2, a deleted @3; then Compact 3, whose own hash differs.
#[test]
fn figures_of_etcd_with_the_filter_off_from_a_store() {
    let mut pair = Pair::new(10);
    pair.rig.write(&[("a", Some(b"1".to_vec()))]);
    pair.rig.store.compact(2);
    pair.rig.write(&[("a", None)]);
    for _ in 0..2 {
        assert_eq!(pair.hash(3, 2, HashPurpose::Request).hash, 3_520_211_144);
        assert_eq!(pair.hash(3, 2, HashPurpose::Compaction).hash, 3_681_333_679);
        pair.rig.checkpoint();
    }
}

/// As the test of this name of the snapshot job.
#[test]
fn a_dead_slot_may_outlive_the_one_that_supersedes_it() {
    let mut pair = Pair::new(100);
    pair.rig.write(&[("a", Some(vec![1])), ("b", Some(vec![1]))]);
    pair.rig.checkpoint();
    pair.rig.write(&[("a", Some(vec![2; 40_000]))]);
    pair.rig.write(&[("a", Some(vec![3]))]);
    pair.rig.checkpoint();
    pair.follow();
    pair.compact(4);
    pair.rig.sweep();
    pair.rig.checkpoint();
    pair.check();
}
