//! Random histories against a `BTreeMap`.

use std::collections::{BTreeMap, HashSet};

use proptest::prelude::*;
use proptest::sample::Index;

use crate::revision::Revision;

use crate::pages::{NewEntry, RewriteLimits, ScannedSlot, SharedRoot, TreeChanges};

use super::rig::Rig;

#[derive(Clone, Debug)]
enum Op {
    Commit { sizes: Vec<usize>, dead: Vec<Index>, dead_run: Option<(Index, usize)>, live_percent: u8, abandon: bool },
    Pin,
    Unpin(Index),
    Reopen,
}

/// Sizes of mixed entries.
fn mixed() -> BoxedStrategy<Vec<usize>> {
    let size = prop_oneof![20 => 0..200usize, 10 => 200..6000usize, 1 => 30_000..70_000usize];
    prop::collection::vec(size, 0..60).boxed()
}

/// Sizes of entries with a leaf each, so many that the tree grows higher.
fn bulky() -> BoxedStrategy<Vec<usize>> {
    prop::collection::vec(16_400..17_000usize, 0..250).boxed()
}

fn op(sizes: BoxedStrategy<Vec<usize>>) -> impl Strategy<Value = Op> {
    let commit = (
        sizes,
        prop::collection::vec(any::<Index>(), 0..20),
        prop::option::of((any::<Index>(), 1..200usize)),
        prop_oneof![3 => Just(40u8), 1 => Just(100u8)],
        prop::bool::weighted(0.15),
    );
    let commit = commit.prop_map(|(sizes, dead, dead_run, live_percent, abandon)| Op::Commit {
        sizes,
        dead,
        dead_run,
        live_percent,
        abandon,
    });
    prop_oneof![8 => commit, 2 => Just(Op::Pin), 1 => any::<Index>().prop_map(Op::Unpin), 1 => Just(Op::Reopen)]
}

/// What is stored, and whether it is dead.
type Model = BTreeMap<Revision, (NewEntry, bool)>;

struct Pinned {
    root: SharedRoot,
    slots: Vec<ScannedSlot>,
    pages: HashSet<u64>,
}

struct History {
    rig: Rig,
    model: Model,
    pinned: Vec<Pinned>,
    next_main: i64,
}

impl History {
    fn new(cache_bytes: usize, budget: usize) -> Self {
        let mut rig = Rig::new(cache_bytes);
        rig.budget = budget;
        Self { rig, model: Model::new(), pinned: Vec::new(), next_main: 2 }
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Commit { sizes, dead, dead_run, live_percent, abandon } => {
                let rewrite = RewriteLimits {
                    live_percent,
                    leaves_max: 3,
                    sweep_branches_max: 1,
                    shrinks: live_percent.is_multiple_of(2),
                    ..RewriteLimits::default()
                };
                let appended = self.new_entries(&sizes);
                let dead = self.pick_dead(&dead, dead_run);
                self.commit(TreeChanges { appended, dead, rewrite }, abandon);
            }
            Op::Pin => {
                let root = self.rig.root();
                let (slots, pages) = (self.rig.scan_all(&root, 37, true), self.rig.reachable(&root.root));
                self.pinned.push(Pinned { root, slots, pages });
            }
            Op::Unpin(index) if !self.pinned.is_empty() => {
                self.pinned.swap_remove(index.index(self.pinned.len()));
            }
            Op::Unpin(_) => {}
            Op::Reopen => {
                self.pinned.clear();
                self.rig.reopen();
            }
        }
    }

    fn new_entries(&self, sizes: &[usize]) -> Vec<NewEntry> {
        let new = |(at, size): (usize, &usize)| {
            // Three changes to a transaction.
            let revision = Revision::new(self.next_main + at as i64 / 3, at as i64 % 3);
            NewEntry { revision, ..super::rig::entry(revision.main * 3 + revision.sub, *size) }
        };
        sizes.iter().enumerate().map(new).collect()
    }

    fn pick_dead(&self, picks: &[Index], run: Option<(Index, usize)>) -> Vec<Revision> {
        // Unknown revisions are to be ignored.
        let mut dead = vec![Revision::new(1, 0), Revision::new(self.next_main + 1000, 0)];
        let stored: Vec<_> = self.model.keys().copied().collect();
        if !stored.is_empty() {
            dead.extend(picks.iter().map(|pick| stored[pick.index(stored.len())]));
            if let Some((from, count)) = run {
                dead.extend(stored.iter().skip(from.index(stored.len())).take(count));
            }
        }
        dead
    }

    fn commit(&mut self, changes: TreeChanges, abandon: bool) {
        let mut needed = self.rig.reachable(self.rig.writer().root());
        self.pinned.iter().for_each(|pinned| needed.extend(&pinned.pages));
        self.rig.disk.freeze(needed);
        let used = self.rig.writer().used_pages();
        let committed = self.rig.start(changes.clone()).unwrap();
        self.rig.end(committed, !abandon);
        self.rig.disk.freeze(HashSet::new());
        if abandon {
            assert_eq!(self.rig.writer().used_pages(), used);
            return;
        }
        for revision in changes.dead {
            self.model.entry(revision).and_modify(|(_, dead)| *dead = true);
        }
        self.next_main += changes.appended.len() as i64 / 3 + 1;
        self.model.extend(changes.appended.into_iter().map(|entry| (entry.revision, (entry, false))));
    }

    fn check(&self) {
        if self.rig.verify().is_none() {
            return;
        }
        let root = self.rig.root();
        self.check_counts(&root);
        self.check_scan(&root);
        self.check_fetch(&root);
        for pinned in &self.pinned {
            assert_eq!(self.rig.scan_all(&pinned.root, 50, true), pinned.slots);
            let all = pinned.slots.iter().map(|slot| slot.revision).collect();
            let values: Vec<_> = pinned.slots.iter().map(|slot| slot.key_value.clone()).collect();
            assert_eq!(self.rig.fetch(&pinned.root, all), values);
        }
    }

    fn check_counts(&self, root: &SharedRoot) {
        let live = || self.model.values().filter(|(_, dead)| !dead);
        assert_eq!(root.root.live_entries, live().count() as u64);
        assert_eq!(root.root.live_bytes, live().map(|(entry, _)| entry.stored_bytes() as u64).sum::<u64>());
    }

    fn check_scan(&self, root: &SharedRoot) {
        let with_values = self.rig.scan_all(root, 23, true);
        let mut without: Vec<_> = with_values.clone();
        without.iter_mut().for_each(|slot| slot.key_value = None);
        assert_eq!(self.rig.scan_all(root, usize::MAX, false), without);
        let live = with_values.iter().filter(|slot| !slot.dead).map(|slot| slot.revision);
        let expected = self.model.iter().filter(|(_, (_, dead))| !dead).map(|(revision, _)| *revision);
        assert!(live.eq(expected), "the live revisions differ");
        for slot in &with_values {
            let (entry, dead) = &self.model[&slot.revision];
            assert_eq!((slot.tombstone, slot.previous, slot.dead), (entry.tombstone, entry.previous, *dead));
            assert_eq!(slot.key_value.as_ref(), Some(&entry.key_value));
            assert_eq!(slot.length as usize, entry.key_value.len());
            assert_eq!(slot.crc32c, crate::pages::entry_crc32c(slot.revision, slot.tombstone, &entry.key_value));
        }
    }

    fn check_fetch(&self, root: &SharedRoot) {
        let mut wanted: Vec<_> = self.model.keys().rev().copied().collect();
        wanted.extend([Revision::new(1, 0), Revision::new(self.next_main, 0), Revision::default()]);
        wanted.extend(self.model.keys().next());
        for (revision, answer) in wanted.iter().zip(self.rig.fetch(root, wanted.clone())) {
            match (self.model.get(revision), answer) {
                (Some((entry, _)), Some(key_value)) => assert_eq!(entry.key_value, key_value),
                (Some((_, true)) | None, None) => {}
                (known, answer) => panic!("{revision:?}: {known:?} answered {answer:?}"),
            }
        }
    }
}

fn check_history(ops: Vec<Op>, cache_bytes: usize, budget: usize) {
    let mut history = History::new(cache_bytes, budget);
    for op in ops {
        history.apply(op);
        history.check();
    }
}

fn cache_bytes() -> impl Strategy<Value = usize> {
    prop_oneof![Just(0), Just(40_000), Just(16 << 20)]
}

fn budget() -> impl Strategy<Value = usize> {
    prop_oneof![Just(0), Just(5), Just(usize::MAX)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn any_history_reads_as_the_model(
        ops in prop::collection::vec(op(mixed()), 1..24),
        cache_bytes in cache_bytes(),
        budget in budget(),
    ) {
        check_history(ops, cache_bytes, budget);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn any_history_of_a_higher_tree_reads_as_the_model(
        ops in prop::collection::vec(op(bulky()), 4..12),
        cache_bytes in cache_bytes(),
        budget in budget(),
    ) {
        check_history(ops, cache_bytes, budget);
    }
}
