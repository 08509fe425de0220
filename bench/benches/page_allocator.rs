//! The page allocator: transactions that replace pages, as copy on write does, in a file with holes.

use std::hint::black_box;

use basalt_storage::pages::allocator::{Allocator, Extent, Stream, TransactionId};
use criterion::{Criterion, criterion_group, criterion_main};

/// Pages of the file: 4 GiB.
const PAGES: usize = 1 << 20;
/// Extents that a transaction replaces: a checkpoint of a busy second.
const REPLACED: usize = 1_000;
/// A leaf of the tree.
const EXTENT_PAGES: u32 = 4;

/// A file, and what is allocated in it with its birth.
struct File {
    allocator: Allocator,
    extents: Vec<(Extent, TransactionId)>,
    transaction: u64,
    chosen: usize,
}

impl File {
    /// Full but for the extents that `keep` refuses.
    fn filled(keep: impl Fn(usize) -> bool) -> Self {
        let (mut allocator, birth) = (Allocator::create(), TransactionId(1));
        allocator.begin(birth);
        let mut extents: Vec<_> = (0..PAGES / EXTENT_PAGES as usize)
            .map(|_| (allocator.allocate(Stream::Append, EXTENT_PAGES).expect("the file grows"), birth))
            .collect();
        commit(&mut allocator);
        allocator.begin(TransactionId(2));
        let mut number = 0;
        extents.retain(|(extent, birth)| {
            number += 1;
            let kept = keep(number);
            if !kept {
                allocator.free(*extent, *birth).expect("allocated above");
            }
            kept
        });
        commit(&mut allocator);
        Self { allocator, extents, transaction: 2, chosen: 0 }
    }

    /// One transaction that replaces extents all over the file.
    fn replace(&mut self) {
        self.transaction += 1;
        let transaction = TransactionId(self.transaction);
        self.allocator.begin(transaction);
        for _ in 0..REPLACED {
            self.chosen = (self.chosen + 7_919) % self.extents.len();
            let (old, birth) = self.extents[self.chosen];
            let new = self.allocator.allocate(Stream::Append, EXTENT_PAGES).expect("the file grows");
            self.allocator.free(old, birth).expect("allocated once");
            self.extents[self.chosen] = (new, transaction);
        }
        commit(&mut self.allocator);
    }
}

fn commit(allocator: &mut Allocator) {
    black_box(allocator.prepare().expect("nothing to load in a file of this process"));
    allocator.committed();
}

fn replacing(c: &mut Criterion) {
    let mut group = c.benchmark_group("replace 1,000 extents");
    let mut dense = File::filled(|_| true);
    group.bench_function("dense file", |bencher| bencher.iter(|| dense.replace()));
    let mut shredded = File::filled(|number| number % 3 != 0);
    group.bench_function("a third are holes", |bencher| bencher.iter(|| shredded.replace()));
    let reader = shredded.allocator.readers().pin(TransactionId(shredded.transaction));
    group.bench_function("with a long reader", |bencher| bencher.iter(|| shredded.replace()));
    drop(reader);
    group.finish();
}

criterion_group!(benches, replacing);
criterion_main!(benches);
