//! How far a file grows for the sake of runs that are long enough.

use super::*;

/// A value of 1.5 MiB, as large as a request is by default, with header and slot.
const LARGE_PAGES: u32 = 385;
/// What lives, in pages: some 400 MB.
const LIVE_PAGES: u64 = 100_000;

struct File {
    allocator: Allocator,
    live: Vec<(Extent, TransactionId)>,
    live_pages: u64,
    random: u64,
}

impl File {
    fn new() -> Self {
        Self { allocator: Allocator::create(), live: Vec::new(), live_pages: 0, random: 7 }
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % below
    }

    fn take(&mut self, stream: Stream, pages: u32, birth: TransactionId) {
        let extent = self.allocator.allocate(stream, pages).expect("the file grows");
        self.live.push((extent, birth));
        self.live_pages += u64::from(pages);
    }

    /// A leaf, a rewritten leaf, or one time in `large_in` a large value.
    fn take_any(&mut self, large_in: u64, birth: TransactionId) {
        match (self.draw(large_in), self.draw(4)) {
            (0, _) => {
                let pages = 100 + self.draw(u64::from(LARGE_PAGES) - 99) as u32;
                self.take(Stream::Append, pages, birth);
            }
            (_, 0) => {
                let pages = 3 + self.draw(6) as u32;
                self.take(Stream::Rewrite, pages, birth);
            }
            _ => self.take(Stream::Append, 8, birth),
        }
    }
}

/// Pages of a file after many commits that each replace a part of what lives, for each page that was ever needed at once.
fn grown(large_in: u64, commits: u64) -> f64 {
    let mut file = File::new();
    let mut needed_max = 0;
    for number in 1..=commits {
        let transaction = TransactionId(number);
        file.allocator.begin(transaction);
        while file.live_pages < LIVE_PAGES {
            file.take_any(large_in, transaction);
        }
        needed_max = needed_max.max(file.live_pages);
        // A fiftieth dies, anywhere; it is available after the commit.
        while file.live_pages > LIVE_PAGES * 49 / 50 {
            let dead = file.draw(file.live.len() as u64) as usize;
            let (extent, birth) = file.live.swap_remove(dead);
            file.allocator.free(extent, birth).expect("allocated once");
            file.live_pages -= u64::from(extent.pages);
        }
        file.allocator.prepare().expect("nothing to load in a file of this process");
        file.allocator.committed();
    }
    file.allocator.file_pages() as f64 / needed_max as f64
}

#[test]
fn long_runs_let_a_file_grow_by_little() {
    // By bytes: none, a twentieth, two fifths, and nearly all in large values.
    for (large_in, grown_max) in [(u64::MAX, 1.1), (500, 1.3), (50, 1.4), (2, 1.3)] {
        let grown = grown(large_in, 400);
        assert!(grown < grown_max, "one in {large_in} is large: {grown}");
    }
}
