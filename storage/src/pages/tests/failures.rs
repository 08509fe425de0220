//! Disks that are full or fail, and changes that make no sense.

use std::collections::HashSet;

use crate::pages::{CommitFailure, TreeChanges};

use super::rig::{Rig, entries, entry, revisions};

fn appending(appended: Vec<crate::pages::NewEntry>) -> TreeChanges {
    TreeChanges { appended, ..TreeChanges::default() }
}

#[test]
fn a_full_disk_changes_nothing_and_space_cures_it() {
    let mut rig = Rig::new(1 << 20);
    rig.append(entries(2..50, 1000));
    let (root, used) = (rig.writer().root().clone(), rig.writer().used_pages());
    let length = rig.disk.bytes().len() as u64;
    rig.disk.limit(Some(length));
    rig.disk.freeze(rig.reachable(&root));
    for _ in 0..2 {
        let error = rig.start(appending(entries(50..4000, 1000))).unwrap_err();
        assert!(matches!(error.cause, CommitFailure::NoSpace(_)), "{error:?}");
        rig.undone(error);
        assert_eq!((rig.writer().root(), rig.writer().used_pages()), (&root, used));
        rig.verify();
    }
    rig.disk.limit(None);
    rig.append(entries(50..4000, 1000));
    rig.disk.freeze(HashSet::new());
    rig.reopen();
    // 31 entries of 1,048 bytes with their slots fit a leaf.
    assert_eq!(rig.verify().unwrap().leaves, 3998_u64.div_ceil(31));
}

#[test]
fn a_failed_sync_keeps_the_writer() {
    let mut rig = Rig::new(1 << 20);
    rig.disk.fail_syncs();
    let error = rig.start(appending(entries(2..5, 10))).unwrap_err();
    assert!(matches!(error.cause, CommitFailure::Sync(_)) && error.writer.is_none());
}

#[test]
fn senseless_changes_are_refused() {
    let mut rig = Rig::new(1 << 20);
    rig.append(entries(2..50, 1000));
    for appended in [entries(49..51, 10), vec![entry(51, 1), entry(51, 1)]] {
        let error = rig.start(appending(appended)).unwrap_err();
        assert!(matches!(error.cause, CommitFailure::OutOfOrder(_)), "{error:?}");
        rig.undone(error);
    }
    rig.append(entries(50..51, 10));
}

#[test]
fn a_crash_at_any_write_leaves_the_durable_tree() {
    let mut rig = Rig::new(1 << 20);
    rig.append(entries(2..200, 1000));
    let before = rig.scan_all(&rig.root(), 1000, true);
    let durable = rig.disk.bytes();
    let changes = TreeChanges { dead: revisions(2..150), ..appending(entries(200..400, 1000)) };
    rig.disk.take_written();
    let committed = rig.start(changes).unwrap();
    rig.end(committed, false);
    let after = rig.disk.bytes();
    // Each write alone may have reached the disk, or all of them, without the manifest.
    let mut crashes: Vec<Vec<(u64, usize)>> = rig.disk.take_written().into_iter().map(|write| vec![write]).collect();
    crashes.push(crashes.concat());
    for writes in crashes {
        let mut bytes = durable.clone();
        for (offset, length) in writes {
            let (from, to) = (offset as usize, offset as usize + length);
            bytes.resize(bytes.len().max(to), 0);
            bytes[from..to].copy_from_slice(&after[from..to]);
        }
        rig.disk.set_bytes(bytes);
        rig.reopen();
        rig.verify();
        assert_eq!(rig.scan_all(&rig.root(), 1000, true), before);
    }
}
