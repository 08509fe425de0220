//! A whole node under a seeded scheduler: background jobs stop between any two steps while writes go on.

use std::time::Duration;

use basalt_storage::disk::{PowerCut, SimulatedDisk};
use basalt_tests::ledger::Ledger;
use basalt_tests::node_sim::{Overlaps, SimulatedNode};
use basalt_tests::workload::Workload;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const CHECKPOINT_INTERVAL: Duration = Duration::from_millis(40);

fn open(disk: SimulatedDisk, seed: u64) -> SimulatedNode {
    SimulatedNode::open(disk, seed, CHECKPOINT_INTERVAL).expect("nobody stops this disk")
}

/// Requests arrive while the node works, until `count` have arrived.
fn work(node: &mut SimulatedNode, ledger: &mut Ledger, workload: &mut Workload, random: &mut StdRng, count: usize) {
    let mut left = count;
    while left > 0 {
        if random.random_ratio(1, 8) {
            node.propose(workload.next_request(ledger.revision()));
            left -= 1;
        }
        node.turn().expect("nobody stops this disk");
        ledger.take(node.take_outcomes());
    }
}

fn rest(node: &mut SimulatedNode, ledger: &mut Ledger) {
    node.rest().expect("nobody stops this disk");
    ledger.take(node.take_outcomes());
}

#[test]
fn apply_advances_inside_a_checkpoint_and_inside_a_sync() {
    let mut seen = Overlaps::default();
    for seed in 0..4 {
        let mut node = open(SimulatedDisk::new(seed), seed);
        let (mut ledger, mut workload) = (Ledger::default(), Workload::new(seed));
        let mut random = StdRng::seed_from_u64(seed);
        for _ in 0..4 {
            work(&mut node, &mut ledger, &mut workload, &mut random, 100);
            rest(&mut node, &mut ledger);
            ledger.check(&node);
        }
        let Overlaps { checkpoints, recycles, .. } = node.overlaps;
        assert!(checkpoints > 3 && recycles > 0, "seed {seed}: {:?}", node.overlaps);
        seen.applied_in_checkpoint += node.overlaps.applied_in_checkpoint;
        seen.applied_in_checkpoint_sync += node.overlaps.applied_in_checkpoint_sync;
        seen.applied_in_log_sync += node.overlaps.applied_in_log_sync;
        seen.applied_in_sweep += node.overlaps.applied_in_sweep;
        seen.swept_in_checkpoint += node.overlaps.swept_in_checkpoint;
    }
    assert!(seen.applied_in_checkpoint > 0, "{seen:?}");
    assert!(seen.applied_in_checkpoint_sync > 0, "{seen:?}");
    assert!(seen.applied_in_log_sync > 0, "{seen:?}");
    assert!(seen.applied_in_sweep > 0, "{seen:?}");
    assert!(seen.swept_in_checkpoint > 0, "{seen:?}");
}

#[test]
fn what_was_acknowledged_survives_power_cuts_at_any_moment() {
    for seed in 0..24 {
        let mut random = StdRng::seed_from_u64(seed);
        let (mut ledger, mut workload) = (Ledger::default(), Workload::new(seed));
        let mut disk = SimulatedDisk::new(seed);
        for life in 0..16 {
            let mut node = open(disk, random.random());
            rest(&mut node, &mut ledger);
            ledger.check(&node);
            let requests = random.random_range(0..60);
            work(&mut node, &mut ledger, &mut workload, &mut random, requests);
            let power_cut = match random.random_range(0..4) {
                0 => PowerCut::KeepNone,
                1 => PowerCut::KeepAll,
                _ => PowerCut::Seeded(random.random()),
            };
            println!("seed {seed}, life {life}: {power_cut:?} after index {}", ledger.last_index());
            disk = node.crash(power_cut);
        }
    }
}
