//! What marking and rewriting cost, and how much garbage a file keeps.

use crate::disk::Disk;
use crate::job::{Job, Step};
use crate::pages::allocator::{PAGE_SIZE, REGION_HEAD_PAGES};
use crate::pages::{RewriteLimits, TreeChanges};

use super::rig::{Rig, entries, revisions};

/// Entries that fill a leaf each.
const WHOLE_LEAF: usize = 30_000;

#[test]
fn marking_reads_the_heads_of_the_leaves_it_marks_and_no_others() {
    let mut rig = Rig::new(16 << 20);
    // 700 leaves under at least three branches under a root, all of which one commit opens.
    rig.append(entries(2..702, WHOLE_LEAF));
    assert_eq!(rig.root().root.height, 2);
    rig.reopen();
    let dead = revisions([100, 101, 350, 600]);
    let changes = |dead| {
        let rewrite = RewriteLimits { leaves_max: 0, sweep_branches_max: 0, ..RewriteLimits::default() };
        TreeChanges { dead, rewrite, ..TreeChanges::default() }
    };
    rig.disk.take_read();
    rig.commit(changes(dead.clone()));
    // The head of such a leaf is one page; branches are longer, and pages of the map stand at the head of the region.
    let behind_map = REGION_HEAD_PAGES * PAGE_SIZE as u64;
    let is_head = |(offset, length): &(u64, usize)| *offset >= behind_map && *length == PAGE_SIZE;
    // So is the root, with its four entries.
    assert_eq!(rig.disk.take_read().iter().filter(|read| is_head(read)).count(), 1 + dead.len());
    // Marking twice changes nothing, in steps of one leaf; nor does it read, once the new branches are cached.
    rig.budget = 1;
    rig.commit(changes(dead.clone()));
    rig.disk.take_read();
    rig.commit(changes(dead));
    assert_eq!(rig.disk.take_read(), []);
    assert_eq!(rig.root().root.live_entries, 696);
}

#[test]
fn a_mark_that_no_leaf_can_have_is_not_looked_for() {
    let mut rig = Rig::new(16 << 20);
    rig.append(entries(2..702, WHOLE_LEAF));
    rig.reopen();
    rig.disk.take_read();
    rig.only_mark(revisions(1000..2000));
    assert_eq!(rig.disk.take_read(), []);
}

/// Pages of the file in use for each page that its live bytes would fill.
fn used_per_live(rig: &Rig) -> f64 {
    (rig.writer().used_pages() * PAGE_SIZE as u64) as f64 / rig.root().root.live_bytes as f64
}

/// Entries under churn: each round some are written anew, and the next round the old ones are dead.
struct Churn {
    rig: Rig,
    /// The newest main revision of each.
    live: Vec<i64>,
    next_main: i64,
    dead: Vec<i64>,
    random: u64,
}

impl Churn {
    const ENTRY_BYTES: usize = 700;

    fn new(count: i64) -> Self {
        let mut rig = Rig::new(16 << 20);
        rig.append(entries(2..count + 2, Self::ENTRY_BYTES));
        Self { rig, live: (2..count + 2).collect(), next_main: count + 2, dead: Vec::new(), random: 1 }
    }

    fn draw(&mut self, below: usize) -> usize {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) as usize % below
    }

    /// A commit that overwrites `count` of them, `hot_percent` of these among the first tenth.
    fn round(&mut self, count: usize, hot_percent: usize) {
        let begin = self.next_main;
        let mut dead = Vec::new();
        for _ in 0..count {
            let among = if self.draw(100) < hot_percent { self.live.len() / 10 } else { self.live.len() };
            let key = self.draw(among);
            // A key changes once in a round.
            if self.live[key] < begin {
                dead.push(std::mem::replace(&mut self.live[key], self.next_main));
                self.next_main += 1;
            }
        }
        let appended = entries(begin..self.next_main, Self::ENTRY_BYTES);
        let appended_bytes = appended.iter().map(|entry| entry.stored_bytes() as u64).sum();
        let rewrite = RewriteLimits::paced(self.rig.writer().root(), appended_bytes);
        let dead = revisions(std::mem::replace(&mut self.dead, dead));
        self.rig.commit(TreeChanges { appended, dead, rewrite });
    }
}

#[test]
fn garbage_stays_bounded_however_much_a_commit_writes() {
    for (count, hot_percent) in [(2_000, 0), (8_000, 0), (8_000, 80), (20, 50)] {
        // 15 MB that live, 460 leaves.
        let mut churn = Churn::new(20_000);
        for round in 0..50 {
            churn.round(count, hot_percent);
            let used = used_per_live(&churn.rig);
            assert!(used < 2.0, "{used} x live in round {round} of {count} writes, {hot_percent} % hot");
        }
        let used = used_per_live(&churn.rig);
        let mut commits = 0;
        while !churn.rig.writer().is_tidy_by(&RewriteLimits::ALL) {
            churn.rig.commit(TreeChanges { rewrite: RewriteLimits::ALL, ..TreeChanges::default() });
            commits += 1;
        }
        let root = &churn.rig.root().root;
        assert_eq!(root.stored_bytes, root.live_bytes);
        let tidy = used_per_live(&churn.rig);
        let file = (churn.rig.writer().file_pages() * PAGE_SIZE as u64) as f64 / root.live_bytes as f64;
        // Two rewrite; the others give up the end of the file.
        assert!(
            commits <= 2 + 4 && tidy < 1.2 && file < 1.4,
            "{tidy} x live, a file of {file} x, after {commits} commits; {used} before"
        );
        churn.rig.verify();
    }
}

#[test]
fn rewriting_holds_one_wave_of_leaves_in_memory() {
    let mut rig = Rig::new(1 << 20);
    // 40 MB, of which every second entry dies.
    rig.append(entries(2..40_002, 1000));
    rig.only_mark(revisions((2..40_002).step_by(2)));
    rig.reopen();
    rig.disk.take_read();
    rig.disk.take_written();
    let rewrite =
        RewriteLimits { live_percent: 60, leaves_max: 8192, sweep_branches_max: 64, ..RewriteLimits::default() };
    let mut job = rig.begin(TreeChanges { rewrite, ..TreeChanges::default() });
    let (mut read, mut read_max) = (0, 0);
    let (mut completions, mut waves) = (Vec::new(), 0);
    let committed = loop {
        match job.step(std::mem::take(&mut completions), 100).unwrap() {
            Step::Again => {}
            Step::Submit(requests) => {
                completions = requests.into_iter().map(|io| rig.disk.perform(io)).collect();
                read += rig.disk.take_read().iter().map(|(_, length)| length).sum::<usize>();
                if !rig.disk.take_written().is_empty() {
                    (read_max, read, waves) = (read_max.max(read), 0, waves + 1);
                }
            }
            Step::Done(committed) => break committed,
        }
    };
    rig.end(committed, true);
    // 8 MiB of leaves, and the branches that were opened before.
    assert!(waves >= 5 && read_max < 10 << 20, "{read_max} bytes read before a write, {waves} waves");
    let root = &rig.root().root;
    assert_eq!((root.stored_bytes, root.live_entries), (root.live_bytes, 20_000));
    rig.verify();
}

/// Commits that shrink the file, until nothing is left to do; gives how many.
fn shrink(rig: &mut Rig) -> usize {
    let mut commits = 0;
    while !rig.writer().is_tidy_by(&RewriteLimits::ALL) {
        rig.commit(TreeChanges { rewrite: RewriteLimits::ALL, ..TreeChanges::default() });
        commits += 1;
        assert!(commits < 20, "it does not come to an end");
    }
    rig.verify();
    commits
}

/// Whatever lives, wherever it stands: the oldest, the newest, a tenth everywhere; in leaves of many entries, of one, and
/// of a large one.
#[test]
fn a_file_becomes_as_short_as_what_lives_in_it() {
    const COUNT: i64 = 1000;
    for length in [700, 20_000, 100_000] {
        let live: [&dyn Fn(i64) -> bool; 3] =
            [&|main| main < COUNT / 10, &|main| main > COUNT * 9 / 10, &|main| main % 10 == 0];
        for (which, live) in live.iter().enumerate() {
            let mut rig = Rig::new(16 << 20);
            (0..10).for_each(|part| rig.append(entries(2 + part * COUNT / 10..2 + (part + 1) * COUNT / 10, length)));
            let (full, all) = (rig.writer().file_pages(), 2..2 + COUNT);
            rig.only_mark(revisions(all.clone().filter(|main| !live(*main))));
            let before = rig.fetch(&rig.root(), revisions(all.clone().filter(|main| live(*main))));
            if which == 1 {
                // Nothing of the map is loaded.
                rig.reopen();
            }
            let commits = shrink(&mut rig);
            let (now, needed) = (rig.writer().file_pages(), rig.root().root.live_bytes.div_ceil(PAGE_SIZE as u64));
            let context =
                format!("{length} bytes, {which}: {full} pages, now {now}, {needed} needed, {commits} commits");
            assert!(now < full / 5 || now <= 256, "{context}");
            assert_eq!(rig.fetch(&rig.root(), revisions(all.filter(|main| live(*main)))), before, "{context}");
            // The next append takes new space, and another opening finds the same.
            rig.append(entries(2 + COUNT..2 + 2 * COUNT, length));
            rig.reopen();
            rig.verify();
        }
    }
}

#[test]
fn a_reader_keeps_the_end_of_a_file() {
    let mut rig = Rig::new(16 << 20);
    rig.append(entries(2..1002, 20_000));
    let (reader, wanted) = (rig.root(), revisions([1001]));
    let seen = rig.fetch(&reader, wanted.clone());
    rig.only_mark(revisions(12..1002));
    let full = rig.writer().file_pages();
    shrink(&mut rig);
    assert_eq!((rig.writer().file_pages(), rig.fetch(&reader, wanted)), (full, seen));
    drop(reader);
    // Something else was written meanwhile; then it is worth another look.
    rig.append(entries(1002..1003, 100));
    shrink(&mut rig);
    assert!(rig.writer().file_pages() < full / 5);
}
