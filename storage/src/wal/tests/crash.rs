//! Stop at every request, cut the power in every way, start again, twice.

use super::harness::Action::{Append, Commit, Conflict, Flush, Prepare, Recycle, StartAfter};
use proptest::prelude::*;

use super::harness::{Action, Workload, actions, entry, recover};
use crate::disk::{InjectedFault, PowerCut, SimulatedDisk};
use crate::wal::{Record, WalError};

/// Rolls over inline, into prepared and into recycled segments, truncates across segments, and recycles.
const WORKLOAD: &[Action] = &[
    Append { count: 1, bytes: 10, new_term: true },
    Flush,
    Append { count: 2, bytes: 3000, new_term: false },
    Flush,
    Prepare,
    Append { count: 3, bytes: 3000, new_term: false },
    Commit { behind: 4 },
    Flush,
    Append { count: 1, bytes: 100, new_term: false },
    Flush,
    Conflict { entries: 3 },
    Commit { behind: 0 },
    Flush,
    Append { count: 3, bytes: 4000, new_term: true },
    Flush,
    Recycle { behind: 0 },
    Append { count: 3, bytes: 4000, new_term: false },
    Commit { behind: 0 },
    Flush,
    Append { count: 1, bytes: 4000, new_term: false },
    Flush,
    Recycle { behind: 1 },
    Prepare,
    Append { count: 3, bytes: 4000, new_term: false },
    Flush,
    StartAfter { ahead: 5 },
    Append { count: 1, bytes: 4000, new_term: false },
    Flush,
    Recycle { behind: 0 },
    Append { count: 1, bytes: 10, new_term: true },
    Flush,
];

const CUTS: &[PowerCut] = &[
    PowerCut::KeepNone,
    PowerCut::KeepAll,
    PowerCut::Seeded(1),
    PowerCut::Seeded(2),
    PowerCut::Seeded(3),
    PowerCut::Seeded(4),
    PowerCut::Seeded(5),
];

fn run_armed(arm: impl FnOnce(&SimulatedDisk)) -> Workload {
    run_actions_armed(WORKLOAD, arm)
}

/// Runs `actions` on a disk that `arm` prepared once the log was created; it may end early.
fn run_actions_armed(actions: &[Action], arm: impl FnOnce(&SimulatedDisk)) -> Workload {
    let disk = SimulatedDisk::new(3);
    let mut workload = Workload::create(&disk).expect("creates");
    arm(&disk);
    match workload.run(actions) {
        Ok(()) | Err(WalError::Io { .. }) => workload,
        Err(other) => panic!("{other}"),
    }
}

/// Starts twice on `disk`: the second start finds what the first found, however the power goes in between, and
/// what was appended in between too.
fn start_twice(workload: &Workload, disk: &SimulatedDisk, context: &str) {
    let first = recover(disk, 100).unwrap_or_else(|error| panic!("{context}: {error}"));
    let found = workload.batch_found(&first);
    let second = recover(&disk.crash(PowerCut::KeepNone), 101).unwrap_or_else(|error| panic!("{context}: {error}"));
    assert!(workload.after_batch[found as usize].is_found(&second, workload.recycled_below), "{context}");

    let last_index = first.log.last_index();
    let mut next_life = Workload {
        disk: disk.clone(),
        log: first.log,
        model: workload.after_batch[found as usize].clone(),
        after_batch: workload.after_batch[..=found as usize].to_vec(),
        durable_batch: found,
        recycled_below: workload.recycled_below,
    };
    let term = next_life.model.entries.last().map_or(next_life.model.base.1, |entry| entry.term) + 1;
    next_life.gather(vec![Record::Entry(entry(last_index + 1, term, 5000))]);
    next_life.flush().unwrap_or_else(|error| panic!("{context}: {error}"));
    let third = recover(&disk.crash(PowerCut::KeepNone), 102).unwrap_or_else(|error| panic!("{context}: {error}"));
    assert_eq!(next_life.batch_found(&third), found + 1, "{context}");
}

#[test]
fn nothing_durable_is_lost_wherever_the_power_goes() {
    let whole = run_armed(|_| {});
    assert!(whole.durable_batch >= 10 && whole.log.last_index() > 15, "the workload is worth its name");
    let created = Workload::create(&SimulatedDisk::new(3)).expect("creates").disk.operations();
    for stop in created..whole.disk.operations() {
        let workload = run_armed(|disk| disk.stop_after(stop));
        for cut in CUTS {
            start_twice(&workload, &workload.disk.crash(*cut), &format!("stop {stop}, {cut:?}"));
        }
        start_twice(&workload, &workload.disk.restart(), &format!("stop {stop}, process only"));
    }
}

#[test]
fn a_start_may_be_interrupted_anywhere() {
    let whole = run_armed(|_| {});
    for stop in (20..whole.disk.operations()).step_by(3) {
        let workload = run_armed(|disk| disk.stop_after(stop));
        for (round, cut) in CUTS.iter().enumerate() {
            let disk = if round % 2 == 0 { workload.disk.crash(*cut) } else { workload.disk.restart() };
            disk.stop_after((stop * 7 + round as u64 * 5) % 48);
            let interrupted = recover(&disk, 50);
            let context = format!("stop {stop}, {cut:?}");
            match &interrupted {
                Ok(found) => drop(workload.batch_found(found)),
                Err(error) => {
                    assert_eq!(InjectedFault::behind(error), Some(InjectedFault::Stopped), "{context}: {error}")
                }
            }
            start_twice(&workload, &disk.crash(*cut), &context);
            start_twice(&workload, &disk.restart(), &context);
        }
    }
}

#[test]
fn a_failed_sync_is_never_believed_by_the_next_start() {
    for nth in 1..60 {
        let workload = run_armed(|disk| disk.fail_sync(nth));
        start_twice(&workload, &workload.disk.restart(), &format!("sync {nth}, process only"));
        for cut in CUTS {
            start_twice(&workload, &workload.disk.crash(*cut), &format!("sync {nth}, {cut:?}"));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_workload_survives_any_stop(
        actions in actions(),
        stop in 0..300u64,
        failing_sync in 0..60u64,
        seed in any::<u64>(),
    ) {
        let workload = run_actions_armed(&actions, |disk| {
            disk.stop_after(disk.operations() + stop);
            disk.fail_sync(failing_sync);
        });
        for disk in [workload.disk.crash(PowerCut::Seeded(seed)), workload.disk.restart()] {
            start_twice(&workload, &disk, "any");
        }
    }
}

#[test]
fn a_creation_may_be_interrupted_anywhere() {
    let created = Workload::create(&SimulatedDisk::new(3)).expect("creates").disk.operations();
    for stop in 0..created {
        for cut in CUTS {
            let disk = SimulatedDisk::new(3);
            disk.stop_after(stop);
            assert!(Workload::create(&disk).is_err());
            let disk = disk.crash(*cut);
            match recover(&disk, 1) {
                Err(WalError::NotCreated) => drop(Workload::create(&disk).expect("creates")),
                Ok(recovered) => assert!(recovered.entries.is_empty()),
                Err(other) => panic!("stop {stop}, {cut:?}: {other}"),
            }
            assert!(recover(&disk.crash(PowerCut::KeepNone), 2).is_ok());
        }
    }
}

#[test]
fn a_full_disk_fails_the_batch_and_loses_nothing() {
    let workload = run_armed(|disk| disk.set_capacity(disk.used_bytes() + 9000));
    assert!(workload.durable_batch < run_armed(|_| {}).durable_batch);
    let disk = workload.disk.restart();
    disk.set_capacity(1 << 20);
    start_twice(&workload, &disk, "full");
}
