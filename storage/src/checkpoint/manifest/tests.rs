//! The manifest under every fault that a disk has for it.

use bytes::Bytes;
use proptest::prelude::*;

use super::codec::{CRC_AT, HEADER_LEN, Unreadable, copy_crc, decode, encode};
use super::slots::{COPIES, Place, SLOTS, choose};
use super::*;
use crate::checkpoint::merge_rule;
use crate::job::{BUDGET_UNLIMITED, run};
use crate::mvcc::shard_map_text::{NAME_BYTES_MAX, PREFIX_BYTES_MAX, PREFIXES_MAX, SHARDS_MAX};
use crate::pages::allocator::TransactionId;
use crate::runs::RunMeta;
use crate::runs::memory_disk::MemoryDisk;

fn example(generation: u64) -> Manifest {
    let runs = |from: u64| -> Vec<_> {
        (from..from + 2).map(|number| RunMeta { number, length: 5000, records: 9, crc: generation as u32 }).collect()
    };
    let shard = |shard: u32, name: &str, prefixes: &[&[u8]]| ShardManifest {
        shard,
        name: name.to_owned(),
        prefixes: prefixes.iter().map(|prefix| prefix.to_vec()).collect(),
        sum: u128::MAX / 3,
        page_file: 4,
        transaction: TransactionId(generation),
        tree_root: vec![7; 60],
        map_root: vec![8; 32],
        index_runs: runs(40),
        live_bytes: 1 << 33,
        entries: 12_345,
    };
    Manifest {
        version: VERSION_FIRST,
        generation,
        cluster_id: 0xcdf8_181b_8c2f_c8ae,
        member_id: 0x8e9e_05c5_2164_694d,
        incarnation: 1 << 99,
        applied_index: 1000 * generation,
        applied_term: 3,
        conf_state: vec![10, 3, 1, 2, 3],
        revision: 900,
        compact_revision: 800,
        time_unix_ns: 1 << 60,
        system_sum: 5,
        system_runs: runs(50),
        shards: vec![
            shard(0, "main", &[]),
            shard(1, "events", &[b"/registry/events/", b"/registry/events"]),
            shard(2, "leases", &[b"/registry/leases/", b"/registry/masterleases/"]),
        ],
        log_restarts: generation.is_multiple_of(2),
    }
}

fn write(disk: &MemoryDisk, generation: u64) {
    run(&mut write_job(&example(generation)).unwrap(), disk, BUDGET_UNLIMITED).unwrap();
}

/// Longer than a few sectors, and different in all of them from one generation to the next.
fn large(generation: u64) -> Manifest {
    let mut manifest = example(generation);
    let run = manifest.system_runs[0];
    manifest.shards.iter_mut().for_each(|shard| shard.index_runs = vec![run; 20]);
    manifest
}

fn write_large(generations: impl IntoIterator<Item = u64>) -> MemoryDisk {
    let disk = MemoryDisk::default();
    for generation in generations {
        run(&mut write_job(&large(generation)).unwrap(), &disk, BUDGET_UNLIMITED).unwrap();
    }
    disk
}

fn read(disk: &MemoryDisk) -> ManifestFound {
    run(&mut read_job(), disk, BUDGET_UNLIMITED).unwrap()
}

fn written(generations: impl IntoIterator<Item = u64>) -> MemoryDisk {
    let disk = MemoryDisk::default();
    generations.into_iter().for_each(|generation| write(&disk, generation));
    disk
}

fn offsets(generation: u64) -> [usize; 2] {
    let offsets: Vec<_> = Place::of(generation).map(|place| place.offset() as usize).collect();
    offsets.try_into().expect("a slot has two copies")
}

#[test]
fn the_newest_generation_is_found() {
    let disk = MemoryDisk::default();
    assert_eq!(read(&disk), ManifestFound { manifest: None, damaged: false, bad_copies: vec![] });
    for generation in 1..6 {
        write(&disk, generation);
        let expected = ManifestFound { manifest: Some(example(generation)), damaged: false, bad_copies: vec![] };
        assert_eq!(read(&disk), expected);
        assert_eq!(disk.open_files(), 0);
    }
}

#[test]
fn both_copies_are_written_before_the_sync_and_a_new_name_is_synced() {
    let disk = MemoryDisk::default();
    write(&disk, 1);
    assert_eq!(disk.trace(), "open write write sync close sync-dir");
    write(&disk, 2);
    assert_eq!(disk.trace(), "open write write sync close");
}

#[test]
fn a_file_that_was_only_created_is_no_manifest_and_no_damage() {
    for bytes in [vec![], vec![0; 100_000]] {
        let disk = MemoryDisk::default();
        disk.put(MANIFEST_NAME, bytes);
        assert_eq!(read(&disk), ManifestFound { manifest: None, damaged: false, bad_copies: vec![] });
    }
}

#[test]
fn every_flipped_bit_of_one_copy_costs_nothing_and_of_both_is_told() {
    let disk = written(1..=3);
    let good = disk.get(MANIFEST_NAME);
    let length = encode(&example(3)).unwrap().len();
    for bit in 0..length * 8 {
        let mut bytes = good.clone();
        let flip = |bytes: &mut Vec<u8>, copy: usize| bytes[offsets(3)[copy] + bit / 8] ^= 1 << (bit % 8);
        flip(&mut bytes, bit % 2);
        disk.put(MANIFEST_NAME, bytes.clone());
        let found = read(&disk);
        assert_eq!((found.manifest, found.damaged), (Some(example(3)), false), "bit {bit}");
        assert_eq!(found.bad_copies.len(), 1);
        assert_eq!(found.bad_copies[0].offset as usize, offsets(3)[bit % 2]);

        flip(&mut bytes, 1 - bit % 2);
        disk.put(MANIFEST_NAME, bytes);
        let found = read(&disk);
        assert_eq!((found.manifest, found.damaged), (Some(example(2)), true), "bit {bit}");
        assert_eq!(found.bad_copies.len(), 2);
    }
}

#[test]
fn a_lost_slot_is_told_also_when_it_reads_as_zeros() {
    let disk = written(1..=4);
    let mut bytes = disk.get(MANIFEST_NAME);
    for offset in offsets(4) {
        bytes[offset..offset + SLOT_BYTES].fill(0);
    }
    disk.put(MANIFEST_NAME, bytes.clone());
    let found = read(&disk);
    assert_eq!((found.manifest, found.damaged), (Some(example(3)), true));
    // Beyond the end of the file is as lost as zeros.
    let disk = written(1..=1);
    let mut bytes = disk.get(MANIFEST_NAME);
    bytes.truncate(offsets(1)[1]);
    disk.put(MANIFEST_NAME, bytes);
    let found = read(&disk);
    assert_eq!((found.manifest, found.damaged, found.bad_copies.len()), (Some(example(1)), false, 1));
}

#[test]
fn all_copies_lost_is_damage_without_a_manifest() {
    let disk = written(1..=2);
    let mut bytes = disk.get(MANIFEST_NAME);
    bytes.iter_mut().for_each(|byte| *byte ^= 0xff);
    disk.put(MANIFEST_NAME, bytes);
    let found = read(&disk);
    assert_eq!((found.manifest, found.damaged, found.bad_copies.len()), (None, true, 4));
}

#[test]
fn a_copy_that_cannot_be_read_is_a_bad_one() {
    let copy = |generation| Some(encode(&example(generation)).unwrap());
    let found = choose(&[copy(2), None, copy(2), copy(3)]).unwrap();
    assert_eq!((found.manifest, found.damaged, found.bad_copies.len()), (Some(example(3)), false, 1));
    let found = choose(&[copy(2), None, copy(2), None]).unwrap();
    assert_eq!((found.manifest, found.damaged, found.bad_copies.len()), (Some(example(2)), true, 2));
}

#[test]
fn a_mirror_that_missed_a_write_and_a_misplaced_copy_are_told() {
    let copy = |generation| Some(encode(&example(generation)).unwrap());
    let found = choose(&[copy(2), copy(3), copy(2), copy(1)]).unwrap();
    let stale = BadCopy { offset: offsets(1)[1] as u64, reason: "an older generation" };
    assert_eq!((found.manifest, found.damaged, found.bad_copies), (Some(example(3)), false, vec![stale]));
    assert!(stale.is_outdated() && !BadCopy { reason: "CRC mismatch", ..stale }.is_outdated());
    let found = choose(&[copy(2), copy(4), copy(2), copy(3)]).unwrap();
    assert_eq!((found.manifest, found.damaged, found.bad_copies.len()), (Some(example(3)), false, 1));
}

#[test]
fn a_newer_release_is_refused_even_in_the_older_slot() {
    for (at, version, features) in [(8, 2, 0), (12, 1, 2)] {
        let disk = written(1..=2);
        let mut bytes = disk.get(MANIFEST_NAME);
        let length = encode(&example(1)).unwrap().len();
        let copy = &mut bytes[offsets(1)[1]..][..length];
        copy[at] = 2;
        let crc = copy_crc(copy);
        copy[CRC_AT..HEADER_LEN].copy_from_slice(&crc.to_le_bytes());
        disk.put(MANIFEST_NAME, bytes);
        let refused = run(&mut read_job(), &disk, BUDGET_UNLIMITED);
        assert!(
            matches!(refused, Err(ManifestError::Newer { version: v, features: f }) if (v, f) == (version, features))
        );
    }
}

#[test]
fn what_does_not_fit_or_contradicts_itself_is_not_written() {
    let mut large = example(1);
    large.system_runs = vec![large.system_runs[0]; SLOT_BYTES / 28];
    assert!(matches!(write_job(&large), Err(ManifestError::TooLarge(_))));
    let refused = |change: fn(&mut Manifest)| {
        let mut manifest = example(1);
        change(&mut manifest);
        matches!(write_job(&manifest), Err(ManifestError::Inconsistent(_)))
    };
    assert!(refused(|manifest| manifest.generation = 0));
    assert!(refused(|manifest| manifest.compact_revision = manifest.revision + 1));
    assert!(refused(|manifest| manifest.shards[1].shard = 0));
    assert!(refused(|manifest| manifest.shards[0].tree_root = vec![0; TREE_ROOT_BYTES_MAX + 1]));
    assert!(refused(|manifest| manifest.shards[0].map_root = vec![0; MAP_ROOT_BYTES_MAX + 1]));
}

/// All that may stand in a manifest, each as long as it may be.
#[test]
fn the_longest_manifest_fits_its_slot() {
    let mut longest = example(1);
    let run = longest.system_runs[0];
    let runs = vec![run; merge_rule::RUNS_MAX];
    let shard = |number: usize| ShardManifest {
        shard: number as u32,
        name: "n".repeat(NAME_BYTES_MAX),
        prefixes: vec![vec![b'/'; PREFIX_BYTES_MAX]; PREFIXES_MAX / SHARDS_MAX],
        tree_root: vec![7; TREE_ROOT_BYTES_MAX],
        map_root: vec![8; MAP_ROOT_BYTES_MAX],
        index_runs: runs.clone(),
        ..ShardManifest::default()
    };
    longest.shards = (0..SHARDS_MAX).map(shard).collect();
    longest.system_runs = runs.clone();
    longest.conf_state = vec![1; MEMBERSHIP_BYTES_MAX];
    let bytes = encode(&longest).expect("it fits");
    assert_eq!(decode(&bytes), Ok(longest));
}

const SECTOR: usize = 512;

#[test]
fn a_write_cut_at_any_sector_of_either_copy_leaves_a_generation() {
    let disk = write_large(1..=2);
    let (old, new) = (disk.get(MANIFEST_NAME), encode(&large(3)).unwrap());
    let cuts: Vec<_> = (0..new.len()).step_by(SECTOR).chain([new.len()]).collect();
    assert!(cuts.len() > 3, "several sectors");
    for (first, second) in cuts.iter().flat_map(|first| cuts.iter().map(move |second| (*first, *second))) {
        let mut bytes = old.clone();
        for (offset, cut) in offsets(3).into_iter().zip([first, second]) {
            bytes[offset..offset + cut].copy_from_slice(&new[..cut]);
        }
        disk.put(MANIFEST_NAME, bytes);
        let found = read(&disk);
        let whole = first == new.len() || second == new.len();
        assert_eq!(found.manifest, Some(large(if whole { 3 } else { 2 })), "cut at {first} and {second}");
        assert_eq!(found.damaged, !whole && first > 0 && second > 0, "cut at {first} and {second}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// A crash during the write of generation 3: of both copies any set of sectors is on disk, one of them torn.
    #[test]
    fn a_torn_write_leaves_the_old_or_the_new_generation(
        persisted in any::<[u8; 2]>(), torn in (0..2usize, 0..3000usize),
    ) {
        let disk = write_large(1..=2);
        let mut bytes = disk.get(MANIFEST_NAME);
        let new = encode(&large(3)).unwrap();
        for (copy, persisted) in persisted.into_iter().enumerate() {
            for (sector, chunk) in new.chunks(SECTOR).enumerate().filter(|(sector, _)| persisted >> sector & 1 == 1) {
                let start = sector * SECTOR;
                let kept = if copy == torn.0 { torn.1.saturating_sub(start).min(chunk.len()) } else { chunk.len() };
                bytes[offsets(3)[copy] + start..][..kept].copy_from_slice(&chunk[..kept]);
            }
        }
        disk.put(MANIFEST_NAME, bytes);
        let found = read(&disk);
        let generation = found.manifest.as_ref().map(|manifest| manifest.generation);
        prop_assert!(generation == Some(2) || generation == Some(3));
        prop_assert_eq!(found.manifest, generation.map(large));
    }

    #[test]
    fn hostile_copies_are_damaged(
        cut in 0..3000usize, changes in prop::collection::vec((0..3000usize, any::<u8>()), 0..8), mend in any::<bool>(),
    ) {
        let mut bytes = encode(&example(7)).unwrap().to_vec();
        bytes.truncate(cut.max(1));
        for (at, value) in changes {
            let length = bytes.len();
            bytes[at % length] = value;
        }
        if mend && bytes.len() > HEADER_LEN {
            // Even with a CRC that holds, every count and length may lie.
            let body = (bytes.len() - HEADER_LEN) as u32;
            bytes[24..28].copy_from_slice(&body.to_le_bytes());
            let crc = copy_crc(&bytes);
            bytes[CRC_AT..HEADER_LEN].copy_from_slice(&crc.to_le_bytes());
        }
        match decode(&bytes) {
            Ok(manifest) => prop_assert_eq!(decode(&encode(&manifest).unwrap()), Ok(manifest)),
            Err(Unreadable::Newer { version, features }) => prop_assert!(version != 1 || features != 0),
            Err(Unreadable::Blank) => prop_assert!(bytes.iter().all(|byte| *byte == 0)),
            Err(Unreadable::Damaged(_)) => {}
        }
    }

    #[test]
    fn any_bytes_are_no_manifest(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(decode(&Bytes::from(bytes)).is_err());
    }
}

/// The figures of the format's document are those of the code.
#[test]
fn the_document_states_our_constants() {
    let document = include_str!("../../../../docs/disk-format-manifest.md");
    for figure in [
        format!("| slot | {SLOT_BYTES} bytes |"),
        format!("| slots | {SLOTS} |"),
        format!("| copies of a slot | {COPIES} |"),
        format!("| header | {HEADER_LEN} bytes |"),
        format!("| tree root | at most {TREE_ROOT_BYTES_MAX} bytes |"),
        format!("| map root | at most {MAP_ROOT_BYTES_MAX} bytes |"),
        format!("| members | at most {MEMBERSHIP_BYTES_MAX} bytes |"),
        format!("magic `{}`", String::from_utf8_lossy(&codec::MAGIC)),
        format!("format version, {}", codec::VERSION),
        format!("| {CRC_AT} | 4 | CRC-32"),
        format!("file `{MANIFEST_NAME}`"),
        format!("| {} | generation odd, copy | ", Place { slot: 1, copy: 0 }.offset()),
        format!("| {} | generation even, mirror | ", Place { slot: 0, copy: 1 }.offset()),
        format!("| {} | generation odd, mirror | ", Place { slot: 1, copy: 1 }.offset()),
    ] {
        assert!(document.contains(&figure), "the document lacks: {figure}");
    }
    let fixed = encode(&Manifest { version: VERSION_FIRST, generation: 1, ..Manifest::default() }).unwrap().len();
    assert_eq!(fixed, HEADER_LEN + codec::FIXED_LEN);
    let shard = ShardManifest::default();
    let one = Manifest { version: VERSION_FIRST, generation: 1, shards: vec![shard], ..Manifest::default() };
    assert_eq!(encode(&one).unwrap().len() - fixed, codec::SHARD_FIXED_LEN);
    assert!(document.contains(&format!("The shortest manifest, with no shard, is {fixed} bytes")));
}
