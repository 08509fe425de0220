//! Requests, one after the other, to the state machine and to the naive model of `tests/src/model.rs`.
//!
//! Every answer is what a plain walk over the model's live keys says, transactions nested in each other too; a refusal changes
//! nothing; in the end both hold the same versions at every revision, the same leases and alarms; and the effects that were
//! recorded, sent through their wire form and installed elsewhere, come to the same sums.

use arbitrary::Unstructured;
use basalt_proto::etcdserverpb::compare::{CompareTarget, TargetUnion};
use basalt_proto::etcdserverpb::request_op::Request as Op;
use basalt_proto::etcdserverpb::{
    AlarmRequest, AlarmType, CompactionRequest, Compare, DeleteRangeRequest, LeaseCheckpoint, LeaseCheckpointRequest,
    LeaseGrantRequest, LeaseRevokeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};
use basalt_proto::log::request::Kind;
use basalt_proto::log::{LogEntry, Request};
use basalt_server::api::checks;
use basalt_server::apply::effects::Effects;
use basalt_server::apply::machine::Machine;
use basalt_server::apply::values::Prefetched;
use basalt_storage::mvcc::key_range::KeyRange;
use basalt_storage::mvcc::range::RangeQuery;
use basalt_storage::mvcc::view::LogPosition;
use basalt_tests::model::Model;
use basalt_tests::opening::empty_store;
use bytes::Bytes;

use super::answers::shown;
use super::naive::{Outcome, expect};
use crate::forge::{below, byte, take};

const REQUESTS_MAX: usize = 40;
const OPERATIONS_MAX: usize = 16;
const DEPTH_MAX: usize = 3;
/// In all shards, some the beginning of others.
const KEYS: [&[u8]; 8] =
    [b"a", b"ab", b"b", b"a\0", b"/registry/events/x", b"/registry/leases/y", b"/registry/pods/z", b"\xff\xff"];
const ENDS: [&[u8]; 6] = [b"", b"\0", b"b", b"c", b"/registry/m", b"a"];

pub(super) fn run(data: &[u8]) {
    let mut feed = Unstructured::new(data);
    let mut pair = Pair::new();
    for _ in 0..REQUESTS_MAX {
        if feed.is_empty() {
            break;
        }
        match below(&mut feed, 20) {
            19 => drop(pair.machine.store_mut().sweep(below(&mut feed, 4))),
            choice => {
                let kind = kind(&mut feed, choice, &pair.model);
                pair.apply(kind);
            }
        }
    }
    pair.compare();
}

struct Pair {
    machine: Machine,
    replica: Machine,
    model: Model,
}

impl Pair {
    fn new() -> Self {
        Self { machine: Machine::new(empty_store()), replica: Machine::new(empty_store()), model: Model::default() }
    }

    fn apply(&mut self, kind: Kind) {
        if !passes(&kind) {
            return;
        }
        let expected = match expect(&mut self.model, &kind) {
            Outcome::Skipped => return,
            Outcome::Refused => None,
            Outcome::Told(revision, told) => Some((revision, told)),
        };
        let position = LogPosition { index: self.machine.store().applied.index + 1, term: 1 };
        let request = Request { id: 5, principal: None, kind: Some(kind.clone()) };
        let entry = LogEntry { format_version: 1, apply_version: 1, requests: vec![request], ..LogEntry::default() };
        let applied = self.machine.apply(position, &entry, &mut Prefetched::default());
        let [(5, answer)] = &applied.answers[..] else { panic!("one request, one answer: {:?}", applied.answers) };
        let found = match answer {
            Ok(answer) => Some((answer.revision(), shown(self.machine.store(), answer))),
            Err(_) => {
                assert!(applied.effects.effects.is_empty(), "a refusal changes nothing: {:?}", applied.effects);
                None
            }
        };
        assert_eq!(found, expected, "{answer:?} to {kind:?}");
        assert_eq!(self.machine.store().revision(), self.model.revision, "after {kind:?}");
        let wire = applied.effects.to_wire();
        self.replica.install(&Effects::from_wire(wire).expect("our own effects"));
    }

    fn compare(&self) {
        let (store, model) = (self.machine.store(), &self.model);
        assert_eq!(store.compact_revision(), model.compact_revision);
        let first = model.compact_revision.max(1);
        for at in (first..=model.revision).rev().take(6) {
            let query = RangeQuery { revision: at, ..RangeQuery::all(KeyRange::ALL) };
            let plan = store.head().plan(&query).expect("neither compacted nor to come");
            let found: Vec<_> = plan.hits.iter().map(|hit| super::answers::version(store, *hit)).collect();
            assert_eq!(found, model.live(at), "at {at} of {}", model.revision);
        }
        let leases = self.machine.leases().iter();
        let leases = leases.map(|(id, lease)| {
            let keys = lease.keys.iter().map(|key| key.to_vec()).collect();
            (id, (lease.ttl, lease.remaining_ttl, keys))
        });
        assert_eq!(leases.collect::<std::collections::BTreeMap<_, _>>(), model.leases());
        assert_eq!(self.replica.store().sums(), store.sums());
        assert_eq!(self.replica.leases(), self.machine.leases());
    }
}

/// Whether the API lets it through.
fn passes(kind: &Kind) -> bool {
    match kind {
        Kind::Put(put) => checks::check_put(put).is_ok(),
        Kind::DeleteRange(delete) => checks::check_delete_range(delete).is_ok(),
        Kind::Txn(txn) => checks::check_txn(txn, OPERATIONS_MAX).is_ok(),
        _ => true,
    }
}

fn kind(feed: &mut Unstructured<'_>, choice: usize, model: &Model) -> Kind {
    match choice {
        0..6 => Kind::Put(put(feed)),
        6..8 => Kind::DeleteRange(delete(feed)),
        8..14 => Kind::Txn(txn(feed, 1, model.revision)),
        14 => Kind::Compaction(CompactionRequest {
            revision: model.revision - below(feed, 8) as i64 + 1,
            physical: false,
        }),
        15 => Kind::LeaseGrant(LeaseGrantRequest { id: lease(feed).max(1), ttl: 1 + below(feed, 9) as i64 }),
        16 => Kind::LeaseRevoke(LeaseRevokeRequest { id: lease(feed).max(1) }),
        17 => {
            let checkpoint = LeaseCheckpoint { id: lease(feed).max(1), remaining_ttl: below(feed, 9) as i64 };
            Kind::LeaseCheckpoint(LeaseCheckpointRequest { checkpoints: vec![checkpoint] })
        }
        _ => {
            let action = 1 + below(feed, 4).min(1) as i32;
            Kind::Alarm(AlarmRequest { action, member_id: 1 + below(feed, 2) as u64, alarm: AlarmType::Nospace as i32 })
        }
    }
}

fn key(feed: &mut Unstructured<'_>) -> Bytes {
    KEYS[below(feed, KEYS.len())].into()
}

fn end(feed: &mut Unstructured<'_>) -> Bytes {
    ENDS[below(feed, ENDS.len())].into()
}

fn lease(feed: &mut Unstructured<'_>) -> i64 {
    below(feed, 4) as i64
}

fn value(feed: &mut Unstructured<'_>) -> Bytes {
    let length = below(feed, 12);
    Bytes::copy_from_slice(take(feed, length))
}

fn put(feed: &mut Unstructured<'_>) -> PutRequest {
    let (key, flags) = (key(feed), byte(feed));
    let (ignore_value, ignore_lease) = (flags & 6 == 6, flags & 24 == 24);
    PutRequest {
        key,
        value: if ignore_value { Bytes::new() } else { value(feed) },
        lease: if ignore_lease || flags & 32 == 0 { 0 } else { lease(feed) },
        prev_kv: flags & 1 == 1,
        ignore_value,
        ignore_lease,
    }
}

fn delete(feed: &mut Unstructured<'_>) -> DeleteRangeRequest {
    DeleteRangeRequest { key: key(feed), range_end: end(feed), prev_kv: byte(feed) & 1 == 1 }
}

fn range(feed: &mut Unstructured<'_>, revision: i64) -> RangeRequest {
    let flags = byte(feed);
    let near = |feed: &mut Unstructured<'_>| (revision + 1 - below(feed, 8) as i64).max(0);
    RangeRequest {
        key: key(feed),
        range_end: end(feed),
        limit: below(feed, 5) as i64 - 1,
        revision: if flags & 1 == 1 { revision + 2 - below(feed, 8) as i64 } else { 0 },
        sort_order: below(feed, 3) as i32,
        sort_target: below(feed, 5) as i32,
        serializable: false,
        keys_only: flags & 2 == 2,
        count_only: flags & 12 == 12,
        min_mod_revision: if flags & 16 == 16 { near(feed) } else { 0 },
        max_mod_revision: if flags & 32 == 32 { near(feed) } else { 0 },
        min_create_revision: if flags & 64 == 64 { near(feed) } else { 0 },
        max_create_revision: if flags & 128 == 128 { near(feed) } else { 0 },
    }
}

fn txn(feed: &mut Unstructured<'_>, depth: usize, revision: i64) -> TxnRequest {
    let compare = (0..below(feed, 3)).map(|_| compare(feed, revision)).collect();
    let branch = |feed: &mut Unstructured<'_>| (0..below(feed, 5)).map(|_| operation(feed, depth, revision)).collect();
    TxnRequest { compare, success: branch(feed), failure: branch(feed) }
}

fn operation(feed: &mut Unstructured<'_>, depth: usize, revision: i64) -> RequestOp {
    let request = match below(feed, 8) {
        0..3 => Op::RequestPut(put(feed)),
        3 => Op::RequestDeleteRange(delete(feed)),
        4..6 => Op::RequestRange(range(feed, revision)),
        _ if depth < DEPTH_MAX => Op::RequestTxn(txn(feed, depth + 1, revision)),
        _ => Op::RequestRange(range(feed, revision)),
    };
    RequestOp { request: Some(request) }
}

/// Also those that etcd knows no meaning of: targets that are none, results that are none, a union of another target.
fn compare(feed: &mut Unstructured<'_>, revision: i64) -> Compare {
    let (target, result) = (below(feed, 6) as i32, below(feed, 5) as i32);
    let number = revision + 1 - below(feed, 6) as i64;
    let union = if byte(feed) & 7 == 7 { below(feed, 6) as i32 } else { target };
    let target_union = match CompareTarget::try_from(union) {
        Ok(CompareTarget::Version) => Some(TargetUnion::Version(number.rem_euclid(4))),
        Ok(CompareTarget::Create) => Some(TargetUnion::CreateRevision(number)),
        Ok(CompareTarget::Mod) => Some(TargetUnion::ModRevision(number)),
        Ok(CompareTarget::Value) => Some(TargetUnion::Value(value(feed))),
        Ok(CompareTarget::Lease) => Some(TargetUnion::Lease(number.rem_euclid(4))),
        Err(_) => None,
    };
    let range_end = if byte(feed) & 3 == 3 { end(feed) } else { Bytes::new() };
    Compare { result, target, key: key(feed), range_end, target_union }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    // Requests of every kind, in the order of their choices.
    let of_choice = |choice: u8| (0..12u8).map(|n| choice.wrapping_add(n.wrapping_mul(37))).collect::<Vec<u8>>();
    let mut seeds: Vec<Vec<u8>> = (0..20).map(of_choice).collect();
    let walk = |step: u8| (0..=255u8).map(|n| n.wrapping_mul(step).rotate_left(3)).collect::<Vec<u8>>();
    seeds.extend([3, 7, 11, 53, 101, 151].map(walk));
    seeds
}
