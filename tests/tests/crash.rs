//! Stops a small workload at every single request to the disk, cuts the power in each of its ways, and opens twice.

use std::time::Duration;

use basalt_storage::disk::{PowerCut, SimulatedDisk};
use basalt_tests::background::PowerLost;
use basalt_tests::ledger::Ledger;
use basalt_tests::node_sim::SimulatedNode;
use basalt_tests::workload::Workload;

const SEED: u64 = 3;
/// More than are needed to see every kind of background work end.
const REQUESTS_MAX: usize = 80;
/// Short, so that the small workload has several checkpoints.
const CHECKPOINT_INTERVAL: Duration = Duration::from_millis(20);

/// The life of a new node: the same on every disk, up to where the disk stops.
fn first_life(disk: &SimulatedDisk, ledger: &mut Ledger) -> Result<(), PowerLost> {
    let mut node = SimulatedNode::open(disk.clone(), SEED, CHECKPOINT_INTERVAL)?;
    let mut workload = Workload::new(SEED);
    for _ in 0..REQUESTS_MAX {
        if node.overlaps.checkpoints > 1 && node.overlaps.recycles > 0 {
            return Ok(());
        }
        node.propose(workload.next_request(ledger.revision()));
        for _ in 0..12 {
            let power = node.turn();
            ledger.take(node.take_outcomes());
            power?;
        }
    }
    panic!("too little happens: {:?}", node.overlaps);
}

/// Opens after a crash, looks for everything, and writes some more.
fn next_life(disk: SimulatedDisk, ledger: &mut Ledger, seed: u64) -> SimulatedNode {
    let mut node = SimulatedNode::open(disk, seed, CHECKPOINT_INTERVAL).expect("nobody stops this disk");
    node.rest().expect("nobody stops this disk");
    ledger.take(node.take_outcomes());
    ledger.check(&node);
    node
}

/// Opens on a disk that stops after `operations`; whatever was applied until then counts as acknowledged.
fn stopped_life(disk: &SimulatedDisk, ledger: &mut Ledger, seed: u64, operations: u64) {
    disk.stop_after(operations);
    let Ok(mut node) = SimulatedNode::open(disk.clone(), seed, CHECKPOINT_INTERVAL) else { return };
    while node.turn().is_ok() && node.is_busy() {}
    ledger.take(node.take_outcomes());
}

#[test]
fn nothing_acknowledged_is_lost_wherever_the_power_goes() {
    let disk = SimulatedDisk::new(SEED);
    first_life(&disk, &mut Ledger::default()).expect("nobody stops this disk");
    let operations = disk.operations();
    for stop in 0..operations {
        for power_cut in [PowerCut::KeepNone, PowerCut::KeepAll, PowerCut::Seeded(stop)] {
            let (disk, mut ledger) = (SimulatedDisk::new(SEED), Ledger::default());
            disk.stop_after(stop);
            assert_eq!(first_life(&disk, &mut ledger), Err(PowerLost), "stopped after {stop} of {operations}");
            println!("stopped after {stop} of {operations}, {power_cut:?}, index {}", ledger.last_index());
            // The start after it is stopped as well, each time somewhere else, before two that are not.
            let disk = disk.crash(power_cut);
            stopped_life(&disk, &mut ledger, stop, stop % 40);
            let disk = disk.crash(power_cut);
            let node = next_life(disk, &mut ledger, stop + 1);
            next_life(node.crash(power_cut), &mut ledger, stop + 2);
        }
    }
}
