//! The bytes on disk are those of `docs/disk-format-pages.md`.

use bytes::{Bytes, BytesMut};

use crate::pages::allocator::{Extent, PAGE_SIZE, TransactionId};
use crate::pages::branch::{Branch, BranchEntry};
use crate::pages::dead_marks::DeadMarks;
use crate::pages::leaf::NewLeaf;
use crate::pages::{
    BRANCH_BYTES, BRANCH_ENTRY_BYTES, ENTRY_BYTES_MAX, HEIGHT_MAX, LEAF_BYTES, LEAF_SLOTS_MAX, NewEntry,
    PAGE_FORMAT_VERSION, PAGE_HEADER_BYTES, PageRef, SLOT_BYTES, TREE_ROOT_BYTES, TREE_ROOT_VERSION, TreeRoot,
};
use crate::revision::Revision;

const DOCUMENT: &str = include_str!("../../../../docs/disk-format-pages.md");

/// Bytes as the document shows them, sixteen to a line; lines of zeros are left out.
fn dump(bytes: &[u8]) -> String {
    let lines = bytes.chunks(16).enumerate().filter(|(_, line)| line.iter().any(|&byte| byte != 0));
    let hex = |line: &[u8]| line.iter().map(|byte| format!(" {byte:02x}")).collect::<String>();
    lines.map(|(at, line)| format!("{:04x} {}\n", at * 16, hex(line))).collect()
}

fn documented(title: &str, bytes: &[u8]) {
    let expected = format!("{title}:\n\n```text\n{}```", dump(bytes));
    assert!(DOCUMENT.contains(&expected), "the document lacks\n{expected}");
}

#[test]
fn the_document_states_our_constants() {
    for figure in [
        format!("| page | {PAGE_SIZE} bytes |"),
        format!("| page header | {PAGE_HEADER_BYTES} bytes |"),
        format!("| slot | {SLOT_BYTES} bytes |"),
        format!("| leaf, filled to | {LEAF_BYTES} bytes |"),
        format!("| slots of a leaf, at most | {LEAF_SLOTS_MAX} |"),
        format!("| KeyValue, at most | {ENTRY_BYTES_MAX} bytes |"),
        format!("| branch, at most | {BRANCH_BYTES} bytes |"),
        format!("| branch entry without dead marks | {BRANCH_ENTRY_BYTES} bytes |"),
        format!("| levels of branches, at most | {HEIGHT_MAX} |"),
        format!("| tree root | {TREE_ROOT_BYTES} bytes |"),
        format!("page format version, {PAGE_FORMAT_VERSION}"),
        format!("root format version, {TREE_ROOT_VERSION}"),
    ] {
        assert!(DOCUMENT.contains(&figure), "the document lacks: {figure}");
    }
}

#[test]
fn the_document_shows_our_bytes() {
    let entry = |main, tombstone, previous, key_value: &'static [u8]| NewEntry {
        revision: Revision::new(main, 1),
        tombstone,
        previous,
        key_value: Bytes::from_static(key_value),
    };
    let put = entry(2, false, None, b"\x0a\x01a\x10\x02\x18\x02\x20\x01\x2a\x01x");
    let delete = entry(3, true, Some(put.revision), b"\x0a\x01a");
    let leaf = NewLeaf { entries: vec![put, delete] };
    let mut bytes = BytesMut::new();
    let child = leaf.encode(Extent { page: 8, pages: 1 }, TransactionId(1), &mut bytes);
    assert_eq!(bytes.len(), PAGE_SIZE);
    documented("A leaf of two entries at page 8, born in transaction 1", &bytes);

    let mut dead = DeadMarks::default();
    dead.mark(0, 2);
    let above = BranchEntry {
        first: Revision::new(2, 1),
        child,
        entries: 2,
        live_entries: 1,
        live_bytes: 51,
        stored_bytes: 111,
        dead,
    };
    let mut bytes = BytesMut::new();
    let extent = Extent { page: 9, pages: 1 };
    let page: PageRef = Branch::encode(1, &[above], extent, TransactionId(2), &mut bytes);
    documented("The branch above it at page 9, born in transaction 2, with the first entry dead", &bytes);

    let root = TreeRoot {
        transaction: TransactionId(2),
        height: 1,
        page: Some(page),
        entries: 2,
        live_entries: 1,
        live_bytes: 51,
        stored_bytes: 111,
        last_revision: Revision::new(3, 1),
    };
    documented("The root that names the branch", &root.encode());
}
