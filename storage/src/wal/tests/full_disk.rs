//! A log on a disk that fills up: preparing ahead is given up, batches go on as long as there is room for them.

use super::harness::{SMALL, Workload, recover};
use crate::disk::{Disk, SimulatedDisk};
use crate::job;
use crate::wal::tests::harness::Action;
use crate::wal::{Log, WalError};

const BLOCK: u64 = 4096;

/// Prepares a segment; `false` when that was given up for lack of space.
fn prepare(disk: &SimulatedDisk, log: &mut Log) -> bool {
    let mut preparing = log.prepare().expect("none is prepared");
    match job::run(&mut preparing, disk, 1) {
        Ok(prepared) => log.finish_prepare(prepared),
        Err(WalError::NoSpace { .. }) => {
            preparing.give_up().into_iter().for_each(|io| drop(disk.perform(io)));
            log.give_up_prepare();
            return false;
        }
        Err(error) => panic!("{error}"),
    }
    true
}

fn append(workload: &mut Workload) -> Result<(), WalError> {
    workload.run(&[Action::Append { count: 1, bytes: 3000, new_term: false }, Action::Flush])
}

#[test]
fn a_segment_that_finds_no_space_is_given_up_and_prepared_later() {
    let disk = SimulatedDisk::new(1);
    let mut workload = Workload::create(&disk).unwrap();
    append(&mut workload).unwrap();
    let (files, used) = (disk.files(), disk.used_bytes());
    for blocks in 0..SMALL.segment_bytes / BLOCK {
        disk.set_capacity(used + blocks * BLOCK);
        assert!(!prepare(&disk, &mut workload.log), "{blocks} blocks");
        assert_eq!((disk.files(), disk.used_bytes()), (files.clone(), used), "{blocks} blocks");
    }
    // What is there, and a small segment after it, take more batches; then there is no more room.
    disk.set_capacity(used + SMALL.first_segment_bytes);
    let mut appended = 0;
    while append(&mut workload).is_ok() {
        appended += 1;
    }
    assert!(appended > 2, "{appended} appended");
    let recovered_disk = disk.restart();
    recovered_disk.set_capacity(used + SMALL.segment_bytes * 8);
    workload.batch_found(&recover(&recovered_disk, 2).unwrap());
}

#[test]
fn a_segment_is_prepared_when_there_is_space_again() {
    let disk = SimulatedDisk::new(1);
    let mut workload = Workload::create(&disk).unwrap();
    disk.set_capacity(disk.used_bytes() + BLOCK);
    assert!(!prepare(&disk, &mut workload.log));
    append(&mut workload).unwrap();
    disk.set_capacity(1 << 30);
    assert!(prepare(&disk, &mut workload.log));
    assert!(workload.log.prepare().is_none(), "one is there");
    (0..20).for_each(|_| append(&mut workload).unwrap());
    assert_eq!(workload.batch_found(&recover(&disk.restart(), 2).unwrap()), workload.durable_batch);
}

#[test]
fn a_sync_that_fails_for_lack_of_space_is_no_refusal() {
    let disk = SimulatedDisk::new(1);
    let mut workload = Workload::create(&disk).unwrap();
    disk.fail_sync(1);
    let mut preparing = workload.log.prepare().expect("none is prepared");
    assert!(matches!(job::run(&mut preparing, &disk, 1), Err(WalError::Io { .. })));
}
