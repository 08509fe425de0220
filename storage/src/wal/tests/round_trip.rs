//! Without faults, what goes in comes out.

use proptest::prelude::*;

use super::harness::{IDENTITY, SMALL, Workload, actions, entry, recover};
use crate::disk::{PowerCut, RealDisk, SimulatedDisk};
use crate::job;
use crate::wal::{EndReason, HardState, Identity, Log, LogOptions, Record, Recovered, Recovery, WalError};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn everything_flushed_is_found_by_every_later_start(lives in prop::collection::vec(actions(), 1..4)) {
        let disk = SimulatedDisk::new(1);
        let mut workload = Workload::create(&disk).expect("creates");
        for (life, actions) in lives.iter().enumerate() {
            workload.run(actions).expect("no fault");
            workload.flush().expect("no fault");
            let disk = workload.disk.crash(PowerCut::KeepNone);
            let recovered = recover(&disk, life as u64).expect("recovers");
            prop_assert_eq!(workload.batch_found(&recovered), workload.durable_batch);
            prop_assert_eq!(recovered.end_reason, EndReason::Clean);
            (workload.disk, workload.log) = (disk, recovered.log);
        }
    }
}

/// The log of a member whose state came from elsewhere.
#[test]
fn a_log_may_begin_behind_another() {
    let disk = SimulatedDisk::new(1);
    let created = job::run(&mut Log::create_after(IDENTITY, 5, 2, SMALL, 1), &disk, 1).expect("creates");
    let place = |recovered: &Recovered| (recovered.previous_index, recovered.previous_term, recovered.hard_state);
    let expected = (5, 2, HardState { term: 2, vote: 0, commit: 5 });
    assert_eq!(place(&created), expected);
    let disk = disk.crash(PowerCut::KeepNone);
    let mut recovered = recover(&disk, 2).expect("recovers");
    assert_eq!((place(&recovered), recovered.entries.len()), (expected, 0));
    recovered.log.append(vec![Record::Entry(entry(6, 2, 10))], 0).expect("follows");
    let mut batch = recovered.log.start_batch().expect("gathered");
    let durable = job::run(&mut batch, &disk, 1).expect("writes");
    recovered.log.finish_batch(&durable);
    let recovered = recover(&disk.crash(PowerCut::KeepNone), 3).expect("recovers");
    assert_eq!((place(&recovered), recovered.entries.len()), (expected, 1));
}

#[test]
fn a_batch_gathers_while_another_is_under_way() {
    let disk = SimulatedDisk::new(1);
    let mut log = Workload::create(&disk).expect("creates").log;
    assert!(log.start_batch().is_none(), "nothing gathered");
    assert_eq!(log.append(vec![Record::Entry(entry(1, 1, 10))], 0).expect("fits"), 1);
    let mut first = log.start_batch().expect("gathered");
    for index in 2..=3 {
        assert_eq!(log.append(vec![Record::Entry(entry(index, 1, 10))], 0).expect("fits"), 2);
    }
    assert!(log.start_batch().is_none(), "not before the first is durable");
    let durable = job::run(&mut first, &disk, 1).expect("writes");
    assert!(log.start_batch().is_none(), "not before the log knows of it");
    log.finish_batch(&durable);
    let durable = job::run(&mut log.start_batch().expect("gathered"), &disk, 1).expect("writes");
    assert_eq!((durable.number, durable.last_index, log.gathered_bytes()), (2, 3, 0));
}

#[test]
fn a_batch_larger_than_a_segment_gets_one_of_its_own() {
    let disk = SimulatedDisk::new(1);
    let mut workload = Workload::create(&disk).expect("creates");
    workload.gather(vec![Record::Entry(entry(1, 1, 100_000))]);
    workload.gather(vec![Record::Entry(entry(2, 1, 10))]);
    workload.flush().expect("no fault");
    let recovered = recover(&disk.crash(PowerCut::KeepNone), 2).expect("recovers");
    assert_eq!(workload.batch_found(&recovered), 1, "both were gathered in one batch");
    let too_large = vec![Record::Entry(entry(3, 1, 65 << 20))];
    assert!(matches!(workload.log.append(too_large, 0), Err(WalError::BatchTooLarge { .. })));
}

#[test]
fn a_full_batch_takes_no_further_append() {
    let mut log = Workload::create(&SimulatedDisk::new(1)).expect("creates").log;
    let numbers = (1..=3).map(|index| log.append(vec![Record::Entry(entry(index, 1, 3 << 20))], 0).expect("fits"));
    assert_eq!(numbers.collect::<Vec<_>>(), [1, 1, 2]);
}

#[test]
fn a_segment_prepared_too_late_is_not_used_under_its_number() {
    let disk = SimulatedDisk::new(1);
    let mut workload = Workload::create(&disk).expect("creates");
    let mut prepare = workload.log.prepare().expect("nothing is prepared");
    assert!(workload.log.prepare().is_none(), "one at a time");
    for index in 1..=4 {
        workload.gather(vec![Record::Entry(entry(index, 1, 5000))]);
        workload.flush().expect("no fault");
    }
    let prepared = job::run(&mut prepare, &disk, 1).expect("prepares");
    workload.log.finish_prepare(prepared);
    workload.run(&[super::harness::Action::Prepare]).expect("no fault");
    for index in 5..=12 {
        workload.gather(vec![Record::Entry(entry(index, 1, 5000))]);
        workload.flush().expect("no fault");
    }
    let recovered = recover(&disk.crash(PowerCut::KeepNone), 2).expect("recovers");
    assert_eq!(workload.batch_found(&recovered), workload.durable_batch);
}

#[test]
#[should_panic(expected = "entry does not follow the one before")]
fn a_gap_in_what_is_appended_is_our_own_bug() {
    let mut log = Workload::create(&SimulatedDisk::new(1)).expect("creates").log;
    let _ = log.append(vec![Record::Entry(entry(2, 1, 10))], 0);
}

#[test]
fn a_directory_is_created_once_and_belongs_to_one_member() {
    let disk = SimulatedDisk::new(1);
    assert!(matches!(recover(&disk, 1), Err(WalError::NotCreated)));
    Workload::create(&disk).expect("creates");
    assert!(matches!(Workload::create(&disk), Err(WalError::AlreadyCreated)));
    let other = Identity { incarnation: 10, ..IDENTITY };
    let error = job::run(&mut Recovery::new(Some(other), SMALL, 1), &disk, 1).expect_err("foreign");
    assert!(matches!(error, WalError::ForeignIdentity { found: IDENTITY, .. }), "{error}");
    let found = job::run(&mut Recovery::new(None, SMALL, 1), &disk, 1).expect("recovers");
    assert_eq!(found.identity, IDENTITY);
}

#[test]
fn former_segments_are_reused_and_the_directory_stays_small() {
    let disk = SimulatedDisk::new(1);
    let mut workload = Workload::create(&disk).expect("creates");
    for _ in 0..50 {
        use super::harness::Action::{Append, Commit, Flush, Prepare, Recycle};
        let round = [
            Append { count: 2, bytes: 4000, new_term: false },
            Commit { behind: 0 },
            Flush,
            Prepare,
            Recycle { behind: 0 },
        ];
        workload.run(&round).expect("no fault");
        assert!(disk.files().len() <= 6, "{:?}", disk.files());
    }
    let recovered = recover(&disk.crash(PowerCut::KeepNone), 2).expect("recovers");
    assert_eq!(workload.batch_found(&recovered), workload.durable_batch);
    assert!(recovered.entries.len() < 20, "{}", recovered.entries.len());
}

#[test]
fn it_works_on_a_real_directory() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let disk = RealDisk::open(directory.path()).expect("opens");
    let options = LogOptions { first_segment_bytes: 1 << 16, segment_bytes: 1 << 17 };
    let mut log = job::run(&mut Log::create(IDENTITY, options, 1), &disk, 1).expect("creates").log;
    for index in 1..=100 {
        log.append(vec![Record::Entry(entry(index, 1, 3000))], index).expect("fits");
        let durable = job::run(&mut log.start_batch().expect("gathered"), &disk, 1).expect("writes");
        log.finish_batch(&durable);
        if let Some(mut prepare) = log.prepare() {
            let prepared = job::run(&mut prepare, &disk, 1).expect("prepares");
            log.finish_prepare(prepared);
        }
        if let Some(mut recycle) = log.recycle_below(index.saturating_sub(20)) {
            let recycled = job::run(&mut recycle, &disk, 1).expect("recycles");
            log.finish_recycle(recycled);
        }
    }
    drop(log);
    let recovered = job::run(&mut Recovery::new(Some(IDENTITY), options, 2), &disk, 1).expect("recovers");
    let first = recovered.previous_index + 1;
    assert!((2..=80).contains(&first), "{first}");
    assert!(recovered.entries.iter().cloned().eq((first..=100).map(|index| entry(index, 1, 3000))));
    assert_eq!(recovered.newest_manifest_generation, 100);
}
