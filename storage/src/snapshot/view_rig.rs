//! A store with checkpoints for tests, and beside it everything that was ever written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::checkpoint::{
    CheckpointError, Checkpointer, PAGES_DIRECTORY, RUNS_DIRECTORY, Salt, page_file_name, recovery,
};
use crate::disk::Disk;
use crate::job::{Job, Step, run};
use crate::mvcc::key_range::KeyRange;
use crate::mvcc::key_value::KeyValue;
use crate::mvcc::shard_map::ShardMap;
use crate::mvcc::store::{Frozen, Store};
use crate::mvcc::view::View;
use crate::pages::PageCache;
use crate::pages::allocator::MapRoot;
use crate::revision::Revision;
use crate::runs::memory_disk::MemoryDisk;

/// Keys of all three shards of the default map.
const KEYS: [&str; 6] =
    ["/registry/pods/a", "/registry/pods/b", "/registry/events/a", "/registry/events/b", "/registry/leases/a", "x"];

/// One revision as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    pub key: Vec<u8>,
    pub tombstone: bool,
    pub key_value: Bytes,
}

/// What can happen to a store.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// One transaction: keys get a value of a length, or are deleted if they live.
    Write(BTreeMap<usize, Option<usize>>),
    /// A compaction somewhere between the last one and the newest revision.
    Compact(Index),
    /// A step of the compaction, with this budget.
    Sweep(usize),
    /// A checkpoint begins; while it runs, nothing shows of it.
    Freeze,
    /// The checkpoint ends, or a whole one runs.
    Checkpoint,
    /// A checkpoint for which there is space for this many requests only, in pages or in runs.
    DiskFull(bool, usize),
    /// A restart right after a checkpoint.
    Reopen,
    /// A restart after so many rounds of requests of a checkpoint: all since the one before is lost.
    Stop(usize),
}

/// Events, without any that loses revisions.
pub(crate) fn events() -> impl Strategy<Value = Vec<Event>> {
    proptest::collection::vec(event(), 1..40)
}

/// Events with stops among them.
pub(crate) fn events_and_stops() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![12 => event(), 1 => (0usize..150).prop_map(Event::Stop)];
    proptest::collection::vec(event, 1..40)
}

fn event() -> impl Strategy<Value = Event> {
    let length = prop_oneof![Just(0usize), 1usize..40, Just(5_000), Just(40_000)];
    let change = proptest::option::weighted(0.6, length);
    let write = proptest::collection::btree_map(0..KEYS.len(), change, 1..4).prop_map(Event::Write);
    prop_oneof![
        8 => write,
        2 => any::<Index>().prop_map(Event::Compact),
        2 => (1usize..128).prop_map(Event::Sweep),
        1 => Just(Event::Freeze),
        2 => Just(Event::Checkpoint),
        1 => (any::<bool>(), 0usize..6).prop_map(|(pages, requests)| Event::DiskFull(pages, requests)),
        1 => Just(Event::Reopen),
    ]
}

pub(crate) struct ViewRig {
    disk: MemoryDisk,
    pub store: Store,
    checkpointer: Option<Checkpointer>,
    /// What a running checkpoint writes.
    frozen: Option<Frozen>,
    /// Of the last opening.
    seed: u64,
    /// All revisions, dropped ones too.
    pub written: BTreeMap<Revision, Written>,
}

impl ViewRig {
    pub fn new() -> Self {
        let disk = MemoryDisk::default();
        let shard_map = ShardMap::default();
        let birth = recovery::Birth { cluster_id: 1, member_id: 1, incarnation: 1, conf_state: vec![], shard_map };
        let opened = recovery::create(&disk, &cache(), Salt::new(1), birth).unwrap();
        Self {
            disk,
            store: opened.store,
            checkpointer: Some(opened.checkpointer),
            frozen: None,
            seed: 1,
            written: BTreeMap::new(),
        }
    }

    pub fn view(&self) -> Arc<View> {
        Arc::new(self.store.head())
    }

    pub fn run<J: Job>(&self, job: &mut J, budget: usize) -> Result<J::Output, J::Error> {
        run(job, &self.disk, budget)
    }

    pub fn apply(&mut self, event: &Event) {
        match event {
            Event::Write(changes) => {
                let revision = self.store.revision();
                let value = |length: usize| vec![revision as u8; length];
                let changes = changes.iter().map(|(key, length)| (KEYS[*key], length.map(value)));
                self.write(&changes.collect::<Vec<_>>());
            }
            Event::Compact(at) => {
                if let Some(revision) = self.compactable(at) {
                    self.store.compact(revision);
                }
            }
            Event::Sweep(budget) => drop(self.store.sweep(*budget)),
            Event::Freeze => self.freeze(),
            Event::Checkpoint => self.checkpoint(),
            Event::DiskFull(pages, requests) => {
                let names = if *pages { PAGES_DIRECTORY } else { RUNS_DIRECTORY };
                self.disk.limit(Some((names, *requests)));
                self.checkpoint();
                self.disk.limit(None);
            }
            Event::Reopen => {
                // What came after a freeze needs a second checkpoint.
                self.checkpoint();
                self.checkpoint();
                self.reopen();
            }
            Event::Stop(rounds) => self.stop(*rounds),
        }
    }

    /// One transaction; a deletion of a key that does not live is left out.
    pub fn write(&mut self, changes: &[(&str, Option<Vec<u8>>)]) {
        let mut transaction = self.store.begin();
        let main = self.store.revision() + 1;
        let mut written = Vec::new();
        for (key, value) in changes {
            let live = self.store.get(key.as_bytes());
            let mut kv = KeyValue { key: key.as_bytes(), ..KeyValue::default() };
            match value {
                Some(value) => {
                    transaction.put(&Bytes::copy_from_slice(kv.key), value, 0);
                    let create_revision = live.map_or(main, |state| state.create_revision);
                    let version = live.map_or(1, |state| state.version + 1);
                    kv = KeyValue { create_revision, mod_revision: main, version, value, ..kv };
                }
                None if live.is_none() => continue,
                None => drop(transaction.delete_range(&KeyRange::single(kv.key))),
            }
            written.push(Written { key: kv.key.to_vec(), tombstone: value.is_none(), key_value: kv.encode() });
        }
        let changes = transaction.finish();
        assert_eq!(changes.len(), written.len());
        self.store.install(&changes);
        self.written.extend((0..).zip(written).map(|(sub, written)| (Revision::new(main, sub), written)));
    }

    /// Turns over a bit of each byte in the page files.
    pub fn damage_pages(&self) {
        for number in 1..=3 {
            let name = page_file_name(number);
            self.disk.put(&name, self.disk.get(&name).iter().map(|byte| byte ^ 1).collect());
        }
    }

    /// A revision that may be compacted, if there is one.
    pub fn compactable(&self, at: &Index) -> Option<i64> {
        let compact_revision = self.store.compact_revision().max(0);
        let span = usize::try_from(self.store.revision() - compact_revision).unwrap();
        (span > 0).then(|| compact_revision + 1 + at.index(span) as i64)
    }

    /// What etcd's `keyIndex.doCompact` leaves at the compact revision, key by key.
    pub fn survivors(&self) -> BTreeSet<Revision> {
        let compact_revision = self.store.compact_revision();
        let mut survivors = BTreeSet::new();
        for key in self.written.values().map(|written| &written.key).collect::<BTreeSet<_>>() {
            let of_key = self.written.iter().filter(|(_, written)| written.key == *key);
            let (old, new): (Vec<_>, Vec<_>) = of_key.partition(|(revision, _)| revision.main <= compact_revision);
            let newest_old = old.last().filter(|(revision, w)| !w.tombstone || revision.main == compact_revision);
            survivors.extend(new.iter().chain(newest_old).map(|(revision, _)| **revision));
        }
        survivors
    }

    pub fn sweep(&mut self) {
        while self.store.is_sweeping() {
            self.store.sweep(1);
        }
    }

    pub fn freeze(&mut self) {
        if self.frozen.is_none() {
            self.frozen = Some(self.store.freeze());
        }
    }

    pub fn checkpoint(&mut self) {
        self.checkpoint_and_rewrite(false);
    }

    /// A checkpoint that rewrites `all` partly dead leaves, or as many as a checkpoint does; whether none is left.
    pub fn checkpoint_and_rewrite(&mut self, all: bool) -> bool {
        self.freeze();
        let frozen = Frozen { rewrite_all: all, ..self.frozen.take().unwrap() };
        let mut job = self.checkpointer.take().unwrap().begin(frozen);
        match run(&mut job, &self.disk, 3) {
            Ok(checkpoint) => {
                self.checkpointer = Some(checkpoint.checkpointer);
                self.store.checkpointed(checkpoint.checkpointed);
                checkpoint.tidy
            }
            Err(CheckpointError::NoSpace { checkpointer, frozen, .. }) => {
                self.checkpointer = Some(*checkpointer);
                self.store.checkpoint_failed(*frozen);
                false
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn stop(&mut self, rounds: usize) {
        self.freeze();
        let mut job = self.checkpointer.take().unwrap().begin(self.frozen.take().unwrap());
        let mut completions = Vec::new();
        for _ in 0..rounds {
            completions = match job.step(completions, 3).unwrap() {
                Step::Again => Vec::new(),
                Step::Submit(requests) => requests.into_iter().map(|io| self.disk.perform(io)).collect(),
                Step::Done(_) => break,
            };
        }
        self.reopen();
    }

    /// There is no log: what no checkpoint holds is forgotten.
    fn reopen(&mut self) {
        self.seed += 1;
        let mut opened = recovery::open(&self.disk, &cache(), Salt::new(self.seed)).unwrap().unwrap();
        recovery::settle(&self.disk, &mut opened.checkpointer).unwrap();
        self.store = opened.store;
        self.checkpointer = Some(opened.checkpointer);
        self.written.split_off(&Revision::new(self.store.revision() + 1, 0));
    }

    /// The pages of each shard in the last manifest, to be verified.
    pub fn verify(&self) {
        let manifest = self.checkpointer.as_ref().unwrap().manifest();
        for (shard, named) in self.view().shards.iter().zip(&manifest.shards) {
            let checkpointed = &shard.checkpointed;
            if !named.map_root.is_empty() {
                let map_root = MapRoot::decode(&named.map_root).unwrap();
                self.run(&mut checkpointed.pages.verify(checkpointed.root.clone(), map_root), 100).unwrap();
                assert_eq!(checkpointed.root.root.encode().as_slice(), named.tree_root);
            }
        }
    }
}

fn cache() -> Arc<PageCache> {
    Arc::new(PageCache::new(1 << 20))
}
