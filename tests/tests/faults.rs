//! A whole node on a disk that fills up, whose syncs fail, or under a process that dies: what was acknowledged stays.

use std::time::Duration;

use basalt_storage::disk::{PowerCut, SimulatedDisk};
use basalt_tests::background::PowerLost;
use basalt_tests::ledger::Ledger;
use basalt_tests::node_sim::SimulatedNode;
use basalt_tests::workload::Workload;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const CHECKPOINT_INTERVAL: Duration = Duration::from_millis(40);

/// A client, its knowledge, and what it will do next.
struct Client {
    ledger: Ledger,
    workload: Workload,
    random: StdRng,
}

impl Client {
    fn new(seed: u64) -> Self {
        Self { ledger: Ledger::default(), workload: Workload::new(seed), random: StdRng::seed_from_u64(seed) }
    }

    /// Opens a healthy disk, waits for the node and looks for everything.
    fn open(&mut self, disk: SimulatedDisk) -> SimulatedNode {
        let mut node =
            SimulatedNode::open(disk, self.random.random(), CHECKPOINT_INTERVAL).expect("the disk is healthy");
        self.rest_and_check(&mut node);
        node
    }

    fn rest_and_check(&mut self, node: &mut SimulatedNode) {
        node.rest().expect("the disk is healthy");
        self.ledger.take(node.take_outcomes());
        self.ledger.check(node);
    }

    /// Sends requests while the node works, until `count` were sent or the node is over.
    fn work(&mut self, node: &mut SimulatedNode, count: usize) -> Result<(), PowerLost> {
        let mut left = count;
        while left > 0 {
            if self.random.random_ratio(1, 8) {
                node.propose(self.workload.next_request(self.ledger.revision()));
                left -= 1;
            }
            let turn = node.turn();
            self.ledger.take(node.take_outcomes());
            turn?;
        }
        Ok(())
    }

    /// Sends requests until `checkpoints` more ended.
    fn work_for_checkpoints(&mut self, node: &mut SimulatedNode, checkpoints: usize) {
        let wanted = node.overlaps.checkpoints + checkpoints;
        while node.overlaps.checkpoints < wanted {
            self.work(node, 1).expect("the disk is healthy");
        }
    }
}

fn runs_on(disk: &SimulatedDisk) -> Vec<String> {
    disk.files().into_iter().filter(|name| name.starts_with("runs/")).collect()
}

#[test]
fn a_full_disk_refuses_checkpoints_and_passes() {
    let (mut refused, mut went_on, mut stopped) = (0, 0, 0);
    for seed in 0..24 {
        let mut client = Client::new(seed);
        let mut node = client.open(SimulatedDisk::new(seed));
        client.work(&mut node, 40).expect("the disk is healthy");
        let capacity = node.disk().used_bytes() + client.random.random_range(0..48u64 << 10);
        node.disk().set_capacity(capacity);
        println!("seed {seed}: full at {capacity}");
        // The log has its place on the same disk. When it finds none, and only then, the node stops.
        let over = (0..400).any(|_| node.overlaps.refusals == 2 || client.work(&mut node, 1).is_err());
        refused += node.overlaps.refusals;
        let mut node = if over && node.overlaps.refusals < 2 {
            stopped += 1;
            let disk = node.restart();
            disk.set_capacity(1 << 30);
            client.open(disk)
        } else {
            went_on += 1;
            // Somebody makes room, and no restart is needed.
            node.disk().set_capacity(1 << 30);
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
        let mut client = Client::new(seed);
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
    let (mut syncs, mut writes) = (0, 0);
    for seed in 0..400 {
        let mut client = Client::new(seed);
        let mut node = client.open(SimulatedDisk::new(seed));
        client.work(&mut node, 20).expect("the disk is healthy");
        let nth = client.random.random_range(1..60);
        let of_syncs = seed % 2 == 0;
        if of_syncs {
            node.disk().fail_sync(nth);
        } else {
            node.disk().fail_write(nth);
        }
        println!("seed {seed}: {} {nth} fails", if of_syncs { "sync" } else { "write" });
        let over = client.work(&mut node, 400);
        assert_eq!(over, Err(PowerLost), "seed {seed}: the node went on after {} faults", node.disk().faults_met());
        assert_eq!(node.disk().faults_met(), 1, "seed {seed}");
        *(if of_syncs { &mut syncs } else { &mut writes }) += 1;
        // What the cache shows may not be on the disk: the start must not believe it.
        let disk = node.restart();
        let mut node = client.open(disk);
        client.work(&mut node, 20).expect("the disk is healthy");
        client.rest_and_check(&mut node);
        client.open(node.crash(PowerCut::KeepNone));
    }
    assert!(syncs > 0 && writes > 0);
}
