//! Any bytes are survived, and damage is told from a torn tail.

use proptest::prelude::*;

use super::harness::Action::{Append, Commit, Flush};
use super::harness::{Workload, recover};
use crate::disk::{Disk, Io, IoOutput, SimulatedDisk};
use crate::wal::segment_head::{BLOCK_BYTES, HEAD_AREA_BYTES};
use crate::wal::segment_scan::{BegunSegment, SegmentScan, scan};
use crate::wal::{EndReason, Recovered, WalError};

const FIRST: &str = "wal/0000000000000001.wal";

/// A log of one segment whose batches are one, two and one blocks long.
fn one_segment() -> Workload {
    let disk = SimulatedDisk::new(1);
    let mut workload = Workload::create(&disk).expect("creates");
    // The first segment of a start has two blocks; a large batch gets one of its own, which then has room.
    workload.run(&[Append { count: 2, bytes: 5000, new_term: true }, Flush]).expect("no fault");
    workload
}

/// Writes `bytes` as a segment file of an otherwise empty disk.
fn disk_with(name: &str, bytes: &[u8]) -> SimulatedDisk {
    let disk = SimulatedDisk::new(1);
    disk.perform(Io::CreateDir { name: "wal".into() }).expect("creates");
    let opened = disk.perform(Io::Open { name: name.into(), create: true });
    let Ok(IoOutput::Opened { file, .. }) = opened else { panic!("{opened:?}") };
    let bytes = bytes::Bytes::copy_from_slice(bytes);
    disk.perform(Io::Write { file, offset: 0, bytes }).expect("writes");
    disk
}

fn begun(bytes: &[u8]) -> BegunSegment<'_> {
    match scan(bytes, 1).expect("valid") {
        SegmentScan::Begun(segment) => segment,
        SegmentScan::NotBegun => panic!("not begun"),
    }
}

/// The bytes of a single segment of three batches: one, two and one blocks.
fn three_batches() -> Vec<u8> {
    let disk = SimulatedDisk::new(1);
    let options = crate::wal::LogOptions { segment_bytes: 8 * 4096, first_segment_bytes: 8 * 4096 };
    let mut create = crate::wal::Log::create(super::harness::IDENTITY, options, 1);
    let log = crate::job::run(&mut create, &disk, 1).expect("creates").log;
    let mut workload = Workload { disk, log, ..one_segment() };
    workload.model = Default::default();
    workload.after_batch = vec![Default::default()];
    workload.durable_batch = 0;
    let batches = [
        Append { count: 1, bytes: 10, new_term: true },
        Flush,
        Append { count: 1, bytes: 5000, new_term: false },
        Flush,
        Commit { behind: 0 },
        Append { count: 1, bytes: 1000, new_term: false },
        Flush,
    ];
    workload.run(&batches).expect("no fault");
    let bytes = workload.disk.contents(FIRST).expect("is there");
    assert_eq!(begun(&bytes).batches.iter().map(|batch| batch.end).collect::<Vec<_>>(), [12288, 20480, 24576]);
    bytes
}

fn entries_and_end(bytes: &[u8]) -> Result<(usize, EndReason), WalError> {
    recover(&disk_with(FIRST, bytes), 5).map(|Recovered { entries, end_reason, .. }| (entries.len(), end_reason))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..20_000)) {
        prop_assert!(matches!(entries_and_end(&bytes), Err(WalError::NotCreated)));
    }

    #[test]
    fn scattered_garbage_never_yields_anything_new(
        garbage in prop::collection::vec((0..8 * BLOCK_BYTES, any::<[u8; 9]>()), 1..6),
    ) {
        let whole = three_batches();
        let mut bytes = whole.clone();
        for (at, garbage) in garbage {
            let end = (at + garbage.len()).min(bytes.len());
            bytes[at..end].copy_from_slice(&garbage[..end - at]);
        }
        if let Ok(SegmentScan::Begun(found)) = scan(&bytes, 1) {
            let expected = begun(&whole);
            prop_assert!(found.batches.len() <= expected.batches.len());
            for (found, expected) in found.batches.iter().zip(&expected.batches) {
                prop_assert_eq!(found.records, expected.records);
            }
        }
    }

    #[test]
    fn one_flipped_bit_is_harmless_or_known_for_what_it_is(at in 0..24_576usize, bit in 0..8u8) {
        let whole = three_batches();
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << bit;
        let ends = [HEAD_AREA_BYTES, 12_288, 20_480, 24_576];
        let hit = (1..4).find(|batch| (ends[batch - 1]..ends[*batch]).contains(&at));
        let in_padding = begun(&whole).batches.iter().any(|batch| {
            let start = batch.place.offset as usize;
            (start + crate::wal::batch::HEADER_BYTES + batch.records.len()..batch.end).contains(&at)
        });
        match (hit, entries_and_end(&bytes)) {
            // One copy of the head is enough.
            (None, Ok((entries, EndReason::Clean))) => prop_assert_eq!(entries, 3),
            (Some(_), Ok((entries, EndReason::Clean))) if in_padding => prop_assert_eq!(entries, 3),
            // The last batch cannot be told from one that the power cut tore.
            (Some(3), Ok((entries, _))) => prop_assert_eq!(entries, 2),
            (Some(1 | 2), Err(WalError::Corrupt { segment: 1, .. })) => {}
            (hit, other) => prop_assert!(false, "byte {} bit {} in batch {:?}: {:?}", at, bit, hit, other),
        }
    }
}

#[test]
fn a_last_batch_cut_at_any_byte_is_a_torn_tail() {
    let whole = three_batches();
    let written = begun(&whole).batches[2].records.len() + crate::wal::batch::HEADER_BYTES;
    for cut in 20_480..20_480 + written {
        let mut bytes = whole.clone();
        bytes[cut..].fill(0);
        let (entries, end) = entries_and_end(&bytes).unwrap_or_else(|error| panic!("cut {cut}: {error}"));
        assert_eq!(entries, 2, "cut {cut}");
        let named = cut >= 20_480 + crate::wal::batch::OFFSET_AT;
        let torn = EndReason::TornTail { segment: 1, offset: 20_480 };
        assert!(end == torn || (!named && end == EndReason::Clean), "cut {cut}: {end:?}");
    }
}

/// Every cut point of a segment: its file ends there, or nothing behind was ever written. What is left is the batches
/// before, whole, and the start never takes a cut for damage.
#[test]
fn a_segment_cut_at_any_byte_holds_the_batches_before() {
    let whole = three_batches();
    let ends: Vec<_> = begun(&whole).batches.iter().map(|batch| (written_end(batch), batch.end)).collect();
    let lengths = (0..=whole.len()).map(|cut| (cut, whole[..cut].to_vec()));
    let blanks = (0..=24_576).map(|cut| (cut, [&whole[..cut], &vec![0; whole.len() - cut]].concat()));
    for (cut, bytes) in lengths.chain(blanks) {
        match entries_and_end(&bytes) {
            Ok((entries, _)) => {
                let surely = ends.iter().filter(|(_, padded)| *padded <= cut).count();
                let at_most = ends.iter().filter(|(written, _)| *written <= cut).count();
                assert!((surely..=at_most).contains(&entries), "cut {cut}: {entries} entries");
            }
            // No copy of the head is whole.
            Err(WalError::NotCreated) => assert!(cut < crate::wal::segment_head::HEAD_BYTES, "cut {cut}"),
            Err(other) => panic!("cut {cut}: {other}"),
        }
    }
}

/// Where the bytes of a batch end, before its padding.
fn written_end(batch: &crate::wal::batch::Batch<'_>) -> usize {
    batch.place.offset as usize + crate::wal::batch::HEADER_BYTES + batch.records.len()
}

#[test]
fn a_last_batch_with_any_subset_of_its_sectors_is_a_torn_tail() {
    let mut whole = three_batches();
    whole.truncate(20_480);
    whole.resize(8 * BLOCK_BYTES, 0);
    // Now the two-block batch is the last; 10 of its 16 sectors carry something.
    for subset in 0..(1 << 10) - 1 {
        let mut bytes = whole.clone();
        for sector in (0..10).filter(|sector| subset & (1 << sector) == 0) {
            bytes[12_288 + sector * 512..12_288 + (sector + 1) * 512].fill(0);
        }
        let SegmentScan::Begun(segment) = scan(&bytes, 1).expect("torn, not corrupt") else { panic!("begun") };
        assert_eq!(segment.batches.len(), 1, "subset {subset:b}");
    }
}

#[test]
fn lost_heads_and_lost_segments_are_corruption() {
    let mut bytes = three_batches();
    bytes[..HEAD_AREA_BYTES].fill(0);
    assert!(matches!(entries_and_end(&bytes), Err(WalError::Corrupt { segment: 1, offset: 0, .. })));

    let mut workload = Workload::create(&SimulatedDisk::new(1)).expect("creates");
    for _ in 0..4 {
        workload.run(&[Append { count: 1, bytes: 9000, new_term: false }, Flush]).expect("no fault");
    }
    let gap = |found| match found {
        Err(WalError::Corrupt { reason, .. }) => reason == "a later segment exists, batches before it do not",
        _ => false,
    };
    let files = workload.disk.files();
    assert!(files.len() >= 4, "{files:?}");
    for lost in &files[1..files.len() - 1] {
        let disk = workload.disk.restart();
        disk.perform(Io::Remove { name: lost.clone() }).expect("removes");
        assert!(gap(recover(&disk, 1)), "{lost}");
    }
    for damaged in &files[1..files.len() - 1] {
        let disk = workload.disk.restart();
        assert!(disk.flip_bit(damaged, HEAD_AREA_BYTES as u64 + 100, 3));
        assert!(gap(recover(&disk, 1)), "{damaged}");
    }
}

#[test]
fn one_copy_of_the_head_is_enough() {
    let whole = three_batches();
    for copy in 0..2 {
        let mut bytes = whole.clone();
        bytes[copy * BLOCK_BYTES..(copy + 1) * BLOCK_BYTES].fill(0xff);
        assert!(matches!(entries_and_end(&bytes), Ok((3, EndReason::Clean))), "copy {copy}");
    }
}

#[test]
fn batches_of_another_life_of_the_file_do_not_count() {
    use crate::wal::batch::{Place, seal, unsealed};
    // Number, sequence and place are those of the batch that would come next, or of one behind it.
    for (number, offset, salt_change) in [(4, 24_576, 1), (5, 28_672, 1), (4, 28_672, 0), (3, 24_576, 0)] {
        let mut bytes = three_batches();
        let salt = begun(&bytes).head.salt ^ salt_change;
        let stale = seal(unsealed(), Place { salt, sequence: 1, offset: offset as u64 }, number, 99, 0);
        bytes[offset..offset + stale.len()].copy_from_slice(&stale);
        let found = recover(&disk_with(FIRST, &bytes), 5).expect("recovers");
        assert_eq!((found.entries.len(), found.newest_manifest_generation), (3, 4), "{number} at {offset}");
    }
}

#[test]
fn a_newer_version_is_refused() {
    for at in [8, 12] {
        let mut bytes = three_batches();
        for copy in 0..2 {
            bytes[copy * BLOCK_BYTES + at] = 2;
        }
        assert!(matches!(entries_and_end(&bytes), Err(WalError::NewerVersion { segment: 1, .. })));
    }
}

#[test]
fn an_unreadable_log_is_an_error_and_a_huge_file_is_not_read() {
    let workload = one_segment();
    assert!(workload.disk.fail_reads_at(FIRST, 9000));
    assert!(matches!(recover(&workload.disk, 1), Err(WalError::Io { action: "read the log", .. })));
    let disk = disk_with(FIRST, &three_batches());
    let opened = disk.perform(Io::Open { name: FIRST.into(), create: false });
    let Ok(IoOutput::Opened { file, .. }) = opened else { panic!("{opened:?}") };
    disk.perform(Io::Truncate { file, length: 1 << 40 }).expect("truncates");
    assert!(matches!(recover(&disk, 1), Err(WalError::Corrupt { .. })));
}
