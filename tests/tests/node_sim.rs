//! A whole node under a seeded scheduler: background jobs stop between any two steps while writes go on.

use std::time::Duration;

use basalt_storage::disk::{PowerCut, SimulatedDisk};
use basalt_tests::client::Client;
use basalt_tests::node_sim::Overlaps;
use rand::Rng;

const CHECKPOINT_INTERVAL: Duration = Duration::from_millis(40);

#[test]
fn apply_advances_inside_a_checkpoint_and_inside_a_sync() {
    let mut seen = Overlaps::default();
    for seed in 0..4 {
        let mut client = Client::new(seed, CHECKPOINT_INTERVAL);
        let mut node = client.open(SimulatedDisk::new(seed));
        for _ in 0..4 {
            client.work(&mut node, 100).expect("nobody stops this disk");
            client.rest_and_check(&mut node);
        }
        let Overlaps { checkpoints, recycles, .. } = node.overlaps;
        assert!(checkpoints > 3 && recycles > 0, "seed {seed}: {:?}", node.overlaps);
        seen.applied_in_checkpoint += node.overlaps.applied_in_checkpoint;
        seen.applied_in_checkpoint_sync += node.overlaps.applied_in_checkpoint_sync;
        seen.applied_in_log_sync += node.overlaps.applied_in_log_sync;
        seen.applied_in_sweep += node.overlaps.applied_in_sweep;
        seen.swept_in_checkpoint += node.overlaps.swept_in_checkpoint;
        seen.applied_in_snapshot += node.overlaps.applied_in_snapshot;
        seen.snapshots += node.overlaps.snapshots;
        seen.expired += node.overlaps.expired;
    }
    assert!(seen.applied_in_checkpoint > 0, "{seen:?}");
    assert!(seen.applied_in_checkpoint_sync > 0, "{seen:?}");
    assert!(seen.applied_in_log_sync > 0, "{seen:?}");
    assert!(seen.applied_in_sweep > 0, "{seen:?}");
    assert!(seen.swept_in_checkpoint > 0, "{seen:?}");
    assert!(seen.applied_in_snapshot > 0 && seen.snapshots > 0, "{seen:?}");
    assert!(seen.expired > 0, "{seen:?}");
}

#[test]
fn what_was_acknowledged_survives_power_cuts_at_any_moment() {
    for seed in 0..24 {
        let mut client = Client::new(seed, CHECKPOINT_INTERVAL);
        let mut disk = SimulatedDisk::new(seed);
        for life in 0..16 {
            let mut node = client.open(disk);
            let requests = client.random.random_range(0..60);
            client.work(&mut node, requests).expect("nobody stops this disk");
            let power_cut = match client.random.random_range(0..4) {
                0 => PowerCut::KeepNone,
                1 => PowerCut::KeepAll,
                _ => PowerCut::Seeded(client.random.random()),
            };
            println!("seed {seed}, life {life}: {power_cut:?} after index {}", client.ledger.last_index());
            disk = node.crash(power_cut);
        }
    }
}
