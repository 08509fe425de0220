//! Flipped bits and writes that went astray: an error or the right answer, never another one.

use crate::pages::allocator::PAGE_SIZE;
use crate::pages::{PagesError, TreeChanges, VerifyError};

use super::rig::{FIRST, LAST, Rig, entries, entry, revisions};

#[test]
fn no_flipped_bit_changes_an_answer() {
    let mut rig = Rig::new(0);
    rig.append(entries(2..60, 300));
    rig.append(entries(60..140, 900));
    rig.only_mark(revisions([5, 70, 71]));
    let root = rig.root();
    let all = revisions(2..140);
    let answers = rig.fetch(&root, all.clone());
    let slots = rig.scan_all(&root, 1000, true);
    let used: Vec<_> = rig.reachable(&root.root).into_iter().collect();
    let (mut flips, mut seen) = (0, 0);
    for page in used {
        // Every bit of the header; elsewhere a sample with all bit positions in it.
        for bit in (0..600).chain((600..PAGE_SIZE * 8).step_by(401)) {
            rig.disk.flip(page as usize * PAGE_SIZE * 8 + bit);
            let fetched = rig.run(rig.pages().fetch(root.clone(), all.clone()));
            let scanned = rig.run(rig.pages().scan(root.clone(), FIRST, LAST, 1000, true));
            rig.disk.flip(page as usize * PAGE_SIZE * 8 + bit);
            flips += 1;
            seen += usize::from(fetched.is_err());
            assert!(fetched.is_err() || fetched.is_ok_and(|fetched| fetched == answers), "page {page} bit {bit}");
            assert!(scanned.is_err() || scanned.is_ok_and(|chunk| chunk.slots == slots), "page {page} bit {bit}");
        }
    }
    assert!(seen > flips / 3, "{seen} of {flips} flips were seen");
}

#[test]
fn lost_and_misdirected_writes_are_seen() {
    let mut rig = Rig::new(0);
    rig.append(entries(2..60, 300));
    let before = rig.disk.bytes();
    rig.append(entries(60..140, 300));
    let after = rig.disk.bytes();
    let offset = rig.root().root.page.unwrap().offset() as usize;
    let wanted = revisions([100]);
    let broken = |rig: &Rig, bytes: Vec<u8>| {
        rig.disk.set_bytes(bytes);
        matches!(rig.run(rig.pages().fetch(rig.root(), wanted.clone())), Err(PagesError::Corrupt { .. }))
    };
    // The root was never written.
    let mut lost = after.clone();
    lost[offset..offset + PAGE_SIZE].copy_from_slice(&before[offset..offset + PAGE_SIZE]);
    assert!(broken(&rig, lost));
    // An intact page of the same tree stands in its place.
    let mut misdirected = after;
    misdirected.copy_within(8 * PAGE_SIZE..9 * PAGE_SIZE, offset);
    assert!(broken(&rig, misdirected));
}

#[test]
fn a_commit_over_a_corrupt_leaf_fails_and_gives_the_writer_back() {
    let mut rig = Rig::new(0);
    rig.append(entries(2..60, 300));
    let intact = rig.disk.bytes();
    let place = intact.windows(50).position(|window| window == &entry(59, 300).key_value[..50]).unwrap();
    let mut bytes = intact.clone();
    bytes[place] ^= 1;
    rig.disk.set_bytes(bytes);
    let changes = || TreeChanges { appended: entries(60..62, 300), ..TreeChanges::default() };
    let error = rig.start(changes()).unwrap_err();
    assert!(error.writer.is_some());
    rig.undone(error);
    rig.disk.set_bytes(intact);
    rig.commit(changes());
    rig.verify();
}

#[test]
fn a_map_of_another_commit_is_seen() {
    let mut rig = Rig::new(0);
    rig.append(entries(2..60, 300));
    let committed = rig.start(TreeChanges { appended: entries(60..200, 300), ..TreeChanges::default() }).unwrap();
    let (root, map_root) = (committed.root.clone(), committed.map_root.clone());
    rig.end(committed, true);
    assert!(rig.run(rig.pages().verify(root.clone(), map_root.clone())).is_ok());
    rig.mark(revisions(2..180));
    // The old tree is pinned and intact, and so is the newest one; only the maps are exchanged.
    let error = rig.run(rig.pages().verify(rig.root(), map_root)).unwrap_err();
    assert!(matches!(error, VerifyError::Map(_) | VerifyError::Leaked(_)), "{error:?}");
    drop(root);
}
