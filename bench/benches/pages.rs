//! The page tree of a shard: commits from entries to sealed leaves, and values from the cache, from the file, and whole
//! leaves in a row.

use std::hint::black_box;
use std::sync::Arc;

use basalt_storage::disk::{Disk, Io, IoOutput};
use basalt_storage::job::{BUDGET_UNLIMITED, Job, run};
use basalt_storage::pages::allocator::TransactionId;
use basalt_storage::pages::{FileTag, NewEntry, PageCache, PageWriter, Pages, RewriteLimits, SharedRoot, TreeChanges};
use basalt_storage::revision::Revision;
use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

mod scratch_disk;

use scratch_disk::ScratchDisk;

/// Keys of the store, each with one live revision: 100 MiB.
const KEYS: u64 = 100_000;
const VALUE_BYTES: usize = 1024;
/// Keys that a checkpoint writes.
const CHANGED: u64 = 1_000;
/// Keys of a page of a list.
const PAGE_KEYS: u64 = 500;

/// A page file whose keys are replaced in turn, all over the tree.
struct File {
    disk: ScratchDisk,
    pages: Pages,
    /// There but during a commit.
    writer: Option<PageWriter>,
    /// Of each key the live revision.
    live: Vec<Revision>,
    main: i64,
    chosen: usize,
    value: Bytes,
}

impl File {
    fn filled(disk: ScratchDisk, cache_bytes: usize) -> Self {
        let opened = disk.perform(Io::Open { name: "pages".into(), create: true }).expect("an empty folder");
        let IoOutput::Opened { file, .. } = opened else { unreachable!("an open answers Opened, not {opened:?}") };
        let pages = Pages::new(file, FileTag(1), Arc::new(PageCache::new(cache_bytes)));
        let writer = Some(PageWriter::create(pages.clone()));
        let value = Bytes::from(vec![7; VALUE_BYTES]);
        let mut filled = Self { disk, pages, writer, live: Vec::new(), main: 1, chosen: 0, value };
        for _ in 0..KEYS / CHANGED {
            let appended: Vec<_> = (0..CHANGED).map(|_| filled.entry(None)).collect();
            filled.live.extend(appended.iter().map(|entry| entry.revision));
            filled.commit(TreeChanges { appended, ..TreeChanges::default() });
        }
        filled
    }

    fn entry(&mut self, previous: Option<Revision>) -> NewEntry {
        self.main += 1;
        let revision = Revision::new(self.main, 0);
        NewEntry { revision, tombstone: false, previous, key_value: self.value.clone() }
    }

    /// A checkpoint after which [`CHANGED`] keys have new values, and a compaction has dropped the old ones.
    fn replace(&mut self) {
        let mut changes = TreeChanges::default();
        for _ in 0..CHANGED {
            self.chosen = (self.chosen + 7_919) % self.live.len();
            let old = self.live[self.chosen];
            let new = self.entry(Some(old));
            self.live[self.chosen] = new.revision;
            changes.dead.push(old);
            changes.appended.push(new);
        }
        let appended_bytes = CHANGED * VALUE_BYTES as u64;
        changes.rewrite = RewriteLimits::paced(self.writer().root(), appended_bytes);
        self.commit(changes);
    }

    fn commit(&mut self, changes: TreeChanges) {
        let writer = self.writer.take().expect("there but during a commit");
        let transaction = TransactionId(writer.root().transaction.0 + 1);
        let mut committed = self.run(writer.commit(transaction, changes));
        committed.writer.committed();
        self.writer = Some(committed.writer);
    }

    fn writer(&self) -> &PageWriter {
        self.writer.as_ref().expect("there but during a commit")
    }

    fn run<J: Job<Error: std::fmt::Debug>>(&self, mut job: J) -> J::Output {
        run(&mut job, &self.disk, BUDGET_UNLIMITED).expect("the disk does not fail")
    }

    fn fetch(&self, root: &SharedRoot, revisions: Vec<Revision>) -> Vec<Option<Bytes>> {
        self.run(self.pages.fetch(root.clone(), revisions))
    }
}

fn commits(c: &mut Criterion) {
    let mut group = c.benchmark_group("commit");
    group.sample_size(10);
    group.throughput(Throughput::Elements(CHANGED));
    for (name, disk) in [("synced", ScratchDisk::durable()), ("without sync", ScratchDisk::without_syncs())] {
        let mut file = File::filled(disk, 64 << 20);
        group.bench_function(format!("1,000 of 100,000 keys, values of 1 KiB, {name}"), |bencher| {
            bencher.iter(|| file.replace());
        });
    }
    group.finish();
}

fn reads(c: &mut Criterion) {
    let mut group = c.benchmark_group("fetch");
    for (name, cache_bytes) in [("the cache", 256 << 20), ("the file", 0)] {
        let file = File::filled(ScratchDisk::without_syncs(), cache_bytes);
        let root = file.writer().pinned_root();
        let mut number = 0;
        group.throughput(Throughput::Elements(1));
        group.bench_function(format!("a value of 1 KiB from {name}"), |bencher| {
            bencher.iter(|| {
                // Few, so that the first round has brought them all to the cache.
                number = (number + 79) % 1_000;
                black_box(file.fetch(&root, vec![file.live[number]]))
            });
        });
        group.throughput(Throughput::Elements(PAGE_KEYS));
        group.bench_function(format!("500 neighbours from {name}"), |bencher| {
            bencher.iter(|| black_box(file.fetch(&root, file.live[..PAGE_KEYS as usize].to_vec())));
        });
    }
    group.finish();
}

/// Leaves decoded and every entry checked: what history, hashes and snapshots do.
fn scans(c: &mut Criterion) {
    let file = File::filled(ScratchDisk::without_syncs(), 0);
    let root = file.writer().pinned_root();
    let (first, last) = (file.live[0], file.live[KEYS as usize - 1]);
    let mut group = c.benchmark_group("scan");
    group.throughput(Throughput::Bytes(10_000 * VALUE_BYTES as u64));
    group.bench_function("10,000 values of 1 KiB", |bencher| {
        bencher.iter(|| black_box(file.run(file.pages.scan(root.clone(), first, last, 10_000, true))));
    });
    group.finish();
}

criterion_group!(benches, commits, reads, scans);
criterion_main!(benches);
