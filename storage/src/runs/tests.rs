//! Runs against maps in memory, and against damage.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::memory_disk::MemoryDisk;
use super::*;
use crate::disk::{Disk, Io};
use crate::job::run;

type Changes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

fn records(changes: &Changes) -> impl Iterator<Item = Record> {
    let record = |(key, value): (&Vec<u8>, &Option<Vec<u8>>)| Record {
        key: key.clone().into(),
        value: value.clone().map(Bytes::from),
    };
    changes.iter().map(record)
}

fn write(disk: &MemoryDisk, number: u64, changes: &Changes, budget: usize) -> RunMeta {
    let mut job = WriteRun::from_records("runs", number, number ^ 0x5a17, records(changes));
    run(&mut job, disk, budget).expect("the disk is sound")
}

fn read(disk: &MemoryDisk, runs: &[RunMeta], removals: Removals, budget: usize) -> Result<Vec<Record>, RunError> {
    let (mut merged, mut all) = (MergedRuns::new("runs", runs, removals), Vec::new());
    while let Some(batch) = run(&mut merged.next_batch(), disk, budget)? {
        assert!(!batch.is_empty() && batch.len() <= budget.saturating_add(1));
        all.extend(batch);
    }
    assert_eq!(disk.open_files(), 0, "every run is closed at the end");
    Ok(all)
}

fn changes(keys: usize) -> impl Strategy<Value = Changes> {
    let key = prop::collection::vec(0..4u8, 0..6);
    let value = prop_oneof![
        40 => prop::collection::vec(any::<u8>(), 0..40).prop_map(Some),
        20 => Just(None),
        // Long enough that a run has several blocks.
        10 => any::<u8>().prop_map(|byte| Some(vec![byte; 40_000])),
        // Long enough for parts, of the very length of one, and a byte more.
        1 => (any::<u8>(), 0..4usize).prop_map(|(byte, more)| Some(vec![byte; format::PART_BYTES * more.max(1) + more % 3])),
    ];
    prop::collection::btree_map(key, value, 0..keys)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn merged_runs_are_the_maps_laid_over_each_other(
        layers in prop::collection::vec(changes(40), 0..5),
        budget in prop_oneof![0..5usize, Just(usize::MAX)],
    ) {
        let disk = MemoryDisk::default();
        let metas: Vec<_> = layers.iter().zip(1..).map(|(layer, number)| write(&disk, number, layer, budget)).collect();
        let mut newest = Changes::new();
        layers.iter().for_each(|layer| newest.extend(layer.clone()));
        let kept = read(&disk, &metas, Removals::Keep, budget).unwrap();
        prop_assert_eq!(&kept, &records(&newest).collect::<Vec<_>>());

        newest.retain(|_, value| value.is_some());
        let expected: Vec<_> = records(&newest).collect();
        prop_assert_eq!(&read(&disk, &metas, Removals::Drop, budget).unwrap(), &expected);

        let base = run(&mut WriteRun::merge("runs", 99, 7, &metas, Removals::Drop), &disk, budget).unwrap();
        prop_assert_eq!(base.records, expected.len() as u64);
        prop_assert_eq!(base.length, disk.get(&run_name("runs", 99)).len() as u64);
        prop_assert_eq!(&read(&disk, &[base], Removals::Keep, budget).unwrap(), &expected);
        prop_assert_eq!(RunMeta::decode(&base.encode()), base);
    }

    #[test]
    fn hostile_files_are_an_error(
        prefix in 0..500usize, garbage in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let disk = MemoryDisk::default();
        let meta = write(&disk, 1, &small(), usize::MAX);
        let name = run_name("runs", 1);
        let good = disk.get(&name);
        let mut bytes = good[..prefix.min(good.len())].to_vec();
        bytes.extend(&garbage);
        prop_assume!(bytes != good);
        let meta = RunMeta { length: bytes.len() as u64, ..meta };
        disk.put(&name, bytes);
        prop_assert!(read(&disk, &[meta], Removals::Keep, usize::MAX).is_err());
    }
}

fn small() -> Changes {
    (0..9u8).map(|key| (vec![b'k', key], (key % 3 != 0).then(|| vec![key; 20]))).collect()
}

#[test]
fn every_flipped_bit_is_found() {
    let disk = MemoryDisk::default();
    let meta = write(&disk, 1, &small(), usize::MAX);
    let name = run_name("runs", 1);
    let good = disk.get(&name);
    for bit in 0..good.len() * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        disk.put(&name, bytes);
        assert!(read(&disk, &[meta], Removals::Keep, usize::MAX).is_err(), "bit {bit}");
    }
}

#[test]
fn another_file_of_the_same_name_is_found() {
    let disk = MemoryDisk::default();
    let meta = write(&disk, 1, &small(), usize::MAX);
    let mut other = small();
    other.insert(b"k\x01".to_vec(), Some(vec![9; 20]));
    assert_eq!(write(&disk, 1, &other, usize::MAX).length, meta.length);
    assert!(matches!(read(&disk, &[meta], Removals::Keep, 10), Err(RunError::Damaged { .. })));

    let two = write(&disk, 2, &small(), usize::MAX);
    disk.put(&run_name("runs", 2), disk.get(&run_name("runs", 1)));
    assert!(matches!(read(&disk, &[two], Removals::Keep, 10), Err(RunError::Damaged { number: 2, .. })));
}

#[test]
fn a_longer_file_is_refused_and_a_missing_one_is_the_disks_error() {
    let disk = MemoryDisk::default();
    let meta = write(&disk, 1, &small(), usize::MAX);
    let mut bytes = disk.get(&run_name("runs", 1));
    bytes.push(0);
    disk.put(&run_name("runs", 1), bytes);
    assert!(matches!(read(&disk, &[meta], Removals::Keep, 1), Err(RunError::Damaged { .. })));
    let meta = RunMeta { number: 5, ..meta };
    assert!(matches!(read(&disk, &[meta], Removals::Keep, 1), Err(RunError::Io { number: 5, .. })));
}

#[test]
fn a_newer_release_is_refused_by_name() {
    for (at, version, features) in [(8, 2, 0), (12, 1, 2)] {
        let disk = MemoryDisk::default();
        let meta = write(&disk, 1, &small(), usize::MAX);
        let mut bytes = disk.get(&run_name("runs", 1));
        bytes[at] = 2;
        let crc = crc32fast::hash(&bytes[..format::HEADER_LEN - 4]);
        bytes[format::HEADER_LEN - 4..format::HEADER_LEN].copy_from_slice(&crc.to_le_bytes());
        disk.put(&run_name("runs", 1), bytes);
        let refused = read(&disk, &[meta], Removals::Keep, 1);
        assert!(
            matches!(refused, Err(RunError::Newer { number: 1, version: v, features: f }) if (v, f) == (version, features))
        );
    }
}

#[test]
fn a_large_run_is_written_in_chunks_and_synced_once() {
    let disk = MemoryDisk::default();
    let large: Changes = (0..3000u32).map(|key| (key.to_be_bytes().to_vec(), Some(vec![3; 1000]))).collect();
    let meta = write(&disk, 1, &large, usize::MAX);
    assert_eq!(disk.trace(), format!("open truncate {}sync close", "write ".repeat(12)));
    assert!(disk.longest_write() < (256 << 10) + 2 * format::BLOCK_BYTES);
    assert_eq!(read(&disk, &[meta], Removals::Keep, 100).unwrap().len(), 3000);
    assert_eq!(disk.trace(), "open read read read close");
}

#[test]
fn a_merge_that_fails_leaves_no_file_behind_once_given_up() {
    let disk = MemoryDisk::default();
    let good = write(&disk, 1, &small(), usize::MAX);
    let bad = RunMeta { length: good.length + 1, ..write(&disk, 2, &small(), usize::MAX) };
    for runs in [[good, bad], [bad, good]] {
        let mut job = WriteRun::merge("runs", 3, 0, &runs, Removals::Drop);
        assert!(matches!(run(&mut job, &disk, usize::MAX), Err(RunError::Damaged { number: 2, .. })));
        for io in job.give_up() {
            disk.perform(io).unwrap();
        }
        assert_eq!(disk.open_files(), 0);
        assert!(disk.perform(Io::Open { name: run_name("runs", 3), create: false }).is_err());
    }
}

#[test]
fn a_longer_older_file_leaves_nothing_behind() {
    let disk = MemoryDisk::default();
    disk.put(&run_name("runs", 1), vec![1; 100_000]);
    let meta = write(&disk, 1, &small(), usize::MAX);
    assert_eq!(read(&disk, &[meta], Removals::Keep, usize::MAX).unwrap().len(), 9);
}

#[test]
fn a_source_out_of_order_is_refused() {
    for second in [&b"b"[..], b"a"] {
        let records = [&b"b"[..], second].map(|key| Record { key: key.to_vec().into(), value: None });
        let mut job = WriteRun::from_records("", 3, 0, records.into_iter());
        assert!(matches!(run(&mut job, &MemoryDisk::default(), 9), Err(RunError::NotAscending(3))));
    }
}

#[test]
fn a_key_too_long_is_refused() {
    let record = |bytes| Record { key: vec![1; bytes].into(), value: None };
    let mut encoder = encoder::RunEncoder::new(format::Header { number: 3, salt: 0 });
    encoder.push(&record(KEY_BYTES_MAX)).unwrap();
    assert!(matches!(encoder.push(&record(KEY_BYTES_MAX + 1)), Err(RunError::KeyTooLong { number: 3, .. })));
}

/// What is known of a key that was changed thirty million times without a compaction.
#[test]
fn a_value_may_be_longer_than_any_frame() {
    let bytes = format::PAYLOAD_BYTES_MAX * 3 + 12_345;
    let value: Vec<u8> = (0..bytes).map(|at| (at % 251) as u8).collect();
    let mut layer = small();
    layer.insert(b"b long".to_vec(), Some(value));
    let disk = MemoryDisk::default();
    let meta = write(&disk, 1, &layer, 3);
    assert!(read(&disk, &[meta], Removals::Keep, 2).unwrap().into_iter().eq(records(&layer)));
    let mut merge = WriteRun::merge("runs", 2, 77, &[meta], Removals::Drop);
    let merged = run(&mut merge, &disk, 5).unwrap();
    layer.retain(|_, value| value.is_some());
    assert!(read(&disk, &[merged], Removals::Keep, 2).unwrap().into_iter().eq(records(&layer)));
}

/// Parts that belong to no value are damage, though every checksum holds.
#[test]
fn a_part_without_its_record_is_refused() {
    let header = format::Header { number: 1, salt: 5 };
    let removed = |payload: &mut block::BlockBuilder| payload.push(&Record { key: "a".into(), value: None });
    let cases: [(&[u8], u32, bool, &str); 4] = [
        (b"part", 0, false, "a part of a value without its record"),
        (b"part", 0, true, "a removed key with a part of a value"),
        (b"part", 1, true, "an impossible part of a value"),
        (b"", 0, true, "an impossible part of a value"),
    ];
    for (part, count, with_block, expected) in cases {
        let mut file = header.encode().to_vec();
        let mut frame = |kind, records, payload: &[u8]| {
            let frame = format::Frame::of(kind, records, payload, header.salt, file.len() as u64);
            file.extend_from_slice(&frame.encode());
            file.extend_from_slice(payload);
            crc32fast::hash(&file)
        };
        let mut crc = frame(format::FrameKind::Part, count, part);
        if with_block {
            let mut block = block::BlockBuilder::default();
            removed(&mut block);
            crc = frame(format::FrameKind::Records, 1, &block.take().0);
        }
        let records = u64::from(with_block);
        let trailer = format::Trailer { records, removals: records, blocks: 1 + records, crc };
        frame(format::FrameKind::Trailer, 0, &trailer.encode());
        let meta = RunMeta { number: 1, length: file.len() as u64, records, crc };
        let disk = MemoryDisk::default();
        disk.put(&run_name("runs", 1), file);
        let (mut merged, budget) = (MergedRuns::new("runs", &[meta], Removals::Keep), 9);
        let error = run(&mut merged.next_batch(), &disk, budget).unwrap_err();
        assert!(matches!(&error, RunError::Damaged { reason, .. } if *reason == expected), "{error}, not {expected}");
    }
}

/// The figures of the format's document are those of the code.
#[test]
fn the_document_states_our_constants() {
    let document = include_str!("../../../docs/disk-format-runs.md");
    for figure in [
        format!("| header | {} bytes |", format::HEADER_LEN),
        format!("| frame | {} bytes |", format::FRAME_LEN),
        format!("| trailer | {} bytes |", format::TRAILER_LEN),
        format!("| records of a block before it is sealed | {} bytes |", format::BLOCK_BYTES),
        format!("| longest key | {KEY_BYTES_MAX} bytes |"),
        format!("| longest value within a block | {} bytes |", format::PART_BYTES),
        format!("| longest payload | {} bytes |", format::PAYLOAD_BYTES_MAX),
        format!("| reference in the manifest | {RUN_META_LEN} bytes |"),
        format!("magic `{}`", String::from_utf8_lossy(&format::MAGIC)),
        format!("format version, {}", format::VERSION),
        format!("| {} | 4 | CRC-32", format::HEADER_LEN - 4),
        format!(
            "kind: {} is a block, {} the trailer, {} a part",
            format::FrameKind::Records as u8,
            format::FrameKind::Trailer as u8,
            format::FrameKind::Part as u8
        ),
        format!("`{}`", run_name("", 255)),
    ] {
        assert!(document.contains(&figure), "the document lacks: {figure}");
    }
}
