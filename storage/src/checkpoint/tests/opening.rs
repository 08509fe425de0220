//! Directories that are lost, rotten, half born or half settled: nothing is destroyed, and nothing durable is lost.

use bytes::Bytes;

use super::rig::Rig;
use crate::checkpoint::manifest::{MANIFEST_NAME, SLOT_BYTES, read_job, write_job};
use crate::checkpoint::recovery::RecoveryError;
use crate::checkpoint::{CheckpointError, page_file_name};
use crate::disk::{Disk, Io, IoOutput, PowerCut, SimulatedDisk};
use crate::job::{BUDGET_UNLIMITED, run};

const POWER_CUTS: [PowerCut; 4] = [PowerCut::KeepNone, PowerCut::KeepAll, PowerCut::Seeded(1), PowerCut::Seeded(2)];

/// A settled directory after so many checkpoints of one put each, all of it durable.
fn checkpointed(checkpoints: u8) -> (SimulatedDisk, Rig) {
    let disk = SimulatedDisk::new(1);
    let mut rig = Rig::create(&disk).unwrap();
    rig.settle(&disk).unwrap();
    for number in 0..checkpoints {
        rig.put(&format!("/registry/pods/{number}"), &[number; 100]);
        assert!(rig.checkpoint(&disk).unwrap());
    }
    (disk, rig)
}

/// Names and bytes of everything.
fn contents(disk: &SimulatedDisk) -> Vec<(String, Option<Vec<u8>>)> {
    disk.files().into_iter().map(|name| (name.clone(), disk.contents(&name))).collect()
}

fn write_file(disk: &SimulatedDisk, name: &str, bytes: &'static [u8]) {
    let opened = disk.perform(Io::Open { name: name.into(), create: true }).unwrap();
    let IoOutput::Opened { file, .. } = opened else { panic!("{opened:?}") };
    disk.perform(Io::Write { file, offset: 0, bytes: Bytes::from_static(bytes) }).unwrap();
}

fn rot_slot(disk: &SimulatedDisk, generation: u64) {
    for place in [generation % 2, generation % 2 + 2] {
        assert!(disk.flip_bit(MANIFEST_NAME, place * SLOT_BYTES as u64 + 40, 1));
    }
}

#[test]
fn data_without_a_manifest_is_refused_and_not_touched() {
    let (whole, _) = checkpointed(2);
    let lose = |disk: &SimulatedDisk, name: &str| drop(disk.perform(Io::Remove { name: name.into() }).unwrap());
    let runs: Vec<String> = whole.files().into_iter().filter(|name| name.starts_with("runs/")).collect();
    let pages: Vec<String> = (1..=3).map(page_file_name).collect();
    // Each kind of remains alone is enough, a log included.
    for kept in ["runs/", "pages/", "wal/"] {
        let disk = whole.restart();
        disk.perform(Io::CreateDir { name: "wal".into() }).unwrap();
        write_file(&disk, "wal/0000000000000001.wal", b"x");
        lose(&disk, MANIFEST_NAME);
        let others = runs.iter().chain(&pages).map(String::as_str).chain(["wal/0000000000000001.wal"]);
        others.filter(|name| !name.starts_with(kept)).for_each(|name| lose(&disk, name));
        let before = contents(&disk);
        let refused = Rig::open(&disk).err();
        assert!(
            matches!(refused, Some(RecoveryError::ManifestMissing { ref found }) if found.starts_with(kept)),
            "{kept}"
        );
        assert_eq!(contents(&disk), before);
        // So is a manifest that was emptied.
        write_file(&disk, MANIFEST_NAME, &[0; 100]);
        assert!(matches!(Rig::open(&disk).err(), Some(RecoveryError::ManifestMissing { .. })));
    }
}

#[test]
fn all_copies_rotten_are_no_birth_and_nothing_is_touched() {
    let (disk, _) = checkpointed(0);
    rot_slot(&disk, 1);
    rot_slot(&disk, 2);
    let before = contents(&disk);
    assert!(matches!(Rig::open(&disk).err(), Some(RecoveryError::ManifestLost)));
    assert_eq!(contents(&disk), before);
    // Where only the first generation was ever written, a log or data shows that it was whole once.
    let disk = SimulatedDisk::new(1);
    drop(Rig::create(&disk).unwrap());
    rot_slot(&disk, 1);
    disk.perform(Io::CreateDir { name: "wal".into() }).unwrap();
    write_file(&disk, "wal/0000000000000001.wal", b"x");
    assert!(matches!(Rig::open(&disk).err(), Some(RecoveryError::ManifestLost)));
}

#[test]
fn opening_an_older_generation_keeps_the_evidence_of_the_newer_one() {
    let (disk, rig) = checkpointed(3);
    let newest = rig.checkpointer().manifest().generation;
    rot_slot(&disk, newest);
    let before = contents(&disk);
    let opened = Rig::open(&disk).unwrap().unwrap();
    assert_eq!(opened.checkpointer().manifest().generation, newest - 1);
    assert_eq!(contents(&disk), before, "the log may know better: until it was asked nothing is removed");
}

#[test]
fn a_power_cut_during_the_birth_starts_anew() {
    let disk = SimulatedDisk::new(1);
    drop(Rig::create(&disk).unwrap());
    let (operations, mut torn) = (disk.operations(), 0);
    for stop in 0..=operations {
        for seed in 0..200 {
            let disk = SimulatedDisk::new(1);
            disk.stop_after(stop);
            drop(Rig::create(&disk));
            let disk = disk.crash(PowerCut::Seeded(seed));
            torn += usize::from(run(&mut read_job(), &disk, BUDGET_UNLIMITED).unwrap().is_torn_birth());
            let mut rig = match Rig::open(&disk).unwrap() {
                Some(rig) => rig,
                None => Rig::create(&disk).unwrap(),
            };
            rig.settle(&disk).unwrap();
            let again = Rig::open(&disk.crash(PowerCut::KeepNone)).unwrap().expect("it is settled");
            assert_eq!(again.checkpointer().manifest(), rig.checkpointer().manifest());
        }
    }
    assert!(torn > 0, "no write was torn");
}

/// A directory whose newest manifest is in the page cache only, as a failed sync leaves it.
fn cached_only() -> (SimulatedDisk, Vec<Vec<Bytes>>, u64) {
    for nth in 1.. {
        let (disk, mut rig) = checkpointed(2);
        let before = rig.values(&disk);
        rig.put("/registry/pods/new", b"new");
        disk.fail_sync(nth);
        match rig.checkpoint(&disk) {
            Err(CheckpointError::Manifest(_)) => {
                let disk = disk.restart();
                let newest = Rig::open(&disk).unwrap().unwrap();
                let generation = newest.checkpointer().manifest().generation;
                return (disk.restart(), vec![before, newest.values(&disk)], generation);
            }
            Err(_) => {}
            Ok(_) => panic!("no sync of the manifest failed"),
        }
    }
    unreachable!("some sync is the manifest's")
}

fn opened_and_settled(disk: &SimulatedDisk) -> Result<Rig, RecoveryError> {
    let mut rig = Rig::open(disk)?.expect("there is a manifest");
    rig.settle(disk)?;
    Ok(rig)
}

#[test]
fn a_start_that_is_cut_off_twice_at_any_request_loses_no_durable_manifest() {
    let (disk, states, newest) = cached_only();
    let lost = disk.crash(PowerCut::KeepNone);
    let older = Rig::open(&lost).unwrap().unwrap().checkpointer().manifest().generation;
    assert_eq!(older, newest - 1, "the newest is in the cache only");
    let whole = disk.restart();
    opened_and_settled(&whole).unwrap();
    let operations = whole.operations();
    let settled = opened_and_settled(&whole.crash(PowerCut::KeepNone)).unwrap();
    assert_eq!(settled.checkpointer().manifest().generation, newest, "what was settled is durable");
    for first in 0..operations {
        let begun = disk.restart();
        begun.stop_after(first);
        drop(opened_and_settled(&begun));
        for cut in POWER_CUTS {
            for second in 0..operations {
                let begun = begun.crash(cut);
                begun.stop_after(second);
                drop(opened_and_settled(&begun));
                let disk = begun.crash(cut);
                let rig =
                    opened_and_settled(&disk).unwrap_or_else(|error| panic!("{first}, {second}, {cut:?}: {error}"));
                let generation = rig.checkpointer().manifest().generation;
                assert!((older..=newest).contains(&generation), "{generation} after {first}, {second}, {cut:?}");
                assert_eq!(rig.values(&disk), states[(generation - older) as usize]);
            }
        }
    }
}

#[test]
fn writing_a_manifest_of_any_length_needs_no_space() {
    let (disk, rig) = checkpointed(1);
    disk.set_capacity(disk.used_bytes());
    let mut manifest = rig.checkpointer().manifest().clone();
    let runs = manifest.shards[0].index_runs.clone();
    for runs_count in [300, 2_000] {
        manifest.generation += 1;
        manifest.shards[0].index_runs = runs.iter().copied().cycle().take(runs_count).collect();
        run(&mut write_job(&manifest).unwrap(), &disk, BUDGET_UNLIMITED).unwrap();
    }
}
