//! The document of the format says what the code does.

use super::past::{Past, put_past};
use super::record::{HAS_LEASE, HAS_PAST, HAS_SUB, Head, KeyState, Record, TOMBSTONE};
use crate::revision::Revision;

const DOCUMENT: &str = include_str!("../../../../docs/disk-format-runs.md");

/// The bytes that the document gives for a value, found by what it says of them.
fn bytes_said_of(meaning: &str) -> Vec<u8> {
    let line = DOCUMENT.lines().find(|line| line.ends_with(&format!("| {meaning} |")));
    let line = line.unwrap_or_else(|| panic!("the document lacks: {meaning}"));
    let hex = line.split('`').nth(1).expect("bytes stand between backquotes");
    hex.split(' ').map(|byte| u8::from_str_radix(byte, 16).expect("two hexadecimal digits")).collect()
}

/// A record of a head and the revisions before it, newest first.
fn encoded(head: Head, older: &[Past]) -> Vec<u8> {
    let (mut past, mut newer) = (Vec::new(), head.revision());
    for revision in older {
        put_past(&mut past, newer, *revision);
        newer = revision.revision;
    }
    Record { head, past_count: older.len() as u64, past: &past }.encode()
}

#[test]
fn the_values_of_the_document_are_those_of_the_code() {
    let value = |main| Past { revision: Revision::new(main, 0), tombstone: false };
    let created = KeyState { create_revision: 5, mod_revision: Revision::new(5, 0), version: 1, lease: 0 };
    let said = bytes_said_of("created by revision 5.0, and not changed since");
    assert_eq!(encoded(Head::Live(created), &[]), said);

    let changed = KeyState { create_revision: 4, mod_revision: Revision::new(9, 1), version: 3, lease: 7 };
    let said = bytes_said_of("changed by 9.1, created by 4.0, version 3, lease 7; before that 6.0 and 4.0");
    assert_eq!(encoded(Head::Live(changed), &[value(6), value(4)]), said);

    let said = bytes_said_of("deleted by 300.0; before that another deletion, 296.0");
    let deletion = Past { tombstone: true, ..value(296) };
    assert_eq!(encoded(Head::Tombstone(Revision::new(300, 0)), &[deletion]), said);
}

#[test]
fn the_flags_of_the_document_are_those_of_the_code() {
    let flags = [("TOMBSTONE", TOMBSTONE), ("HAS_SUB", HAS_SUB), ("HAS_LEASE", HAS_LEASE), ("HAS_PAST", HAS_PAST)];
    for (name, flag) in flags {
        let line = format!("| `{name}` | {} |", flag.trailing_zeros());
        assert!(DOCUMENT.contains(&line), "the document lacks: {line}");
    }
}
