//! HashKV of stores with every mix of pages, frozen revisions and deltas, against the transcription of etcd.

use super::*;
use crate::job::{Completions, Job, Step};
use crate::mvcc::shard_read_error::ShardReadError;
use crate::pages::ScannedSlot;
use crate::snapshot::view_rig::{Event, ViewRig, events};
use crate::snapshot::{Values, ViewSlots};

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

/// A job, and the most revisions that it remembered at once.
struct Watched {
    job: HashKvJob,
    remembered_max: usize,
}

impl Job for Watched {
    type Output = HashKv;
    type Error = HashJobError;

    fn step(&mut self, completions: Completions, budget: usize) -> Result<Step<HashKv>, HashJobError> {
        let step = self.job.step(completions, budget);
        self.remembered_max = self.remembered_max.max(self.job.remembered());
        step
    }
}

/// Revisions remembered at most while the newest revision is hashed.
fn remembered_max(pair: &Pair) -> usize {
    let (revision, compact_revision) = (pair.rig.store.revision(), pair.rig.store.compact_revision());
    let job = HashKvJob::new(pair.rig.view(), revision, compact_revision, HashPurpose::Request);
    let mut watched = Watched { job, remembered_max: 0 };
    let hash = pair.rig.run(&mut watched, 10).unwrap().hash;
    assert_eq!(hash, pair.etcd.hash_by_revision(revision));
    watched.remembered_max
}

#[test]
fn what_a_finished_compaction_left_needs_no_memory() {
    let mut pair = Pair::new(10);
    let overwrite = |pair: &mut Pair, times: u8| {
        for value in 0..times {
            pair.rig.write(&[("a", Some(vec![value])), ("b", Some(vec![value])), ("x", Some(vec![value]))]);
        }
        pair.follow();
    };
    overwrite(&mut pair, 50);
    assert_eq!(remembered_max(&pair), 0, "nothing was ever compacted");
    pair.compact(pair.rig.store.revision());
    overwrite(&mut pair, 1);
    assert_eq!(remembered_max(&pair), 49 * 3 + 2 * 3, "all that it dropped, and what was written since");
    pair.rig.sweep();
    pair.rig.freeze();
    assert!(remembered_max(&pair) > 100, "its marks are in no page yet");
    pair.rig.checkpoint();
    assert_eq!(remembered_max(&pair), 2 * 3, "what was written since, twice: it is alive, and supersedes");
    pair.compact(pair.rig.store.revision());
    assert_eq!(remembered_max(&pair), 3, "what the unfinished compaction drops");
}

/// The slots that a View hands over.
struct Walk(ViewSlots, Vec<ScannedSlot>);

impl Job for Walk {
    type Output = Vec<ScannedSlot>;
    type Error = ShardReadError;

    fn step(&mut self, completions: Completions, budget: usize) -> Result<Step<Self::Output>, ShardReadError> {
        Ok(match self.0.step(completions, budget)? {
            Step::Again => Step::Again,
            Step::Submit(requests) => Step::Submit(requests),
            Step::Done(None) => Step::Done(std::mem::take(&mut self.1)),
            Step::Done(Some(slots)) => {
                self.1.extend(slots);
                Step::Again
            }
        })
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// What [`View::swept_revision`](crate::mvcc::view::View::swept_revision) promises, by the naive rule.
    #[test]
    fn nothing_is_handed_over_that_the_swept_revision_supersedes(events in events()) {
        let mut rig = ViewRig::new();
        for event in &events {
            rig.apply(event);
            let view = rig.view();
            prop_assert!(view.swept_revision <= view.compact_revision);
            let walk = ViewSlots::new(&view, 0..=view.revision, Values::Leave);
            for slot in rig.run(&mut Walk(walk, Vec::new()), 100).unwrap() {
                let key = &rig.written[&slot.revision].key;
                let after = rig.written.range(slot.revision..).skip(1).find(|(_, written)| written.key == *key);
                prop_assert!(after.is_none_or(|(after, _)| after.main > view.swept_revision));
            }
        }
    }
}
