use std::sync::Arc;

use basalt_proto::members::Member;
use basalt_storage::checkpoint::Salt;
use basalt_storage::checkpoint::recovery::{self, Birth, GENERATION_WITHOUT_LOG};
use basalt_storage::disk::{PowerCut, SimulatedDisk};
use basalt_storage::mvcc::shard_map::ShardMap;
use basalt_storage::mvcc::view::LogPosition;
use basalt_storage::pages::PageCache;
use basalt_storage::wal::LogOptions;

use super::*;
use crate::node::start::open_log;

const OWN: u64 = 2;
const OPTIONS: LogOptions = LogOptions { segment_bytes: 24 << 10, first_segment_bytes: 16 << 10 };

fn member(id: u64) -> Member {
    Member { id, peer_urls: vec![format!("http://m{id}:2380")], ..Member::default() }
}

fn three() -> Members {
    Members::first([1, OWN, 3].map(member).to_vec())
}

fn addition(id: u64) -> Change {
    let addition = basalt_proto::log::MemberAddition { member: Some(member(id)), learner: true, learners_max: 1 };
    Change::Add(addition)
}

fn put() -> Entry {
    let request = Request { id: 1, kind: Some(Kind::Put(Default::default())), ..Request::default() };
    let entry = LogEntry { requests: vec![request], ..LogEntry::default() };
    Entry { index: 0, term: 0, kind: 0, data: prost::Message::encode_to_vec(&entry).into() }
}

/// A directory of member [`OWN`] with these entries behind its checkpoint, all of term 4, of which `committed` are known to be.
fn directory(members: &Members, entries: &[Entry], committed: u64) -> SimulatedDisk {
    let disk = SimulatedDisk::new(1);
    let birth = Birth {
        cluster_id: 9,
        member_id: OWN,
        incarnation: 5,
        conf_state: members.encode().to_vec(),
        shard_map: ShardMap::default(),
    };
    let begins_after = LogPosition { index: 3, term: 1 };
    let opened = recovery::create_after(&disk, &cache(), Salt::new(1), birth, begins_after).expect("an empty disk");
    let mut recovered = open_log(&disk, &opened, OPTIONS, 1).expect("made just now");
    let mut checkpointer = opened.checkpointer;
    recovery::settle(&disk, &mut checkpointer).expect("made just now");
    let mut records: Vec<Record> =
        (4..).zip(entries).map(|(index, entry)| Record::Entry(Entry { index, term: 4, ..entry.clone() })).collect();
    records.push(Record::HardState(HardState { term: 4, vote: 1, commit: 3 + committed }));
    recovered.log.append(records, checkpointer.manifest().generation).expect("it fits");
    let mut batch = recovered.log.start_batch().expect("something was appended");
    let durable = run(&mut batch, &disk, BUDGET_UNLIMITED).expect("the disk does not fail");
    recovered.log.finish_batch(&durable);
    disk
}

fn cache() -> Arc<PageCache> {
    Arc::new(PageCache::new(64 << 10))
}

/// A start with the flag; gives the log's entries, its commit index, and who is removed.
fn forced(disk: &SimulatedDisk) -> Result<(Vec<Entry>, u64, Vec<u64>), StartError> {
    let (mut recovered, members, generation) = opened(disk)?;
    let survivor = Survivor { member_id: OWN, members: &members, applied: 3, generation };
    let removed = force_new_cluster(disk, survivor, &mut recovered)?;
    Ok((recovered.entries, recovered.hard_state.commit, removed))
}

fn opened(disk: &SimulatedDisk) -> Result<(Recovered, Members, u64), StartError> {
    let opened = recovery::open(disk, &cache(), Salt::new(2))?.expect("it was made");
    let recovered = open_log(disk, &opened, OPTIONS, 2)?;
    let members = Members::decode(&opened.store.conf_state)?;
    let mut checkpointer = opened.checkpointer;
    recovery::settle(disk, &mut checkpointer)?;
    let generation = checkpointer.manifest().generation;
    assert!(generation > GENERATION_WITHOUT_LOG);
    Ok((recovered, members, generation))
}

/// The members behind all of a log.
fn members_behind(members: &Members, entries: &[Entry]) -> Members {
    let changes = entries.iter().flat_map(|entry| changes_of(entry).expect("ours"));
    let mut members = members.clone();
    changes.for_each(|change| members.follow(&change));
    members
}

fn ids(members: &Members) -> Vec<u64> {
    members.iter().map(|member| member.id).collect()
}

#[test]
fn all_of_the_log_is_kept_and_the_others_are_removed_behind_it() {
    // Of the three entries one is known as committed; a learner was added by one that is not.
    let disk = directory(&three(), &[put(), entry(0, 0, 1, addition(8)), put()], 1);
    let (entries, commit, removed) = forced(&disk).expect("a healthy directory");
    assert_eq!(removed, [1, 3, 8]);
    let members = members_behind(&three(), &entries);
    assert_eq!((ids(&members), members.voters()), (vec![OWN], [OWN].as_slice()));
    assert_eq!(
        entries.iter().map(|entry| (entry.index, entry.term)).collect::<Vec<_>>(),
        [4, 5, 6, 7, 8, 9].map(|index| (index, 4))
    );
    assert_eq!(commit, 9);
    // The next start finds the same, and has nothing more to do.
    let again = forced(&disk).expect("a healthy directory");
    assert_eq!(again, (entries, 9, Vec::new()));
}

#[test]
fn a_learner_votes_from_then_on() {
    let mut members = Members::first(vec![member(1)]);
    let Change::Add(mut learner) = addition(OWN) else { unreachable!("an addition") };
    learner.member = Some(member(OWN));
    members.follow(&Change::Add(learner));
    let disk = directory(&members, &[put()], 0);
    let (entries, _, removed) = forced(&disk).expect("a healthy directory");
    assert_eq!(removed, [1]);
    assert_eq!(members_behind(&members, &entries).voters(), [OWN]);
}

#[test]
fn its_own_removal_is_dropped_unless_it_is_known_as_committed() {
    let log = [put(), entry(0, 0, 1, Change::Remove(OWN)), put()];
    let disk = directory(&three(), &log, 1);
    let (entries, commit, removed) = forced(&disk).expect("a healthy directory");
    assert_eq!((removed, commit), (vec![1, 3], 6));
    assert_eq!(members_behind(&three(), &entries).voters(), [OWN]);
    assert_eq!(forced(&disk).expect("a healthy directory"), (entries, 6, Vec::new()));

    let disk = directory(&three(), &log, 2);
    let refused = forced(&disk).expect_err("it left").to_string();
    assert!(
        refused.contains("--force-new-cluster") && refused.contains("it was removed from its cluster"),
        "{refused}"
    );
}

#[test]
fn who_has_no_state_begins_no_cluster() {
    let disk = directory(&Members::joining(three().membership().clone()), &[], 0);
    let refused = forced(&disk).expect_err("it has nothing").to_string();
    assert!(refused.contains("was not brought its state yet"), "{refused}");
}

/// Stops at every request to the disk, cuts the power, and starts without the flag: the log is the old one or the new one.
#[test]
fn a_crash_leaves_the_old_log_or_the_new_one() {
    let log = [put(), entry(0, 0, 1, Change::Remove(OWN)), put()];
    let members = three();
    let whole = directory(&members, &log, 1);
    let (old, ..) = opened(&whole).expect("a healthy directory");
    let (new, new_commit, _) = forced(&whole).expect("a healthy directory");
    let mut seen = [0; 2];
    for stop in 0.. {
        let disk = directory(&members, &log, 1);
        let before = disk.operations();
        disk.stop_after(before + stop);
        let done = forced(&disk).is_ok();
        for cut in [PowerCut::KeepNone, PowerCut::KeepAll].into_iter().chain((0..6).map(PowerCut::Seeded)) {
            let (found, ..) = opened(&disk.crash(cut)).expect("a crash does no damage");
            let is_new = found.entries == new && found.hard_state.commit == new_commit;
            let is_old = found.entries == old.entries && found.hard_state == old.hard_state;
            assert!(is_old || is_new && found.hard_state.term == 4, "after {stop} requests: {found:?}");
            assert!(is_new || !done, "what was done is durable");
            seen[usize::from(is_new)] += 1;
        }
        if done {
            break;
        }
    }
    assert!(seen.iter().all(|count| *count > 10), "both were seen: {seen:?}");
}
