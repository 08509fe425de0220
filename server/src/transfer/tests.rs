//! A state goes over and comes out the same, in one stream or in several; what is wrong with it is refused.

use std::error::Error;
use std::sync::Arc;

use basalt_proto::etcdserverpb::{LeaseGrantRequest, PutRequest};
use basalt_proto::log::request::Kind as RequestKind;
use basalt_proto::log::{LogEntry, Request};
use basalt_proto::snapshot::chunk::Kind;
use basalt_proto::snapshot::{Chunk, End, Record, Records};
use basalt_storage::checkpoint::recovery::{self, Birth, Opened};
use basalt_storage::checkpoint::{Filled, Salt};
use basalt_storage::disk::{Disk, PowerCut, SimulatedDisk};
use basalt_storage::hashes::{HashKv, HashKvJob, HashPurpose};
use basalt_storage::job::{BUDGET_UNLIMITED, run};
use basalt_storage::mvcc::shard_map::ShardMap;
use basalt_storage::mvcc::system::Table;
use basalt_storage::mvcc::view::{LogPosition, View};
use basalt_storage::pages::PageCache;
use bytes::Bytes;
use prost::Message;

use super::*;
use crate::apply::downgrade::Downgrade;
use crate::apply::machine::Machine;
use crate::apply::members::Members;
use crate::apply::values::Prefetched;

fn cache() -> Arc<PageCache> {
    Arc::new(PageCache::new(1 << 20))
}

fn directory(disk: &SimulatedDisk, member_id: u64) -> Opened {
    let conf_state = Members::single_voter(member_id).encode().to_vec();
    let birth =
        Birth { cluster_id: 7, member_id, incarnation: member_id.into(), conf_state, shard_map: ShardMap::default() };
    recovery::create(disk, &cache(), Salt::new(1), birth).expect("the disk does not fail")
}

fn apply(machine: &mut Machine, kind: RequestKind) {
    let index = machine.store().applied.index + 1;
    let request = Request { id: index, principal: None, kind: Some(kind) };
    let entry = LogEntry { requests: vec![request], time_unix_ns: 5, ..LogEntry::default() };
    machine.apply(LogPosition { index, term: 3 }, &entry, &mut Prefetched::default());
}

/// A member with keys of all shards, long values among them, and a lease.
pub(crate) fn sender() -> Machine {
    let mut machine = Machine::new(directory(&SimulatedDisk::new(1), 1).store);
    apply(&mut machine, RequestKind::LeaseGrant(LeaseGrantRequest { id: 9, ttl: 60 }));
    for number in 0..40 {
        let key = ["/registry/pods/", "/registry/events/", "/registry/leases/"][number % 3];
        let key = Bytes::from(format!("{key}{}", number % 12));
        let value = Bytes::from(vec![b'v'; 100_000 * (number % 2)]);
        let lease = if number == 7 { 9 } else { 0 };
        apply(&mut machine, RequestKind::Put(PutRequest { key, value, lease, ..PutRequest::default() }));
    }
    machine
}

pub(crate) fn chunks(snapshot: &MemberSnapshot, after: Option<basalt_storage::revision::Revision>) -> Vec<Bytes> {
    let disk = SimulatedDisk::new(0);
    let mut stream = snapshot.stream(after);
    let next = || run(&mut stream.next_chunk(), &disk, 3).expect("all is in memory");
    std::iter::from_fn(next).collect()
}

/// A member without data.
pub(crate) fn receiver_of(disk: &SimulatedDisk) -> Opened {
    let mut opened = directory(disk, 2);
    recovery::settle(disk, &mut opened.checkpointer).expect("the disk does not fail");
    opened
}

struct Receiver {
    disk: SimulatedDisk,
    opened: Opened,
}

impl Receiver {
    fn new() -> Self {
        let disk = SimulatedDisk::new(2);
        let opened = receiver_of(&disk);
        Self { disk, opened }
    }

    fn begin(&self, snapshot: &MemberSnapshot, head: Bytes) -> Result<Receiving, ReceiveError> {
        let announced = snapshot.raft_snapshot();
        let expected = Expected { live: self.opened.checkpointer.manifest(), announced: &announced, seed: 4 };
        Receiving::begin(&self.disk, &expected, head)
    }

    /// The first thing that is wrong with these chunks.
    fn refuses(&self, snapshot: &MemberSnapshot, chunks: Vec<Bytes>) -> Option<ReceiveError> {
        let mut chunks = chunks.into_iter();
        let mut receiving = match self.begin(snapshot, chunks.next().unwrap_or_default()) {
            Ok(receiving) => receiving,
            Err(refused) => return Some(refused),
        };
        chunks.find_map(|chunk| receiving.take(&self.disk, chunk).err())
    }

    fn install(self, filled: Filled) -> (SimulatedDisk, Opened) {
        let opened = self.opened.checkpointer.install(&self.disk, &cache(), filled).expect("the disk does not fail");
        (self.disk, opened)
    }
}

fn hash(view: View, disk: &dyn Disk) -> HashKv {
    let (view, at) = (Arc::new(view), 0);
    let compacted = view.compact_revision;
    run(&mut HashKvJob::new(view, at, compacted, HashPurpose::Request), disk, BUDGET_UNLIMITED).expect("readable")
}

fn assert_same(sender: &Machine, disk: &SimulatedDisk, opened: Opened) {
    assert_eq!(opened.checkpointer.manifest().member_id, 2, "a member keeps its name");
    assert!(opened.checkpointer.manifest().log_restarts);
    let machine = Machine::new(opened.store);
    assert_eq!(machine.store().sums(), sender.store().sums());
    assert_eq!(machine.store().applied, sender.store().applied);
    assert_eq!(machine.store().time_unix_ns, sender.store().time_unix_ns);
    assert_eq!(machine.leases(), sender.leases());
    assert_eq!(machine.members(), sender.members());
    let memory = SimulatedDisk::new(0);
    assert_eq!(hash(machine.store().head(), disk), hash(sender.store().head(), &memory));
}

#[test]
fn a_state_comes_out_as_it_was_and_a_start_finds_it() {
    let (sender, receiver) = (sender(), Receiver::new());
    let snapshot = MemberSnapshot::of(&sender, 7);
    let mut chunks = chunks(&snapshot, None).into_iter();
    let mut receiving = receiver.begin(&snapshot, chunks.next().expect("a head")).expect("it belongs here");
    let ends: Vec<bool> = chunks.map(|chunk| receiving.take(&receiver.disk, chunk).expect("it is sound")).collect();
    assert_eq!(ends.iter().position(|end| *end), Some(ends.len() - 1));
    assert!(ends.len() > 3, "in several pieces");
    let filled = receiving.finish(&receiver.disk).expect("there is space");
    let (disk, opened) = receiver.install(filled);
    assert_same(&sender, &disk, opened);
    let mut again = recovery::open(&disk, &cache(), Salt::new(5)).expect("readable").expect("there");
    recovery::settle(&disk, &mut again.checkpointer).expect("the disk does not fail");
    assert_same(&sender, &disk, again);
    let pages = disk.files().into_iter().filter(|name| name.starts_with("pages/")).count();
    assert_eq!(pages, 3, "nothing of the old state is left: {:?}", disk.files());
}

#[test]
fn a_stream_that_was_cut_off_goes_on() {
    let (sender, receiver) = (sender(), Receiver::new());
    let snapshot = MemberSnapshot::of(&sender, 7);
    let all = chunks(&snapshot, None);
    for cut in 1..all.len() {
        let mut receiving = receiver.begin(&snapshot, all[0].clone()).expect("it belongs here");
        for chunk in &all[1..cut] {
            receiving.take(&receiver.disk, chunk.clone()).expect("it is sound");
        }
        // Without a revision nobody can say whether all records came: it begins anew.
        if let Some(last) = receiving.last() {
            let rest = chunks(&snapshot, Some(last));
            receiving.go_on(rest[0].clone()).expect("the same snapshot");
            for chunk in &rest[1..] {
                receiving.take(&receiver.disk, chunk.clone()).expect("it is sound");
            }
            receiving.finish(&receiver.disk).expect("whole").discard(&receiver.disk).expect("the disk does not fail");
        }
    }
    assert_eq!(receiver.disk.files().iter().filter(|name| name.starts_with("runs/")).count(), 0);
}

#[test]
fn what_does_not_belong_here_is_refused() {
    let (sender, receiver) = (sender(), Receiver::new());
    let snapshot = MemberSnapshot::of(&sender, 7);
    let refused = |chunks: Vec<Bytes>| receiver.refuses(&snapshot, chunks).map(|refused| refused.to_string());
    let sound = chunks(&snapshot, None);
    assert_eq!(refused(sound.clone()), None);
    let foreign = MemberSnapshot::of(&sender, 8);
    assert!(matches!(
        receiver.refuses(&snapshot, chunks(&foreign, None)),
        Some(ReceiveError::Cluster { own: 7, found: 8 })
    ));
    let with_head = |change: &dyn Fn(&mut basalt_proto::snapshot::Head)| {
        let mut chunks = sound.clone();
        let Some(Kind::Head(mut head)) = Chunk::decode(chunks[0].clone()).expect("it is one").kind else {
            unreachable!("it begins with a head")
        };
        change(&mut head);
        chunks[0] = Chunk { kind: Some(Kind::Head(head)) }.encode_to_vec().into();
        refused(chunks)
    };
    assert!(with_head(&|head| head.format_version = 2).is_some());
    assert!(with_head(&|head| head.index += 1).is_some());
    assert!(with_head(&|head| head.system_sum = Bytes::from_static(b"short")).is_some());
    assert!(with_head(&|head| head.shards[0].prefixes = vec![Bytes::from_static(b"no slash")]).is_some());
    assert!(with_head(&|head| head.members = Members::single_voter(3).encode()).is_some());
    assert!(with_head(&|head| head.revision = 3).is_some(), "revisions above the last");
    assert!(with_head(&|head| head.compact_revision = i64::MAX).is_some());

    let with_downgrade = |to: &'static str| {
        let key = [&[Table::Cluster as u8], Downgrade::default().record().0].concat().into();
        let records = Records { records: vec![Record { key, value: to.into() }] };
        let mut chunks = sound.clone();
        chunks.insert(1, Chunk { kind: Some(Kind::Records(records)) }.encode_to_vec().into());
        refused(chunks).is_some_and(|refused| refused.contains("a downgrade that this release knows nothing of"))
    };
    assert!(with_downgrade("3.5.0") && with_downgrade("x") && !with_downgrade("3.6.0"));

    let mut without_one = sound.clone();
    without_one.remove(2);
    assert!(refused(without_one).is_some(), "a chunk is missing");
    let mut twice = sound.clone();
    twice.insert(2, sound[2].clone());
    assert!(refused(twice).is_some(), "a chunk came twice");
    assert!(refused(vec![Bytes::from_static(b"\xff")]).is_some());
    let end: Bytes = Chunk { kind: Some(Kind::End(End { revisions: 1 })) }.encode_to_vec().into();
    assert!(refused(vec![sound[0].clone(), end]).is_some());
}

#[test]
fn no_flipped_byte_makes_a_panic() {
    let (sender, receiver) = (sender(), Receiver::new());
    let snapshot = MemberSnapshot::of(&sender, 7);
    let sound = chunks(&snapshot, None);
    for chunk in 0..sound.len() {
        for byte in (0..sound[chunk].len()).step_by(sound[chunk].len() / 24 + 1) {
            let mut bytes = sound[chunk].to_vec();
            bytes[byte] ^= 0x55;
            let mut flipped = sound.clone();
            flipped[chunk] = bytes.into();
            // Parts carry a checksum: here it is enough that nothing stops the program.
            drop(receiver.refuses(&snapshot, flipped));
        }
    }
}

/// All that a member does with a state; fails where the disk stops.
fn receive(disk: &SimulatedDisk, snapshot: &MemberSnapshot, chunks: &[Bytes]) -> Result<Opened, Box<dyn Error>> {
    let mut opened = recovery::open(disk, &cache(), Salt::new(5))?.expect("it was born");
    recovery::settle(disk, &mut opened.checkpointer)?;
    let announced = snapshot.raft_snapshot();
    let expected = Expected { live: opened.checkpointer.manifest(), announced: &announced, seed: 4 };
    let mut receiving = Receiving::begin(disk, &expected, chunks[0].clone())?;
    for chunk in &chunks[1..] {
        receiving.take(disk, chunk.clone())?;
    }
    let filled = receiving.finish(disk)?;
    let mut opened = opened.checkpointer.install(disk, &cache(), filled)?;
    opened.checkpointer.remove_retired(disk)?;
    Ok(opened)
}

/// Stopped at each request, then a power cut: the old state or the new one, and nothing else is left of either.
#[test]
fn a_stop_at_any_point_leaves_the_old_state_or_the_new_one() {
    let sender = sender();
    let snapshot = MemberSnapshot::of(&sender, 7);
    let chunks = chunks(&snapshot, None);
    let born = || {
        let disk = SimulatedDisk::new(2);
        recovery::settle(&disk, &mut directory(&disk, 2).checkpointer).expect("the disk does not fail");
        disk.restart()
    };
    let whole = born();
    let before = whole.operations();
    receive(&whole, &snapshot, &chunks).expect("the disk does not fail");
    let requests = whole.operations() - before;
    assert!(requests > 40, "{requests}");
    let (mut old, mut new) = (0, 0);
    for stop in 0..requests {
        let disk = born();
        disk.stop_after(disk.operations() + stop);
        assert!(receive(&disk, &snapshot, &chunks).is_err(), "stop {stop}");
        for disk in [disk.crash(PowerCut::KeepNone), disk.crash(PowerCut::Seeded(stop)), disk.restart()] {
            let mut opened = recovery::open(&disk, &cache(), Salt::new(6)).expect("readable").expect("it was born");
            recovery::settle(&disk, &mut opened.checkpointer).expect("the disk does not fail");
            let named = opened.checkpointer.manifest().shards.len();
            let pages = disk.files().into_iter().filter(|name| name.starts_with("pages/")).count();
            assert_eq!(pages, named, "stop {stop}: {:?}", disk.files());
            if opened.store.applied == LogPosition::default() {
                old += 1;
                assert_eq!(opened.store.revision(), 1);
                let opened = receive(&disk, &snapshot, &chunks).expect("the next attempt");
                assert_same(&sender, &disk, opened);
            } else {
                new += 1;
                assert_same(&sender, &disk, opened);
            }
        }
    }
    assert!(old > 0 && new > 0, "{old} {new}");
}
