//! The document of the format says what the code does.

use crate::wal::segment_name::SegmentName;
use crate::wal::{batch, log, record, segment_head as head};

const DOCUMENT: &str = include_str!("../../../../docs/disk-format-wal.md");

fn assert_says(line: &str) {
    assert!(DOCUMENT.lines().any(|found| found.starts_with(line)), "the document lacks: {line}");
}

#[test]
fn the_tables_of_the_document_are_those_of_the_code() {
    let fields = [
        (head::MAGIC_AT, head::VERSION_AT, "MAGIC"),
        (head::VERSION_AT, head::FEATURES_AT, "VERSION"),
        (head::FEATURES_AT, head::CLUSTER_AT, "FEATURES"),
        (head::CLUSTER_AT, head::MEMBER_AT, "CLUSTER"),
        (head::MEMBER_AT, head::INCARNATION_AT, "MEMBER"),
        (head::INCARNATION_AT, head::SALT_AT, "INCARNATION"),
        (head::SALT_AT, head::SEQUENCE_AT, "SALT"),
        (head::SEQUENCE_AT, head::FIRST_BATCH_AT, "SEQUENCE"),
        (head::FIRST_BATCH_AT, head::TERM_AT, "FIRST_BATCH"),
        (head::TERM_AT, head::VOTE_AT, "TERM"),
        (head::VOTE_AT, head::COMMIT_AT, "VOTE"),
        (head::COMMIT_AT, head::PREVIOUS_INDEX_AT, "COMMIT"),
        (head::PREVIOUS_INDEX_AT, head::PREVIOUS_TERM_AT, "PREVIOUS_INDEX"),
        (head::PREVIOUS_TERM_AT, head::CRC_AT, "PREVIOUS_TERM"),
        (head::CRC_AT, head::HEAD_BYTES, "CRC"),
        (batch::MAGIC_AT, batch::LENGTH_AT, "MAGIC"),
        (batch::LENGTH_AT, batch::NUMBER_AT, "LENGTH"),
        (batch::NUMBER_AT, batch::SALT_AT, "NUMBER"),
        (batch::SALT_AT, batch::SEQUENCE_AT, "SALT"),
        (batch::SEQUENCE_AT, batch::OFFSET_AT, "SEQUENCE"),
        (batch::OFFSET_AT, batch::GENERATION_AT, "OFFSET"),
        (batch::GENERATION_AT, batch::COUNT_AT, "GENERATION"),
        (batch::COUNT_AT, batch::CRC_AT, "COUNT"),
        (batch::CRC_AT, batch::HEADER_BYTES, "CRC"),
    ];
    for (from, to, name) in fields {
        assert_says(&format!("| {from} | {} | `{name}` |", to - from));
    }
    for (kind, name, bytes) in [
        (record::TYPE_ENTRY, "TYPE_ENTRY", record::ENTRY_FIXED_BYTES),
        (record::TYPE_HARD_STATE, "TYPE_HARD_STATE", record::HARD_STATE_BYTES),
        (record::TYPE_TRUNCATE_FROM, "TYPE_TRUNCATE_FROM", record::TRUNCATE_FROM_BYTES),
        (record::TYPE_START_AFTER, "TYPE_START_AFTER", record::START_AFTER_BYTES),
    ] {
        assert_says(&format!("| {kind} | `{name}` | {bytes} |"));
    }
}

#[test]
fn the_constants_of_the_document_are_those_of_the_code() {
    let options = crate::wal::LogOptions::default();
    for (name, value) in [
        ("BLOCK_BYTES", head::BLOCK_BYTES as u64),
        ("FORMAT_VERSION", u64::from(head::FORMAT_VERSION)),
        ("FEATURES_KNOWN", u64::from(head::FEATURES_KNOWN)),
        ("HEAD_COPIES", head::HEAD_COPIES as u64),
        ("HEAD_AREA_BYTES", head::HEAD_AREA_BYTES as u64),
        ("HEAD_BYTES", head::HEAD_BYTES as u64),
        ("HEADER_BYTES", batch::HEADER_BYTES as u64),
        ("BATCH_BYTES_MAX", log::BATCH_BYTES_MAX as u64),
        ("SEGMENT_BYTES_MAX", log::SEGMENT_BYTES_MAX),
        ("SPARES_MAX", log::SPARES_MAX as u64),
        ("segment_bytes", options.segment_bytes),
        ("first_segment_bytes", options.first_segment_bytes),
    ] {
        assert_says(&format!("| `{name}` | {value} |"));
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(DOCUMENT.contains(&format!("`{}`", text(&head::MAGIC))));
    assert!(DOCUMENT.contains(&format!("`{}`", text(&batch::MAGIC.to_le_bytes()))));
    assert!(DOCUMENT.contains(&format!("`{}`", SegmentName::Segment(7).path())));
    assert!(DOCUMENT.contains(&format!("`{}`", SegmentName::Spare(5).path())));
}
