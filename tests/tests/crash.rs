//! Stops a small workload at every single write and sync, cuts the power in every way that leaves another disk (or in
//! many, where those are too many), stops the start after it, and the next, and opens.
//!
//! `BASALT_CRASH_SEEDS` sets how many power cuts are tried at each stop, `BASALT_CRASH_WORKLOADS` how many workloads:
//! `docs/faults.md` has the figures.

use std::time::Duration;

use basalt_proto::etcdserverpb::{CompactionRequest, DeleteRangeRequest, PutRequest};
use basalt_proto::log::request::Kind;
use basalt_storage::disk::{InjectedFault, PowerCut, SimulatedDisk};
use basalt_tests::client::Client;
use basalt_tests::ledger::Ledger;
use basalt_tests::node_sim::{Overlaps, SimulatedNode};
use basalt_tests::over::Over;

/// Workload of the quick form: the first that has everything.
const SEED: u64 = 3;
/// More than are needed to see every kind of background work end.
const REQUESTS_MAX: usize = 200;
/// Short, so that the small workload has several checkpoints.
const CHECKPOINT_INTERVAL: Duration = Duration::from_millis(20);
/// More than a page file grows by at a time.
const LARGE_KEYS: u8 = 9;
const LARGE_BYTES: usize = 128 << 10;
/// Power cuts at each stop, of the quick form.
const CUTS: u64 = 6;
/// Of so many unsynced changes all subsets are tried, if so many power cuts are asked for.
const SUBSET_CHANGES_MAX: usize = 8;
/// About how many requests to the disk a start makes: it is stopped at one of them.
const START_OPERATIONS: u64 = 60;

fn asked(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |text| text.parse().expect("a number"))
}

/// The life of a new node: the same on every disk, up to where the disk stops. It gives what was seen.
type Life = fn(&SimulatedDisk, &mut Client, u64) -> Result<Seen, Over>;

/// A life to its end.
struct Seen {
    overlaps: Overlaps,
    /// Requests to the disk before those that matter.
    prelude: u64,
}

fn first_life(life: Life, disk: &SimulatedDisk, seed: u64) -> (Client, Result<Seen, Over>) {
    let mut client = Client::new(seed, CHECKPOINT_INTERVAL);
    let end = life(disk, &mut client, seed);
    (client, end)
}

fn with_everything(disk: &SimulatedDisk, client: &mut Client, seed: u64) -> Result<Seen, Over> {
    let mut node = SimulatedNode::open(disk.clone(), seed, CHECKPOINT_INTERVAL)?;
    let overlaps = work_until(client, &mut node, |seen| {
        let ended = [
            seen.checkpoints / 2,
            seen.recycles,
            seen.compactions,
            seen.snapshots,
            seen.expired,
            seen.defragmentations,
        ];
        ended.iter().all(|count| *count > 0) && seen.applied_in_snapshot > 0
    })?;
    Ok(Seen { overlaps, prelude: 0 })
}

/// A page file grows by a step, most of what it grew for is dropped, clients ask for defragmentations until it is shorter,
/// and more checkpoints follow.
fn with_a_file_that_shrinks(disk: &SimulatedDisk, client: &mut Client, seed: u64) -> Result<Seen, Over> {
    let mut node = SimulatedNode::open(disk.clone(), seed, CHECKPOINT_INTERVAL)?;
    for number in 0..LARGE_KEYS {
        let (key, value) = (format!("/registry/pods/large-{number}").into(), vec![number; LARGE_BYTES].into());
        client.send_kind(&mut node, Kind::Put(PutRequest { key, value, ..PutRequest::default() }));
        client.rest(&mut node)?;
    }
    until_checkpointed(client, &mut node)?;
    let (key, range_end) = ("/registry/pods/large-1".into(), "/registry/pods/large-z".into());
    client.send_kind(&mut node, Kind::DeleteRange(DeleteRangeRequest { key, range_end, ..Default::default() }));
    client.rest(&mut node)?;
    let revision = node.view().revision;
    client.send_kind(&mut node, Kind::Compaction(CompactionRequest { revision, physical: false }));
    until_checkpointed(client, &mut node)?;
    assert_eq!(node.overlaps.shrinks, 0, "it is still to come");
    let (prelude, checkpoints) = (disk.operations(), node.overlaps.checkpoints + 2);
    node.begin_defragmentation();
    let shrunk = |seen: &Overlaps| seen.shrinks > 0 && seen.defragmentations > 0 && seen.checkpoints >= checkpoints;
    let overlaps = work_until(client, &mut node, shrunk)?;
    Ok(Seen { overlaps, prelude })
}

fn until_checkpointed(client: &mut Client, node: &mut SimulatedNode) -> Result<(), Over> {
    while node.is_busy() || node.machine().store().is_sweeping() || !node.is_checkpointed() {
        client.turn(node)?;
    }
    Ok(())
}

/// Sends requests until enough was seen.
fn work_until(
    client: &mut Client,
    node: &mut SimulatedNode,
    enough: impl Fn(&Overlaps) -> bool,
) -> Result<Overlaps, Over> {
    for _ in 0..REQUESTS_MAX {
        if enough(&node.overlaps) {
            return Ok(node.overlaps);
        }
        client.send(node);
        for _ in 0..12 {
            client.turn(node)?;
        }
    }
    panic!("too little happens: {:?}", node.overlaps);
}

/// The power cuts to try on a disk.
fn power_cuts(disk: &SimulatedDisk, count: u64) -> Vec<PowerCut> {
    let changes = disk.unsynced_changes();
    if changes <= SUBSET_CHANGES_MAX && 1 << changes <= count.max(1 << 3) {
        return (0..1 << changes).map(PowerCut::Subset).chain([PowerCut::Seeded(count)]).collect();
    }
    [PowerCut::KeepNone, PowerCut::KeepAll].into_iter().chain((2..count).map(PowerCut::Seeded)).collect()
}

/// Opens on a disk that stops after `operations`; what is answered until then counts as acknowledged.
fn stopped_start(disk: &SimulatedDisk, ledger: &mut Ledger, seed: u64, operations: u64) {
    disk.stop_after(operations);
    let opened = SimulatedNode::open(disk.clone(), seed, CHECKPOINT_INTERVAL);
    let mut node = match opened {
        Ok(node) => node,
        Err(over) => return assert_eq!(over, Over(InjectedFault::Stopped)),
    };
    node.begin_defragmentation();
    while node.turn().is_ok() && node.is_busy() {}
    ledger.take(node.take_outcomes());
}

/// Opens after a crash and looks for everything.
fn next_life(disk: SimulatedDisk, ledger: &mut Ledger, seed: u64) -> SimulatedNode {
    let mut node = SimulatedNode::open(disk, seed, CHECKPOINT_INTERVAL).expect("nobody stops this disk");
    node.rest().expect("nobody stops this disk");
    ledger.take(node.take_outcomes());
    ledger.check(&node);
    node
}

/// All power cuts at one stop; gives how many.
fn survive(stopped: &SimulatedDisk, heard: &Ledger, stop: u64, cuts: u64) -> u64 {
    let power_cuts = power_cuts(stopped, cuts);
    for (number, power_cut) in (0u64..).zip(&power_cuts) {
        println!("stopped after {stop}, {power_cut:?}, index {}", heard.last_index());
        let (mut ledger, seed) = (heard.clone(), stop.wrapping_mul(1009) + number);
        // The start after it is stopped too, and the one after that, each time somewhere else.
        let disk = stopped.crash(*power_cut);
        stopped_start(&disk, &mut ledger, seed, seed % START_OPERATIONS);
        let disk = disk.crash(if number % 2 == 0 { *power_cut } else { PowerCut::Seeded(seed) });
        stopped_start(&disk, &mut ledger, seed + 1, (seed / START_OPERATIONS) % START_OPERATIONS);
        let node = next_life(disk.crash(PowerCut::Seeded(seed + 1)), &mut ledger, seed + 2);
        next_life(node.crash(PowerCut::KeepNone), &mut ledger, seed + 3);
        // And once without any of that.
        next_life(stopped.crash(*power_cut), &mut heard.clone(), seed + 4);
    }
    power_cuts.len() as u64
}

/// Stops a life at every change of the disk, workload by workload.
fn survive_everywhere(life: Life) {
    let (cuts, workloads) = (asked("BASALT_CRASH_SEEDS", CUTS), asked("BASALT_CRASH_WORKLOADS", 1));
    for seed in SEED..SEED + workloads {
        let disk = SimulatedDisk::new(seed);
        let Seen { overlaps, prelude } = first_life(life, &disk, seed).1.expect("nobody stops this disk");
        let mut stops = disk.changing_operations();
        stops.retain(|stop| *stop >= prelude);
        let mut tried = 0;
        for stop in &stops {
            let disk = SimulatedDisk::new(seed);
            disk.stop_after(*stop);
            let (client, end) = first_life(life, &disk, seed);
            assert_eq!(end.err(), Some(Over(InjectedFault::Stopped)), "stopped after {stop} of {}", stops.len());
            tried += survive(&disk, &client.ledger, *stop, cuts);
        }
        println!("workload {seed}: {} stops, {tried} power cuts, {overlaps:?}", stops.len());
    }
}

#[test]
fn nothing_acknowledged_is_lost_wherever_the_power_goes() {
    survive_everywhere(with_everything);
}

#[test]
fn nothing_acknowledged_is_lost_while_a_page_file_shrinks() {
    survive_everywhere(with_a_file_that_shrinks);
}
