//! The key index: writes between published roots, reads, counts and scans of a root.

use std::hint::black_box;
use std::ops::ControlFlow;

use basalt_storage::mvcc::key_index::{IndexBuilder, KeyIndex};
use basalt_storage::mvcc::key_range::KeyRange;
use basalt_storage::revision::Revision;
use criterion::{Criterion, criterion_group, criterion_main};

const KEYS: u64 = 1_000_000;
/// Writes between two published roots: an applied batch of a busy store.
const BATCH: u64 = 64;

fn kubernetes_key(number: u64) -> Vec<u8> {
    let scrambled = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let (namespace, hash) = (scrambled % 97, scrambled >> 24);
    format!("/registry/pods/namespace-{namespace:02}/deployment-{:07}-{hash:010x}-{number:05x}", hash % 331)
        .into_bytes()
}

fn filled() -> KeyIndex {
    let mut index = KeyIndex::new();
    for number in 0..KEYS {
        index.put(&kubernetes_key(number), Revision::new(number as i64 + 2, 0), 0);
    }
    index
}

fn writes(c: &mut Criterion) {
    let mut index = filled();
    let (mut main, mut number, mut published) = (KEYS as i64 + 2, 0u64, index.root());
    c.bench_function("put, a root every 64", |bencher| {
        bencher.iter(|| {
            number = (number + 7_919) % KEYS;
            main += 1;
            black_box(index.put(&kubernetes_key(number), Revision::new(main, 0), 0));
            if (main as u64).is_multiple_of(BATCH) {
                published = index.root();
            }
        });
    });
    black_box(published);
}

fn reads(c: &mut Criterion) {
    let root = filled().root();
    let half = KeyRange::from_wire(b"/registry/pods/namespace-2", b"/registry/pods/namespace-7");
    let mut number = 0u64;
    c.bench_function("get", |bencher| {
        bencher.iter(|| {
            number = (number + 7_919) % KEYS;
            black_box(root.get(&kubernetes_key(number)))
        });
    });
    c.bench_function("count of half a million", |bencher| bencher.iter(|| black_box(root.count(&half, 0))));
    c.bench_function("page of 500", |bencher| {
        bencher.iter(|| {
            let mut left = 500;
            let _ = root.scan(&half, 0, |key, revision| {
                black_box((key, revision));
                left -= 1;
                if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
        });
    });
}

fn load(c: &mut Criterion) {
    let root = filled().root();
    let mut records = Vec::new();
    let _ = root.scan_records::<()>(&KeyRange::ALL, 0, |key, record| {
        records.push((key.to_vec(), record));
        ControlFlow::Continue(())
    });
    let mut group = c.benchmark_group("load");
    group.sample_size(10);
    group.bench_function("a million records", |bencher| {
        bencher.iter(|| {
            let mut builder = IndexBuilder::new();
            for (key, record) in &records {
                builder.push(key, record).expect("records of the index itself");
            }
            builder.finish()
        });
    });
    group.finish();
}

criterion_group!(benches, writes, reads, load);
criterion_main!(benches);
