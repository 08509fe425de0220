//! The log: batches from records to the disk, and reading a segment back.

use std::hint::black_box;

use basalt_storage::disk::Disk;
use basalt_storage::job::{BUDGET_UNLIMITED, Job, run};
use basalt_storage::wal::{Entry, Identity, Log, LogOptions, Record, WalError, inspect};
use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

mod scratch_disk;

use scratch_disk::ScratchDisk;

const IDENTITY: Identity = Identity { cluster: 1, member: 2, incarnation: 3 };
const SEGMENT_BYTES: u64 = 16 << 20;
const OPTIONS: LogOptions = LogOptions { segment_bytes: SEGMENT_BYTES, first_segment_bytes: SEGMENT_BYTES };
/// A put of 256 B.
const ENTRY_BYTES: usize = 300;
/// Bytes of a batch beside its entries, at most: its padding to blocks.
const BLOCK_BYTES: u64 = 4096;

/// A log that is driven as the log thread does it: write, sync, and prepare and recycle segments on the way.
struct Writer {
    disk: ScratchDisk,
    log: Log,
    data: Bytes,
}

impl Writer {
    fn new(disk: ScratchDisk) -> Self {
        let log = perform(&disk, Log::create(IDENTITY, OPTIONS, 1)).log;
        Self { disk, log, data: Bytes::from(vec![7; ENTRY_BYTES]) }
    }

    /// A batch of so many entries, until it is durable.
    fn write(&mut self, entries: u64) {
        let first = self.log.last_index() + 1;
        let entry = |index| Record::Entry(Entry { index, term: 1, kind: 0, data: self.data.clone() });
        let records = (first..first + entries).map(entry).collect();
        self.log.append(records, 0).expect("a batch of a few KiB");
        let batch = self.log.start_batch().expect("it gathered just now");
        let durable = perform(&self.disk, batch);
        self.log.finish_batch(black_box(&durable));
    }

    /// What else the log does, so that it neither grows nor waits for a segment.
    fn keep_short(&mut self) {
        if let Some(job) = self.log.recycle_below(self.log.last_index()) {
            let recycled = perform(&self.disk, job);
            self.log.finish_recycle(recycled);
        }
        if let Some(job) = self.log.prepare() {
            let prepared = perform(&self.disk, job);
            self.log.finish_prepare(prepared);
        }
    }
}

fn perform<J: Job<Error = WalError>>(disk: &dyn Disk, mut job: J) -> J::Output {
    run(&mut job, disk, BUDGET_UNLIMITED).expect("the disk does not fail")
}

fn writing(c: &mut Criterion) {
    let mut group = c.benchmark_group("append a batch");
    for (name, disk) in [("synced", ScratchDisk::durable()), ("without sync", ScratchDisk::without_syncs())] {
        let mut writer = Writer::new(disk);
        writer.keep_short();
        for (batch, entries) in [("one entry", 1), ("64 entries", 64)] {
            group.throughput(Throughput::Elements(entries));
            group.bench_function(format!("{batch} of 300 B, {name}"), |bencher| {
                bencher.iter(|| {
                    writer.write(entries);
                    writer.keep_short();
                });
            });
        }
    }
    group.finish();
}

fn replaying(c: &mut Criterion) {
    let mut writer = Writer::new(ScratchDisk::without_syncs());
    let batch_bytes = 64 * ENTRY_BYTES as u64 + BLOCK_BYTES;
    for _ in 0..SEGMENT_BYTES / batch_bytes - 1 {
        writer.write(64);
    }
    let mut group = c.benchmark_group("replay");
    group.throughput(Throughput::Bytes(SEGMENT_BYTES));
    group.bench_function("a segment of 16 MiB, batches of 64", |bencher| {
        bencher.iter(|| black_box(inspect(&writer.disk, &mut |_| ()).expect("what was written")));
    });
    group.finish();
}

criterion_group!(benches, writing, replaying);
criterion_main!(benches);
