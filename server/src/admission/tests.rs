use basalt_proto::etcdserverpb::request_op::Request as Op;
use basalt_proto::etcdserverpb::{
    CompactionRequest, Compare, DeleteRangeRequest, LeaseRevokeRequest, PutRequest, RequestOp, TxnRequest,
};
use basalt_proto::log::Request;
use basalt_proto::log::request::Kind;
use basalt_storage::mvcc::shard_map::{ShardId, ShardMap};
use proptest::prelude::*;
use prost::Message;

use super::*;

/// As on a machine with memory to spare.
const DELTA_BYTES_MAX: u64 = 1 << 30;
const MAIN: &str = "/registry/pods/a";
const EVENTS: &str = "/registry/events/a";
const LEASES: &str = "/registry/leases/a";

fn proposal(id: u64, kind: Kind) -> Proposal {
    Proposal::new(Request { id, principal: None, kind: Some(kind) }, &ShardMap::default())
}

fn put(id: u64, key: &'static str, bytes: usize) -> Proposal {
    proposal(id, Kind::Put(PutRequest { key: key.into(), value: vec![7; bytes].into(), ..Default::default() }))
}

fn delete(id: u64, key: &'static str) -> Proposal {
    proposal(id, Kind::DeleteRange(DeleteRangeRequest { key: key.into(), ..Default::default() }))
}

fn put_op(key: &'static str) -> RequestOp {
    RequestOp { request: Some(Op::RequestPut(PutRequest { key: key.into(), ..Default::default() })) }
}

fn shard(number: u32) -> Class {
    Class::of_shard(ShardId(number))
}

#[test]
fn a_request_waits_where_its_first_key_lives() {
    assert_eq!(put(1, MAIN, 1).class, shard(0));
    assert_eq!(put(1, EVENTS, 1).class, shard(1));
    assert_eq!(delete(1, LEASES).class, shard(2));
    let txn = |compare: &[&'static str], success: &[&'static str], failure: &[&'static str]| {
        let compare = compare.iter().map(|key| Compare { key: (*key).into(), ..Default::default() }).collect();
        let ops = |keys: &[&'static str]| keys.iter().map(|key| put_op(key)).collect();
        let txn = TxnRequest { compare, success: ops(success), failure: ops(failure) };
        proposal(1, Kind::Txn(txn))
    };
    assert_eq!(txn(&[EVENTS], &[MAIN, EVENTS], &[LEASES]).class, shard(0));
    assert_eq!(txn(&[EVENTS], &[], &[LEASES, MAIN]).class, shard(2));
    assert_eq!(txn(&[EVENTS], &[], &[]).class, shard(1));
    assert_eq!(txn(&[], &[], &[]).class, Class::CONTROL);
    assert_eq!((txn(&[EVENTS], &[], &[]).grows, txn(&[], &[MAIN], &[]).grows), (false, true));
    let nested = TxnRequest { success: vec![put_op(EVENTS)], ..Default::default() };
    let nested = RequestOp { request: Some(Op::RequestTxn(nested)) };
    let outer = TxnRequest { success: vec![nested], ..Default::default() };
    assert_eq!(proposal(1, Kind::Txn(outer)).class, shard(1));
    for kind in [
        Kind::LeaseRevoke(LeaseRevokeRequest { id: 1 }),
        Kind::Compaction(CompactionRequest { revision: 1, physical: false }),
    ] {
        let proposal = proposal(1, kind);
        assert_eq!((proposal.class, proposal.grows), (Class::CONTROL, false));
    }
}

#[test]
fn a_proposal_weighs_what_it_adds_to_an_entry() {
    let proposal = put(u64::MAX, MAIN, 300);
    let entry = basalt_proto::log::LogEntry { requests: vec![proposal.request], ..Default::default() };
    assert_eq!(entry.encoded_len(), proposal.bytes);
}

/// Of many small parts decoding makes much more than came.
#[test]
fn a_transaction_of_many_parts_waits_with_what_it_takes() {
    let nested =
        TxnRequest { success: vec![put_op(EVENTS); 64], failure: vec![put_op(LEASES); 64], compare: Vec::new() };
    let nested = RequestOp { request: Some(Op::RequestTxn(nested)) };
    let compare = vec![Compare { key: MAIN.into(), ..Default::default() }; 60];
    let outer = TxnRequest { compare, success: vec![nested; 60], failure: Vec::new() };
    let txn = proposal(1, Kind::Txn(outer));
    let parts = 60 * (size_of::<Compare>() + 129 * size_of::<RequestOp>());
    assert_eq!(txn.held_bytes, txn.bytes + parts);
    let gate = Gate::new(3, DELTA_BYTES_MAX);
    let admitted = std::iter::from_fn(|| gate.admit(&txn).ok()).count();
    assert_eq!(admitted, BYTES_WAITING_MAX as usize / txn.held_bytes);
    // What has left is counted in the same way.
    let mut queue = FairQueue::new(3);
    let (class, held_bytes) = (txn.class.position(), txn.held_bytes as u64);
    queue.push(txn);
    queue.take(usize::MAX).expect("it waits");
    assert_eq!(queue.left().nth(class), Some(Totals { proposals: 1, bytes: held_bytes }));
}

#[test]
fn a_flood_of_events_leaves_others_their_turn() {
    let mut queue = FairQueue::new(3);
    for id in 0..4_000 {
        queue.push(put(id, EVENTS, 10_000));
    }
    queue.push(put(5_001, MAIN, 1_000_000));
    queue.push(proposal(5_002, Kind::LeaseRevoke(LeaseRevokeRequest { id: 1 })));
    queue.push(put(5_003, LEASES, 200));
    let (mut bytes, mut passed) = (0, Vec::new());
    while passed.len() < 3 {
        let next = queue.take(usize::MAX).expect("there are more");
        bytes += next.bytes;
        passed.extend((next.request.id > 5_000).then_some(next.request.id));
    }
    assert!(bytes < 2 << 20, "40 MiB of events wait, and {bytes} bytes went before the others");
}

#[test]
fn what_does_not_fit_stays_the_next() {
    let mut queue = FairQueue::new(3);
    queue.push(put(1, MAIN, 1000));
    queue.push(put(2, MAIN, 10));
    assert!(queue.take(500).is_none());
    assert_eq!(queue.take(2000).map(|next| next.request.id), Some(1));
    assert_eq!(queue.take(500).map(|next| next.request.id), Some(2));
    assert!(queue.take(usize::MAX).is_none());
}

#[test]
fn a_full_class_is_refused_alone_and_what_frees_goes_on() {
    let gate = Gate::new(3, DELTA_BYTES_MAX);
    let event = put(1, EVENTS, 1 << 20);
    let mut entered = 0;
    while gate.admit(&event).is_ok() {
        entered += 1;
    }
    assert_eq!(entered, BYTES_WAITING_MAX / event.bytes as u64);
    assert_eq!(gate.admit(&put(2, MAIN, 100)), Ok(()));
    assert_eq!(gate.admit(&delete(3, EVENTS)), Ok(()));
    assert_eq!(gate.load(shard(1)).refused, 1);
    let left = Totals { proposals: 1, bytes: event.bytes as u64 };
    gate.set_left([Totals::default(), Totals::default(), left].into_iter());
    assert_eq!(gate.load(shard(1)).proposals, entered);
    assert_eq!(gate.admit(&event), Ok(()));
    assert_eq!(gate.admit(&event), Err(Full));
}

#[test]
fn a_class_is_bounded_by_number_too_and_what_frees_at_twice_that() {
    let gate = Gate::new(3, DELTA_BYTES_MAX);
    let (event, freeing) = (put(1, EVENTS, 1), delete(2, EVENTS));
    (0..PROPOSALS_WAITING_MAX).for_each(|_| assert_eq!(gate.admit(&event), Ok(())));
    assert_eq!(gate.admit(&event), Err(Full));
    (0..PROPOSALS_WAITING_MAX).for_each(|_| assert_eq!(gate.admit(&freeing), Ok(())));
    assert_eq!(gate.admit(&freeing), Err(Full));
}

#[test]
fn a_shard_that_fills_its_share_of_the_delta_waits_alone() {
    let gate = Gate::new(3, DELTA_BYTES_MAX);
    gate.set_delta_bytes(ShardId(1), DELTA_BYTES_MAX / 4 + 1);
    gate.set_delta_bytes(ShardId(0), DELTA_BYTES_MAX / 2);
    assert_eq!(gate.admit(&put(1, EVENTS, 1)), Err(Full));
    assert_eq!(gate.admit(&delete(2, EVENTS)), Ok(()));
    assert_eq!(gate.admit(&put(3, MAIN, 1)), Ok(()));
    assert_eq!(gate.admit(&put(4, LEASES, 1)), Ok(()));
    assert_eq!(gate.admit(&proposal(5, Kind::Compaction(CompactionRequest::default()))), Ok(()));
}

#[test]
fn dropped_proposals_have_left() {
    let mut queue = FairQueue::new(3);
    (1..=4).for_each(|id| queue.push(put(id, MAIN, 10)));
    assert_eq!(queue.retain(|request| request.id % 2 == 0), 2);
    assert_eq!((queue.len(), queue.left().nth(1).map(|left| left.proposals)), (2, Some(2)));
    let rest: Vec<_> = std::iter::from_fn(|| queue.take(usize::MAX)).map(|next| next.request.id).collect();
    assert_eq!(rest, [2, 4]);
    assert!(queue.is_empty());
}

proptest! {
    #[test]
    fn classes_keep_their_order_and_their_share(arrivals in proptest::collection::vec((0..3u32, 1..200_000usize), 1..200)) {
        let keys = [MAIN, EVENTS, LEASES];
        let mut queue = FairQueue::new(3);
        let mut waiting = [0usize; 3];
        for (id, (shard, bytes)) in (0u64..).zip(&arrivals) {
            queue.push(put(id, keys[*shard as usize], *bytes));
            waiting[*shard as usize] += 1;
        }
        let (mut last, mut brought) = ([None; 3], [0usize; 3]);
        let mut all_wait = waiting.iter().all(|count| *count > 0);
        while let Some(next) = queue.take(usize::MAX) {
            let at = next.class.position() - 1;
            prop_assert!(last[at] < Some(next.request.id), "out of order");
            last[at] = Some(next.request.id);
            waiting[at] -= 1;
            brought[at] += next.bytes;
            all_wait &= waiting.iter().all(|count| *count > 0);
            if all_wait {
                // Twice the weight, twice the bytes, but for a turn and a request of each.
                let slack = 4 * (64 << 10) + 200_100;
                prop_assert!(brought[0] <= 2 * brought[1] + 3 * slack, "{brought:?}");
                prop_assert!(2 * brought[1] <= brought[0] + 3 * slack, "{brought:?}");
                prop_assert!(brought[1] <= brought[2] + 2 * slack, "{brought:?}");
            }
        }
        prop_assert_eq!(waiting, [0; 3]);
        prop_assert!(queue.is_empty());
    }
}
