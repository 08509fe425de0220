//! Pages that say nonsense under a right checksum: refused or read without a panic.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use crate::pages::allocator::{Extent, TransactionId};
use crate::pages::branch::Branch;
use crate::pages::leaf::{LeafHead, NewLeaf};
use crate::pages::page_header::PageRef;
use crate::pages::repack::PlannedLeaf;
use crate::pages::{PAGE_HEADER_BYTES, SLOT_BYTES, TREE_ROOT_BYTES, TreeRoot};
use crate::revision::Revision;

use super::rig::entries;

const EXTENT: Extent = Extent { page: 8, pages: 1 };
const BIRTH: TransactionId = TransactionId(3);

/// A leaf of five entries and a branch of five children.
fn pages() -> [(Vec<u8>, usize); 2] {
    let leaf = NewLeaf { entries: entries(2..7, 40) };
    let mut leaf_bytes = BytesMut::new();
    let child = leaf.encode(EXTENT, BIRTH, &mut leaf_bytes);
    let whole = PlannedLeaf::New(leaf).entry();
    let below: Vec<_> = (0..5)
        .map(|number| {
            let mut entry = whole.clone();
            (entry.first, entry.child) = (Revision::new(number, 0), child);
            if entry.dead.mark(1, 5) {
                entry.live_entries -= 1;
            }
            entry
        })
        .collect();
    let mut branch_bytes = BytesMut::new();
    Branch::encode(1, &below, EXTENT, BIRTH, &mut branch_bytes);
    let branch_head = PAGE_HEADER_BYTES + below.iter().map(|entry| entry.encoded_bytes()).sum::<usize>();
    [(leaf_bytes.to_vec(), PAGE_HEADER_BYTES + 5 * SLOT_BYTES), (branch_bytes.to_vec(), branch_head)]
}

/// Overwrites bytes of the head and makes its checksum right again.
fn forge(bytes: &mut [u8], head: usize, changes: &[(usize, u8)]) -> PageRef {
    for (at, byte) in changes {
        bytes[4 + at % (head - 4)] = *byte;
    }
    let crc = crc32fast::hash(&bytes[4..head]);
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
    PageRef { extent: EXTENT, crc, birth: BIRTH }
}

proptest! {
    #[test]
    fn forged_pages_never_panic(
        changes in prop::collection::vec((any::<usize>(), prop_oneof![Just(0u8), Just(255), any::<u8>()]), 0..4),
        wanted in 0..9i64,
    ) {
        let [(mut leaf_bytes, leaf_head), (mut branch_bytes, branch_head)] = pages();
        let reference = forge(&mut leaf_bytes, leaf_head, &changes);
        if let Ok(leaf) = LeafHead::decode(&reference, 5, &leaf_bytes) {
            let bytes = Bytes::from(leaf_bytes);
            leaf.find(Revision::new(wanted, 0));
            leaf.slots().for_each(|slot| drop(leaf.entry(&slot, &bytes)));
        }
        let reference = forge(&mut branch_bytes, branch_head, &changes);
        for level in [1, 2] {
            if let Ok(branch) = Branch::decode(&reference, level, &branch_bytes) {
                prop_assert!(branch.entries.iter().all(|entry| entry.live_entries <= entry.entries));
                branch.child_of(Revision::new(wanted, 0));
            }
        }
    }

    #[test]
    fn roots_of_any_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), TREE_ROOT_BYTES), version in 0..3u8) {
        let mut bytes = bytes;
        (bytes[0], bytes[1]) = (version, 0);
        if let Ok(root) = TreeRoot::decode(&bytes) {
            prop_assert_eq!(root.encode().to_vec(), bytes);
        }
    }
}

#[test]
fn the_pages_that_are_forged_are_sound() {
    let [(mut leaf_bytes, leaf_head), (mut branch_bytes, branch_head)] = pages();
    let reference = forge(&mut leaf_bytes, leaf_head, &[]);
    assert!(LeafHead::decode(&reference, 5, &leaf_bytes).is_ok());
    assert!(LeafHead::decode(&reference, 4, &leaf_bytes).is_err());
    let reference = forge(&mut branch_bytes, branch_head, &[]);
    assert!(Branch::decode(&reference, 1, &branch_bytes).is_ok());
    // A flag that a later version may define.
    let flags = PAGE_HEADER_BYTES + SLOT_BYTES - 4;
    let reference = forge(&mut leaf_bytes, leaf_head, &[(flags - 4, 2)]);
    assert_eq!(LeafHead::decode(&reference, 5, &leaf_bytes).unwrap_err(), "unknown slot flags");
}
