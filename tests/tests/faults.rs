//! A whole node on a disk that fills up, whose syncs fail, or under a process that dies: what was acknowledged stays.

use std::time::Duration;

use basalt_storage::disk::{InjectedFault, PowerCut, SimulatedDisk};
use basalt_tests::client::Client;
use basalt_tests::over::Over;
use rand::Rng;

const CHECKPOINT_INTERVAL: Duration = Duration::from_millis(40);

fn runs_on(disk: &SimulatedDisk) -> Vec<String> {
    disk.files().into_iter().filter(|name| name.starts_with("runs/")).collect()
}

#[test]
fn a_full_disk_refuses_checkpoints_and_passes() {
    let (mut refused, mut went_on, mut stopped) = (0, 0, 0);
    for seed in 0..24 {
        let mut client = Client::new(seed, CHECKPOINT_INTERVAL);
        let mut node = client.open(SimulatedDisk::new(seed));
        client.work(&mut node, 40).expect("the disk is healthy");
        let capacity = node.disk().used_bytes() + client.random.random_range(0..48u64 << 10);
        node.disk().set_capacity(capacity);
        println!("seed {seed}: full at {capacity}");
        // The log has its place on the same disk. When it finds none, and only then, the node stops.
        let mut over = None;
        for _ in 0..400 {
            if node.overlaps.refusals == 2 || over.is_some() {
                break;
            }
            over = client.work(&mut node, 1).err();
        }
        refused += node.overlaps.refusals;
        // Somebody makes room. A write of the log that had failed before is heard of only now.
        node.disk().set_capacity(1 << 30);
        let over = over.or_else(|| client.rest(&mut node).err());
        let mut node = if let Some(over) = over {
            assert_eq!(over, Over(InjectedFault::Full), "seed {seed}");
            stopped += 1;
            client.open(node.restart())
        } else {
            went_on += 1;
            // No restart is needed.
            client.rest_and_check(&mut node);
            node
        };
        client.work_for_checkpoints(&mut node, 2);
        client.rest_and_check(&mut node);
        if let Some(named) = node.named_runs() {
            assert_eq!(runs_on(node.disk()), named, "seed {seed}: nothing is left of refused checkpoints");
        }
        client.open(node.crash(PowerCut::KeepNone));
    }
    assert!(refused > 0 && went_on > 0, "{refused} refused, {went_on} went on, {stopped} stopped");
}

#[test]
fn a_process_that_dies_amid_checkpoints_and_compactions_loses_nothing() {
    for seed in 0..16 {
        let mut client = Client::new(seed, CHECKPOINT_INTERVAL);
        let mut disk = SimulatedDisk::new(seed);
        for life in 0..12 {
            let mut node = client.open(disk);
            let requests = client.random.random_range(0..60);
            client.work(&mut node, requests).expect("the disk is healthy");
            // The operating system lives on; or it goes a moment later too, with what the process left in its cache.
            disk = node.restart();
            let cut = client.random.random_bool(0.5).then(|| PowerCut::Seeded(client.random.random()));
            println!("seed {seed}, life {life}: {cut:?} after index {}", client.ledger.last_index());
            if let Some(cut) = cut {
                disk = disk.crash(cut);
            }
        }
        client.open(disk);
    }
}

#[test]
fn a_sync_or_write_that_fails_stops_the_node_and_loses_nothing() {
    type Arm = fn(&SimulatedDisk, u64);
    let arms: [(InjectedFault, Arm); 3] = [
        (InjectedFault::Sync, SimulatedDisk::fail_sync),
        // As a file system says it that finds no block for what it had taken: to try again later would be to lose it.
        (InjectedFault::Sync, SimulatedDisk::fail_sync_as_full),
        (InjectedFault::Write, SimulatedDisk::fail_write),
    ];
    for seed in 0..600 {
        let mut client = Client::new(seed, CHECKPOINT_INTERVAL);
        let mut node = client.open(SimulatedDisk::new(seed));
        client.work(&mut node, 20).expect("the disk is healthy");
        let nth = client.random.random_range(1..60);
        let (fault, arm) = arms[seed as usize % arms.len()];
        arm(node.disk(), nth);
        println!("seed {seed}: {fault:?} {nth} fails");
        let over = client.work(&mut node, 400);
        assert_eq!(over, Err(Over(fault)), "seed {seed}: the node went on after {} faults", node.disk().faults_met());
        assert_eq!(node.disk().faults_met(), 1, "seed {seed}");
        // What the cache shows may not be on the disk: the start must not believe it.
        let disk = node.restart();
        let mut node = client.open(disk);
        client.work(&mut node, 20).expect("the disk is healthy");
        client.rest_and_check(&mut node);
        client.open(node.crash(PowerCut::KeepNone));
    }
}
