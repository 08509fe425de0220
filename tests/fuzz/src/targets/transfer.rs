//! The state of a member on its way to another: chunks, each a piece of the input, as a hostile sender would make them; what Raft
//! was told of the snapshot agrees with the head, as it would.
//!
//! What is refused leaves the store that goes on as it was, and nothing beside it. What is taken to its end is installed, opens, and
//! holds no damage.

use std::sync::{Arc, LazyLock};

use basalt_proto::etcdserverpb::{AuthUserAddRequest, DeleteRangeRequest, LeaseGrantRequest, PutRequest};
use basalt_proto::log::request::Kind as RequestKind;
use basalt_proto::log::{LogEntry, Request};
use basalt_proto::snapshot::Chunk;
use basalt_proto::snapshot::chunk::Kind;
use basalt_server::apply::machine::Machine;
use basalt_server::apply::members::Members;
use basalt_server::apply::values::Prefetched;
use basalt_server::transfer::{Expected, MemberSnapshot, Receiving};
use basalt_storage::check::check;
use basalt_storage::checkpoint::recovery::{self, Birth, Opened};
use basalt_storage::checkpoint::{Filled, Salt};
use basalt_storage::disk::SimulatedDisk;
use basalt_storage::job::run as run_job;
use basalt_storage::mvcc::shard_map::ShardMap;
use basalt_storage::mvcc::view::LogPosition;
use basalt_storage::pages::PageCache;
use bytes::Bytes;
use prost::Message;
use raft::prelude::Snapshot;

use super::bbolt::NoDamage;
use crate::forge::{joined, pieces};

const CLUSTER_ID: u64 = 7;

fn cache() -> Arc<PageCache> {
    Arc::new(PageCache::new(1 << 16))
}

fn directory(disk: &SimulatedDisk, member_id: u64) -> Opened {
    let conf_state = Members::single_voter(1).encode().to_vec();
    let birth = Birth {
        cluster_id: CLUSTER_ID,
        member_id,
        incarnation: member_id.into(),
        conf_state,
        shard_map: ShardMap::default(),
    };
    let mut opened = recovery::create(disk, &cache(), Salt::new(1), birth).expect("the disk does not fail");
    recovery::settle(disk, &mut opened.checkpointer).expect("the disk does not fail");
    opened
}

pub(super) fn run(data: &[u8]) {
    let chunks: Vec<Bytes> = pieces(data).into_iter().map(Bytes::copy_from_slice).collect();
    let disk = SimulatedDisk::new(2);
    let opened = directory(&disk, 2);
    let files = disk.files();
    match receive(&disk, &opened, &chunks) {
        Some(filled) => installed(&disk, opened, filled),
        None => {
            assert_eq!(disk.files(), files, "nothing is left");
            let again = recovery::open(&disk, &cache(), Salt::new(3)).expect("as it was").expect("as it was");
            assert_eq!(again.checkpointer.manifest(), opened.checkpointer.manifest());
        }
    }
}

/// What Raft would have been told by the one who sends this head.
fn announced(head: &Bytes) -> Snapshot {
    let mut snapshot = Snapshot::default();
    if let Ok(Chunk { kind: Some(Kind::Head(head)) }) = Chunk::decode(head.clone()) {
        let metadata = snapshot.mut_metadata();
        (metadata.index, metadata.term) = (head.index, head.term);
        if let Ok(members) = Members::decode(&head.members) {
            metadata.set_conf_state(members.conf_state());
        }
    }
    snapshot
}

fn receive(disk: &SimulatedDisk, opened: &Opened, chunks: &[Bytes]) -> Option<Filled> {
    let (head, rest) = chunks.split_first()?;
    let announced = announced(head);
    let expected = Expected { live: opened.checkpointer.manifest(), announced: &announced, seed: 4 };
    let mut receiving = Receiving::begin(disk, &expected, head.clone()).ok()?;
    for chunk in rest {
        match receiving.take(disk, chunk.clone()) {
            Ok(true) => {
                let last = receiving.last();
                let filled = receiving.finish(disk).expect("what arrived whole is written");
                assert_eq!(filled.applied().index, announced.get_metadata().index);
                assert!(last.is_none_or(|last| last.main > 0));
                return Some(filled);
            }
            Ok(false) => {}
            Err(_) => break,
        }
    }
    receiving.discard(disk).expect("the disk does not fail");
    None
}

fn installed(disk: &SimulatedDisk, opened: Opened, filled: Filled) {
    let opened = opened.checkpointer.install(disk, &cache(), filled).expect("what arrived whole is installed");
    assert_eq!(opened.checkpointer.manifest().member_id, 2, "a member keeps its name");
    let machine = Machine::new(opened.store);
    let mut again =
        recovery::open(disk, &cache(), Salt::new(5)).expect("what is installed opens").expect("it is there");
    recovery::settle(disk, &mut again.checkpointer).expect("the disk does not fail");
    let second = Machine::new(again.store);
    assert_eq!(second.store().sums(), machine.store().sums());
    assert_eq!((second.leases(), second.members()), (machine.leases(), machine.members()));
    check(disk, disk, &mut NoDamage).expect("there is something to check");
}

static CHUNKS: LazyLock<Vec<Bytes>> = LazyLock::new(|| {
    let mut machine = Machine::new(directory(&SimulatedDisk::new(1), 1).store);
    let put = |number: usize| {
        let key = ["/registry/pods/", "/registry/events/", "/registry/leases/"][number % 3];
        let lease = if number == 7 { 9 } else { 0 };
        let (key, value) = (Bytes::from(format!("{key}{}", number % 4)), Bytes::from(vec![b'v'; number]));
        RequestKind::Put(PutRequest { key, value, lease, ..PutRequest::default() })
    };
    let user =
        AuthUserAddRequest { name: "ann".into(), hashed_password: "$2a$".into(), ..AuthUserAddRequest::default() };
    let delete = DeleteRangeRequest { key: "/registry/pods/0".into(), ..DeleteRangeRequest::default() };
    let kinds = [RequestKind::LeaseGrant(LeaseGrantRequest { id: 9, ttl: 60 }), RequestKind::UserAdd(user)];
    let kinds = kinds.into_iter().chain((0..12).map(put)).chain([RequestKind::DeleteRange(delete)]);
    for (index, kind) in (1..).zip(kinds) {
        let request = Request { id: index, principal: None, kind: Some(kind) };
        let entry = LogEntry { requests: vec![request], time_unix_ns: 5, ..LogEntry::default() };
        machine.apply(LogPosition { index, term: 3 }, &entry, &mut Prefetched::default());
    }
    let disk = SimulatedDisk::new(0);
    let mut stream = MemberSnapshot::of(&machine, CLUSTER_ID).stream(None);
    let next = || run_job(&mut stream.next_chunk(), &disk, 3).expect("all is in memory");
    std::iter::from_fn(next).collect()
});

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let chunks = &*CHUNKS;
    assert!(chunks.len() > 3, "a head, records, revisions and an end");
    let end = chunks[chunks.len() - 1].clone();
    vec![
        joined(chunks),
        joined(&chunks[..chunks.len() - 1]),
        joined([&chunks[0], &end]),
        joined([&chunks[0], &chunks[2], &chunks[1], &end]),
        joined([&chunks[1]]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_taken_to_its_end() {
        let disk = SimulatedDisk::new(2);
        let opened = directory(&disk, 2);
        assert!(receive(&disk, &opened, &CHUNKS).is_some());
    }
}
