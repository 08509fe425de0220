//! Runs of the index: writing the changed keys of a checkpoint, reading all runs at a start, merging them into a new base.

use std::hint::black_box;

use basalt_storage::job::{BUDGET_UNLIMITED, Job, run};
use basalt_storage::runs::{MergedRuns, Record, Removals, RunError, RunMeta, WriteRun};
use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

mod scratch_disk;

use scratch_disk::ScratchDisk;

/// Keys of the base run.
const KEYS: u64 = 100_000;
/// Keys of each run on top of it: every twentieth of all.
const CHANGED: u64 = 5_000;
const RUNS_ABOVE: u64 = 4;
/// An index record of a few revisions.
const RECORD_BYTES: usize = 32;

fn record(number: u64) -> Record {
    let key = format!("/registry/pods/namespace-{:02}/deployment-{:07}", number * 97 / KEYS, number);
    Record { key: key.into(), value: Some(Bytes::from_static(&[7; RECORD_BYTES])) }
}

fn perform<J: Job<Error = RunError>>(disk: &ScratchDisk, mut job: J) -> J::Output {
    run(&mut job, disk, BUDGET_UNLIMITED).expect("the disk does not fail")
}

/// The index of a shard on a disk: a base and younger runs.
fn index(disk: &ScratchDisk) -> Vec<RunMeta> {
    let base: Vec<_> = (0..KEYS).map(record).collect();
    let mut runs = vec![perform(disk, WriteRun::from_records("", 1, 1, base.into_iter()))];
    for above in 1..=RUNS_ABOVE {
        let changed: Vec<_> = (0..CHANGED).map(|number| record(number * (KEYS / CHANGED) + above)).collect();
        runs.push(perform(disk, WriteRun::from_records("", 1 + above, 1, changed.into_iter())));
    }
    runs
}

fn writing(c: &mut Criterion) {
    let mut group = c.benchmark_group("write a run");
    group.throughput(Throughput::Elements(CHANGED));
    for (name, disk) in [("synced", ScratchDisk::durable()), ("without sync", ScratchDisk::without_syncs())] {
        let changed: Vec<_> = (0..CHANGED).map(record).collect();
        group.bench_function(format!("5,000 keys, {name}"), |bencher| {
            bencher.iter_batched(
                || changed.clone(),
                |records| black_box(perform(&disk, WriteRun::from_records("", 1, 1, records.into_iter()))),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn merging(c: &mut Criterion) {
    let disk = ScratchDisk::without_syncs();
    let runs = index(&disk);
    let mut group = c.benchmark_group("100,000 keys and 4 runs of 5,000");
    group.sample_size(20);
    group.throughput(Throughput::Elements(KEYS + RUNS_ABOVE * CHANGED));
    group.bench_function("read at a start", |bencher| {
        bencher.iter(|| {
            let mut merged = MergedRuns::new("", &runs, Removals::Drop);
            while let Some(records) = perform(&disk, merged.next_batch()) {
                black_box(records);
            }
        });
    });
    group.bench_function("merged into a new base", |bencher| {
        bencher.iter(|| black_box(perform(&disk, WriteRun::merge("", 9, 1, &runs, Removals::Drop))));
    });
    group.finish();
}

criterion_group!(benches, writing, merging);
criterion_main!(benches);
