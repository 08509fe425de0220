//! Trees of several levels, large entries, and what a compaction gives back.

use crate::pages::{LEAF_SLOTS_MAX, RewriteLimits, TreeChanges};

use super::rig::{Rig, entries, entry, revisions};

#[test]
fn a_large_entry_has_a_leaf_of_its_own() {
    let mut rig = Rig::new(1 << 16);
    let sizes = [100, 2 << 20, 100, 32 * 1024, 3 << 20];
    rig.append((2..).zip(sizes).map(|(main, size)| entry(main, size)).collect());
    rig.reopen();
    let expected: Vec<_> = (2..).zip(sizes).map(|(main, size)| Some(entry(main, size).key_value)).collect();
    assert_eq!(rig.fetch(&rig.root(), revisions(2..7)), expected);
    assert_eq!(rig.verify().unwrap().leaves, 5);
    let before = rig.writer().used_pages();
    rig.mark(revisions([3, 6]));
    assert_eq!(rig.verify().unwrap().leaves, 3);
    assert!(before - rig.writer().used_pages() > 5 * 256);
}

#[test]
fn leaves_are_packed_full_whatever_the_size_of_commits() {
    let mut rig = Rig::new(1 << 20);
    for main in (2..1002).step_by(10) {
        rig.append(entries(main..main + 10, 452));
    }
    // 65 entries of 500 bytes with their slots fit a leaf.
    let verified = rig.verify().unwrap();
    assert_eq!(verified.leaves, 1000_u64.div_ceil(65));
    assert_eq!(verified.branches, 1);
}

#[test]
fn marks_make_full_branches_split_and_dead_leaves_make_them_merge() {
    let mut rig = Rig::new(1 << 22);
    let leaf = LEAF_SLOTS_MAX as i64;
    // As many leaves as one branch holds while nothing is dead.
    let last = 2 + 203 * leaf;
    rig.append(entries(2..last, 10));
    assert_eq!((rig.root().root.height, rig.verify().unwrap().branches), (1, 1));
    rig.only_mark(revisions((0..203).map(|number| 2 + number * leaf)));
    assert_eq!((rig.root().root.height, rig.verify().unwrap().branches), (2, 3));
    // All but the first and the last leaf go; one branch remains, and it is the root.
    rig.mark(revisions(2 + leaf..last - leaf));
    let verified = rig.verify().unwrap();
    assert_eq!((rig.root().root.height, verified.leaves, verified.branches), (1, 2, 1));
    rig.mark(revisions(2..last));
    assert_eq!((rig.root().root.height, rig.verify().unwrap().pages), (0, 0));
    // What was dropped still bounds what may come.
    assert_eq!(rig.root().root.last_revision.main, last - 1);
    rig.append(entries(last..last + 1, 10));
    assert_eq!(rig.verify().unwrap().leaves, 1);
}

#[test]
fn sparse_leaves_are_rewritten_in_bounded_steps_also_after_a_restart() {
    let mut rig = Rig::new(1 << 22);
    rig.append(entries(2..8002, 1000));
    let full = rig.verify().unwrap();
    rig.only_mark(revisions((2..8002).filter(|main| main % 4 != 0)));
    assert_eq!(rig.verify().unwrap().leaves, full.leaves);
    assert!(!rig.writer().is_tidy());
    rig.reopen();
    let rewrite = RewriteLimits { leaves_max: 20, ..RewriteLimits::default() };
    let mut commits = 0;
    while !rig.writer().is_tidy() {
        let before = rig.verify().unwrap().leaves;
        rig.commit(TreeChanges { rewrite, ..TreeChanges::default() });
        assert!(before - rig.verify().unwrap().leaves <= 20);
        commits += 1;
        assert!(commits < 50);
    }
    let tidy = rig.verify().unwrap();
    assert!(tidy.pages < full.pages / 3, "{} of {} pages", tidy.pages, full.pages);
    assert_eq!(rig.root().root.stored_bytes, rig.root().root.live_bytes);
    let kept: Vec<_> = (2..8002).filter(|main| main % 4 == 0).collect();
    let expected = kept.iter().map(|main| Some(entry(*main, 1000).key_value));
    assert!(rig.fetch(&rig.root(), revisions(kept.clone())).into_iter().eq(expected));
}

#[test]
fn a_commit_writes_what_changed_in_long_writes_and_syncs_once() {
    let mut rig = Rig::new(1 << 22);
    rig.append(entries(2..3002, 4000));
    rig.disk.take_written();
    let syncs = rig.disk.syncs();
    rig.append(entries(3002..3004, 4000));
    assert_eq!(rig.disk.syncs(), syncs + 1);
    // The last leaf, the path above it, and three pages of the map.
    let bytes: usize = rig.disk.take_written().iter().map(|(_, length)| length).sum();
    assert!(bytes <= (8 + 8 + 4 + 3) * 4096, "{bytes} bytes");
    rig.append(entries(3004..6004, 4000));
    let written = rig.disk.take_written();
    assert!(written.len() < 60, "{} writes for 12 MB", written.len());
}
