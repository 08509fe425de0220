//! Page files that become shorter, stopped at every request to the disk.

use super::rig::Rig;
use crate::checkpoint::page_file_name;
use crate::disk::{InjectedFault, PowerCut, SimulatedDisk};
use crate::mvcc::key_range::KeyRange;

const KEYS: usize = 90;

/// Some megabytes, of which a tenth lives, and nothing of the rest is readable any more.
fn mostly_dead(disk: &SimulatedDisk) -> Rig {
    let mut rig = Rig::create(disk).expect("the disk is healthy");
    rig.settle(disk).expect("the disk is healthy");
    for round in 0..2 {
        (0..KEYS).for_each(|key| rig.put(&format!("key {key}"), &[round; 30_000]));
        rig.checkpoint(disk).expect("the disk is healthy");
    }
    let mut transaction = rig.store.begin();
    for key in (0..KEYS).filter(|key| key % 10 > 0) {
        transaction.delete_range(&KeyRange::single(format!("key {key}").as_bytes()));
    }
    let changes = transaction.finish();
    rig.store.install(&changes);
    let head = rig.store.revision();
    rig.store.compact(head);
    while rig.store.is_sweeping() {
        rig.store.sweep(6400);
    }
    rig.checkpoint(disk).expect("the disk is healthy");
    rig
}

fn file_bytes(disk: &SimulatedDisk) -> usize {
    disk.contents(&page_file_name(1)).expect("it is there").len()
}

#[test]
fn a_file_that_becomes_shorter_survives_power_cuts_anywhere() {
    let disk = SimulatedDisk::new(1);
    let mut rig = mostly_dead(&disk);
    let (full, values, before) = (file_bytes(&disk), rig.values(&disk), disk.operations());
    let shrink = |rig: &mut Rig, disk: &SimulatedDisk| (0..5).try_for_each(|_| rig.checkpoint_as(disk, true).map(drop));
    shrink(&mut rig, &disk).expect("the disk is healthy");
    let short = file_bytes(&disk);
    assert!(short < full / 5, "{short} of {full} bytes are left");
    assert_eq!(rig.values(&disk), values);

    for stop in disk.changing_operations().into_iter().filter(|stop| *stop >= before) {
        let disk = SimulatedDisk::new(1);
        let mut rig = mostly_dead(&disk);
        disk.stop_after(stop);
        if let Err(error) = shrink(&mut rig, &disk) {
            assert_eq!(InjectedFault::behind(&error), Some(InjectedFault::Stopped), "{error}");
        }
        for cut in [PowerCut::KeepNone, PowerCut::KeepAll, PowerCut::Seeded(stop), PowerCut::Seeded(stop + 1)] {
            let disk = disk.crash(cut);
            let mut rig = Rig::open(&disk).expect("it can be opened").expect("it is there");
            assert_eq!(rig.values(&disk), values, "stop {stop}, {cut:?}");
            rig.settle(&disk).expect("the disk is healthy");
            // It goes on from there, in new space and to the same end.
            rig.put("key 0", &[9; 30_000]);
            shrink(&mut rig, &disk).expect("the disk is healthy");
            assert!(file_bytes(&disk) <= full / 5, "stop {stop}, {cut:?}: {} bytes", file_bytes(&disk));
            let disk = disk.restart();
            let again = Rig::open(&disk).expect("it can be opened").expect("it is there");
            assert_eq!(again.values(&disk).len(), values.len(), "stop {stop}, {cut:?}");
        }
    }
}
