//! Directories of every history are sound; every kind of damage is named.

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::checkpoint::manifest::{MANIFEST_NAME, SLOT_BYTES};
use crate::checkpoint::recovery::{self, Birth};
use crate::checkpoint::{Checkpointer, Salt, page_file_name};
use crate::disk::{Disk, Io, IoOutput, SimulatedDisk};
use crate::job::{BUDGET_UNLIMITED, run};
use crate::mvcc::key_range::KeyRange;
use crate::mvcc::shard_map::ShardMap;
use crate::mvcc::store::Store;
use crate::mvcc::system::Table;
use crate::mvcc::view::LogPosition;
use crate::pages::allocator::{PAGE_SIZE, TransactionId};
use crate::pages::{PageCache, TreeRoot};
use crate::runs::run_name;
use crate::wal::{Entry, HardState, Identity, Log, LogOptions, Record, Recovery};

const KEYS: [&str; 5] = ["/registry/events/a", "/registry/leases/a", "x", "x/1", "x/2"];
const LOG: LogOptions = LogOptions { segment_bytes: 64 << 10, first_segment_bytes: 64 << 10 };

#[derive(Clone, Debug)]
enum Event {
    Put(usize, usize),
    Delete(usize),
    /// In one transaction: a delete of all keys, which overlaps no put (etcd-contract 4), and a put.
    Replace(usize),
    Compact,
    Sweep,
    Checkpoint,
    Reopen,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        8 => (0..KEYS.len(), prop_oneof![0..40usize, Just(5000), Just(40_000)]).prop_map(|(key, n)| Event::Put(key, n)),
        2 => (0..KEYS.len()).prop_map(Event::Delete),
        1 => (0..KEYS.len()).prop_map(Event::Replace),
        1 => Just(Event::Compact),
        1 => Just(Event::Sweep),
        2 => Just(Event::Checkpoint),
        1 => Just(Event::Reopen),
    ];
    prop::collection::vec(event, 1..80)
}

struct Rig {
    disk: SimulatedDisk,
    store: Store,
    checkpointer: Option<Checkpointer>,
}

fn cache() -> Arc<PageCache> {
    Arc::new(PageCache::new(1 << 20))
}

impl Rig {
    fn new() -> Self {
        let disk = SimulatedDisk::new(1);
        let birth =
            Birth { cluster_id: 1, member_id: 2, incarnation: 3, conf_state: vec![], shard_map: ShardMap::default() };
        let mut opened = recovery::create(&disk, &cache(), Salt::new(1), birth).unwrap();
        let identity = Identity { cluster: 1, member: 2, incarnation: 3 };
        run(&mut Log::create(identity, LOG, 1), &disk, BUDGET_UNLIMITED).unwrap();
        recovery::settle(&disk, &mut opened.checkpointer).unwrap();
        Self { disk, store: opened.store, checkpointer: Some(opened.checkpointer) }
    }

    /// One with something in every file.
    fn filled() -> Self {
        let mut rig = Self::new();
        for n in 0..200 {
            rig.apply(&Event::Put(n % KEYS.len(), n * 20));
        }
        rig.store.set_record(Table::Lease, b"12345678", Some(Bytes::from_static(b"lease")));
        rig.apply(&Event::Checkpoint);
        assert_eq!(rig.findings(), Vec::<String>::new());
        rig
    }

    /// Adds to the log, which then knows a generation of the manifest.
    fn log(&self, record: Record, generation: u64) {
        let identity = Identity { cluster: 1, member: 2, incarnation: 3 };
        let mut recovered = run(&mut Recovery::new(Some(identity), LOG, 2), &self.disk, BUDGET_UNLIMITED).unwrap();
        recovered.log.append(vec![record], generation).unwrap();
        let mut batch = recovered.log.start_batch().expect("a batch waits");
        let durable = run(&mut batch, &self.disk, BUDGET_UNLIMITED).unwrap();
        recovered.log.finish_batch(&durable);
    }

    fn apply(&mut self, event: &Event) {
        match event {
            Event::Put(key, length) => {
                let mut transaction = self.store.begin();
                transaction.put(&Bytes::from_static(KEYS[*key].as_bytes()), &vec![7; *length], 0);
                let changes = transaction.finish();
                self.store.install(&changes);
            }
            Event::Delete(key) => {
                let mut transaction = self.store.begin();
                transaction.delete_range(&KeyRange::single(KEYS[*key].as_bytes()));
                let changes = transaction.finish();
                self.store.install(&changes);
            }
            Event::Replace(key) => {
                let mut transaction = self.store.begin();
                transaction.delete_range(&KeyRange::ALL);
                transaction.put(&Bytes::from_static(KEYS[*key].as_bytes()), b"again", 0);
                let changes = transaction.finish();
                self.store.install(&changes);
            }
            Event::Compact => {
                let revision = (self.store.compact_revision().max(0) + self.store.revision()) / 2;
                if self.store.compactable(revision).is_ok() {
                    self.store.compact(revision);
                }
            }
            Event::Sweep => drop(self.store.sweep(1)),
            Event::Checkpoint => {
                let job = self.checkpointer.take().unwrap();
                let checkpoint = run(&mut job.begin(self.store.freeze()), &self.disk, 100).unwrap();
                self.checkpointer = Some(checkpoint.checkpointer);
                self.store.checkpointed(checkpoint.checkpointed);
            }
            Event::Reopen => {
                self.apply(&Event::Checkpoint);
                let mut opened = recovery::open(&self.disk, &cache(), Salt::new(2)).unwrap().unwrap();
                recovery::settle(&self.disk, &mut opened.checkpointer).unwrap();
                (self.store, self.checkpointer) = (opened.store, Some(opened.checkpointer));
            }
        }
    }

    fn check(&self) -> (Checked, Vec<Finding>) {
        let mut heard = Heard::default();
        let checked = check(&self.disk, &self.disk, &mut heard).unwrap();
        assert_eq!(checked.damage, heard.findings.iter().filter(|f| f.severity == Severity::Damage).count() as u64);
        (checked, heard.findings)
    }

    fn findings(&self) -> Vec<String> {
        self.check().1.iter().map(ToString::to_string).collect()
    }

    fn flip(&self, name: &str, at: u64) {
        assert!(self.disk.flip_bit(name, at, 3), "{name} has no byte {at}");
    }

    fn length(&self, name: &str) -> u64 {
        self.disk.contents(name).unwrap().len() as u64
    }

    fn file(&self, name: &str, act: impl Fn(crate::disk::FileId) -> Io) {
        let opened = self.disk.perform(Io::Open { name: name.to_owned(), create: false }).unwrap();
        let IoOutput::Opened { file, .. } = opened else { panic!("{opened:?}") };
        self.disk.perform(act(file)).unwrap();
    }

    fn runs(&self) -> Vec<String> {
        let manifest = self.checkpointer.as_ref().unwrap().manifest();
        manifest.runs().map(|run| run_name("runs", run.number)).collect()
    }
}

#[derive(Default)]
struct Heard {
    findings: Vec<Finding>,
    progress: u64,
}

impl Observer for Heard {
    fn progress(&mut self, _: &str, _: u64, _: u64) {
        self.progress += 1;
    }

    fn found(&mut self, finding: Finding) {
        self.findings.push(finding);
    }
}

/// Expects that each of `parts` stands in one of the findings.
fn expect(findings: &[String], parts: &[&str]) {
    for part in parts {
        assert!(findings.iter().any(|finding| finding.contains(part)), "{part:?} is not in {findings:#?}");
    }
}

#[test]
fn a_key_that_one_transaction_deletes_and_puts_is_sound() {
    let mut rig = Rig::filled();
    rig.apply(&Event::Replace(2));
    rig.apply(&Event::Checkpoint);
    assert_eq!(rig.findings(), Vec::<String>::new());
}

#[test]
fn impossible_shards_are_told() {
    let rig = Rig::filled();
    let told = |change: fn(&mut crate::checkpoint::manifest::Manifest)| {
        let mut manifest = rig.checkpointer.as_ref().unwrap().manifest().clone();
        manifest.generation += 1;
        change(&mut manifest);
        let mut job = crate::checkpoint::manifest::write_job(&manifest).unwrap();
        let disk = rig.disk.restart();
        run(&mut job, &disk, BUDGET_UNLIMITED).unwrap();
        let refused = recovery::open(&disk, &cache(), Salt::new(7)).map(drop).unwrap_err().to_string();
        assert!(refused.contains("impossible shards"), "{refused}");
        Rig { disk, store: Rig::new().store, checkpointer: None }.findings().join("; ")
    };
    assert!(told(|manifest| manifest.shards.clear()).contains("it names impossible shards"));
    assert!(told(|manifest| manifest.shards[1].prefixes[0] = b"/x".to_vec()).contains("it names impossible shards"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_was_written_is_sound(events in events()) {
        let mut rig = Rig::new();
        for event in &events {
            rig.apply(event);
            if matches!(event, Event::Checkpoint | Event::Reopen) {
                let before: Vec<_> = rig.disk.files().into_iter().map(|name| rig.disk.contents(&name)).collect();
                let (checked, findings) = rig.check();
                prop_assert_eq!(findings, vec![]);
                prop_assert_eq!((checked.revision, checked.damage), (rig.store.revision(), 0));
                let after: Vec<_> = rig.disk.files().into_iter().map(|name| rig.disk.contents(&name)).collect();
                prop_assert!(before == after, "a check has changed a file");
            }
        }
    }
}

#[test]
fn figures_are_those_of_the_store() {
    let rig = Rig::filled();
    let (checked, _) = rig.check();
    assert_eq!((checked.revision, checked.keys, checked.revisions, checked.log_entries), (201, 5, 200, 0));
    assert_eq!((checked.compact_revision, checked.generation), (-1, 3));
}

/// Every byte of page files that counts: one flipped bit is found, in that file, wherever it is.
#[test]
fn a_flipped_bit_in_pages_is_found_where_it_is() {
    let rig = Rig::filled();
    let mut found = 0;
    for (number, shard) in (1..).zip(["main", "events", "leases"]) {
        let name = page_file_name(number);
        let place = format!("{name} of shard {shard:?}: ");
        for page in 0..rig.length(&name) / PAGE_SIZE as u64 {
            let at = page * PAGE_SIZE as u64 + page * 97 % PAGE_SIZE as u64;
            rig.flip(&name, at);
            let findings = rig.findings();
            assert!(findings.iter().all(|finding| finding.contains(&place)), "{findings:#?}");
            found += u64::from(!findings.is_empty());
            rig.flip(&name, at);
        }
    }
    // Pages that are free, and what is behind the last byte of a page, mean nothing.
    assert!(found > 20, "{found}");
}

#[test]
fn a_damaged_entry_is_named_by_its_revision_and_the_others_are_read() {
    let rig = Rig::filled();
    let name = page_file_name(1);
    let bytes = rig.disk.contents(&name).unwrap();
    // A value of revision 200: the last in its leaf.
    let at = bytes.windows(600).rposition(|window| window == [7; 600]).unwrap() as u64;
    rig.flip(&name, at + 300);
    let findings = rig.findings();
    expect(&findings, &["entry Revision { main: ", "is corrupt", "1 revisions that the index names were not found"]);
    assert_eq!(findings.len(), 2, "{findings:#?}");
}

#[test]
fn runs_are_named() {
    let rig = Rig::filled();
    for name in rig.runs() {
        rig.flip(&name, rig.length(&name) / 2);
        let findings = rig.findings();
        let number = name.strip_prefix("runs/run-").unwrap().trim_start_matches('0');
        assert_eq!(findings.len(), 1, "{findings:#?}");
        expect(&findings, &[&name, number, "damaged"]);
        rig.flip(&name, rig.length(&name) / 2);
    }
    let name = rig.runs()[0].clone();
    rig.disk.perform(Io::Remove { name: name.clone() }).unwrap();
    expect(&rig.findings(), &[&name]);
}

#[test]
fn manifests_are_named() {
    let rig = Rig::filled();
    let copies = rig.length(MANIFEST_NAME) / SLOT_BYTES as u64;
    for copy in 0..copies {
        rig.flip(MANIFEST_NAME, copy * SLOT_BYTES as u64 + 40);
    }
    let mut heard = Heard::default();
    assert_eq!(check(&rig.disk, &rig.disk, &mut heard).unwrap().damage, 1);
    assert!(heard.findings[0].to_string().contains("no copy of it can be read"));
    for copy in 1..copies {
        rig.flip(MANIFEST_NAME, copy * SLOT_BYTES as u64 + 40);
    }
    expect(&rig.findings(), &["damage: manifest at byte 0: CRC mismatch; generation 3 was read from another copy"]);
}

#[test]
fn an_older_manifest_than_the_log_knows_is_named() {
    let mut rig = Rig::filled();
    rig.log(Record::HardState(HardState { term: 1, vote: 2, commit: 0 }), 9);
    expect(&rig.findings(), &["manifest: generation 3 was found, the log knows 9"]);
    rig.apply(&Event::Put(0, 1));
}

#[test]
fn the_end_of_the_log_is_told() {
    let rig = Rig::filled();
    assert_eq!(rig.check().0.log_end, Some(LogPosition { index: 0, term: 0 }));
    for (index, term) in [(1, 1), (2, 4)] {
        rig.log(Record::Entry(Entry { index, term, kind: 0, data: Bytes::new() }), 3);
    }
    let (checked, _) = rig.check();
    assert_eq!((checked.log_end, checked.log_entries), (Some(LogPosition { index: 2, term: 4 }), 2));
}

#[test]
fn the_log_is_named() {
    let rig = Rig::filled();
    let segment = rig.disk.files().into_iter().find(|name| name.starts_with("wal/")).unwrap();
    rig.flip(&segment, 4096 + 8);
    assert_eq!(rig.findings(), Vec::<String>::new(), "one of two heads may be lost");
    rig.flip(&segment, 8);
    expect(&rig.findings(), &["damage: wal: "]);
    rig.disk.perform(Io::Remove { name: segment }).unwrap();
    expect(&rig.findings(), &["damage: wal: there is no log"]);
}

#[test]
fn files_that_are_cut_or_too_long_or_nobodys() {
    let rig = Rig::filled();
    let name = page_file_name(1);
    let length = rig.length(&name);
    rig.file(&name, |file| Io::Write { file, offset: length, bytes: Bytes::from_static(b"more") });
    let (checked, findings) = rig.check();
    assert_eq!((checked.damage, findings.len()), (0, 1), "{findings:?}");
    expect(&rig.findings(), &["note: pages/shard-0000000000000001 of shard \"main\": 4 bytes behind those that count"]);
    rig.file(&name, |file| Io::Truncate { file, length: length / 2 });
    expect(&rig.findings(), &["damage: pages/shard-0000000000000001 of shard \"main\": it has "]);
    rig.disk.perform(Io::Open { name: run_name("runs", 99), create: true }).unwrap();
    expect(&rig.findings(), &["note: runs/run-0000000000000063: nothing names it"]);
    rig.disk.perform(Io::Remove { name: page_file_name(2) }).unwrap();
    expect(&rig.findings(), &["damage: pages/shard-0000000000000002 of shard \"events\": "]);
}

/// What checksums cannot see: pages and index each whole, but of two different states.
#[test]
fn an_index_that_is_not_that_of_the_pages_is_named() {
    let mut rig = Rig::filled();
    rig.apply(&Event::Put(2, 10));
    rig.apply(&Event::Checkpoint);
    let manifest = rig.checkpointer.as_ref().unwrap().manifest().clone();
    let written = |manifest: &crate::checkpoint::manifest::Manifest| {
        run(&mut crate::checkpoint::manifest::rewrite_job(manifest).unwrap(), &rig.disk, BUDGET_UNLIMITED).unwrap();
    };
    // The index without its newest run: one entry too many in the pages.
    let mut older = manifest.clone();
    older.shards[0].index_runs.pop();
    written(&older);
    let findings = rig.findings();
    expect(
        &findings,
        &["shard-0000000000000001 of shard \"main\": Revision { main: 202, sub: 0 }: the index does not name it"],
    );
    // The index of one shard in the place of another.
    let mut exchanged = manifest.clone();
    exchanged.shards[1].index_runs = manifest.shards[2].index_runs.clone();
    written(&exchanged);
    expect(
        &rig.findings(),
        &[
            "shard-0000000000000002 of shard \"events\": ",
            "the index does not name it",
            "the index names it, no page has it",
        ],
    );
    written(&manifest);
    assert_eq!(rig.findings().iter().filter(|finding| finding.starts_with("damage")).count(), 0);
}

#[test]
fn pages_that_belong_to_nothing_or_to_two_are_named() {
    let mut rig = Rig::filled();
    let before = rig.checkpointer.as_ref().unwrap().manifest().clone();
    for n in 0..30 {
        rig.apply(&Event::Put(2, 4000 + n));
    }
    rig.apply(&Event::Checkpoint);
    let manifest = rig.checkpointer.as_ref().unwrap().manifest().clone();
    let write = |tree_of: &crate::checkpoint::manifest::Manifest, map_of: &crate::checkpoint::manifest::Manifest| {
        let mut mixed = manifest.clone();
        let (tree, map) = (&tree_of.shards[0], &map_of.shards[0]);
        mixed.shards[0].tree_root = tree.tree_root.clone();
        (mixed.shards[0].live_bytes, mixed.shards[0].entries) = (tree.live_bytes, tree.entries);
        mixed.shards[0].transaction = tree.transaction;
        mixed.shards[0].map_root = map.map_root.clone();
        run(&mut crate::checkpoint::manifest::rewrite_job(&mixed).unwrap(), &rig.disk, BUDGET_UNLIMITED).unwrap();
    };
    write(&manifest, &before);
    expect(&rig.findings(), &["shard-0000000000000001 of shard \"main\": page", "is already free"]);
    write(&before, &manifest);
    expect(&rig.findings(), &["damaged page map of shard \"main\"", "of a later commit than its tree"]);
    assert!(recovery::open(&rig.disk.restart(), &cache(), Salt::new(7)).is_err(), "a start refuses it too");
    let mut endless = manifest.clone();
    let last = TransactionId(u64::MAX);
    let root = TreeRoot { transaction: last, ..TreeRoot::decode(&manifest.shards[0].tree_root).unwrap() };
    endless.shards[0].tree_root = root.encode().to_vec();
    endless.shards[0].transaction = last;
    write(&endless, &manifest);
    expect(&rig.findings(), &["of a commit that no file came to"]);
    let mut empty = manifest.clone();
    let root = TreeRoot { transaction: manifest.shards[0].transaction, ..TreeRoot::EMPTY };
    empty.shards[0].tree_root = root.encode().to_vec();
    (empty.shards[0].live_bytes, empty.shards[0].entries) = (0, 0);
    write(&empty, &manifest);
    expect(&rig.findings(), &["pages are in use but belong to nothing"]);
}

#[test]
fn an_empty_directory_is_none() {
    let disk = SimulatedDisk::new(1);
    assert!(matches!(check(&disk, &disk, &mut Heard::default()), Err(CheckError::NoData)));
    let mut rig = Rig::new();
    assert_eq!(rig.findings(), Vec::<String>::new());
    rig.apply(&Event::Put(0, 1));
    rig.apply(&Event::Checkpoint);
    let mut heard = Heard::default();
    check(&rig.disk, &rig.disk, &mut heard).unwrap();
    assert!(heard.progress > 1);
}
