//! Transactions that only read, answered without the log: as the log would answer them.

use basalt_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use basalt_proto::etcdserverpb::{
    AlarmRequest, AlarmResponse, AlarmType, CompactionRequest, CompactionResponse, Compare, DeleteRangeRequest,
    DeleteRangeResponse, LeaseGrantRequest, LeaseGrantResponse, PutRequest, PutResponse, RangeRequest, RequestOp,
    TxnRequest, TxnResponse, alarm_request, request_op,
};
use basalt_proto::log::request::Kind;
use prost::Message;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::super::method::Method;
use super::super::status::Status;
use super::rig::Rig;
use crate::apply::query::is_read_only;
use crate::auth::Caller;

const KEYS: [&str; 6] = ["a", "b", "c", "d", "/registry/events/x", "/registry/leases/y"];

fn key(random: &mut StdRng) -> bytes::Bytes {
    KEYS[random.random_range(0..KEYS.len())].into()
}

/// None, up to a key, or all.
fn range_end(random: &mut StdRng) -> bytes::Bytes {
    match random.random_range(0..4) {
        0 => "c".into(),
        1 => bytes::Bytes::from_static(&[0]),
        _ => bytes::Bytes::new(),
    }
}

fn compare(random: &mut StdRng) -> Compare {
    let number = random.random_range(0..8);
    let (target, target_union) = match random.random_range(0..6) {
        0 => (CompareTarget::Version as i32, TargetUnion::Version(number % 3)),
        1 => (CompareTarget::Create as i32, TargetUnion::CreateRevision(number)),
        2 => (CompareTarget::Mod as i32, TargetUnion::ModRevision(number)),
        3 => (CompareTarget::Lease as i32, TargetUnion::Lease(number % 2 * 7)),
        // Of another target's kind; and a target that nobody knows.
        4 => (random.random_range(0..6), TargetUnion::Version(number)),
        _ => (CompareTarget::Value as i32, TargetUnion::Value(format!("{}", number % 2).into())),
    };
    let result = random.random_range(0..=CompareResult::NotEqual as i32 + 1);
    let target_union = random.random_bool(0.9).then_some(target_union);
    Compare { result, target, key: key(random), target_union, range_end: range_end(random) }
}

fn range(random: &mut StdRng) -> RequestOp {
    let request = RangeRequest {
        key: key(random),
        range_end: range_end(random),
        limit: random.random_range(0..3),
        revision: if random.random_bool(0.5) { random.random_range(-1..16) } else { 0 },
        sort_order: random.random_range(0..3),
        sort_target: random.random_range(0..5),
        serializable: random.random_bool(0.5),
        keys_only: random.random_bool(0.2),
        count_only: random.random_bool(0.2),
        min_mod_revision: if random.random_bool(0.2) { random.random_range(0..8) } else { 0 },
        ..RangeRequest::default()
    };
    RequestOp { request: Some(request_op::Request::RequestRange(request)) }
}

fn many<T>(random: &mut StdRng, of: fn(&mut StdRng) -> T) -> Vec<T> {
    (0..random.random_range(0..3)).map(|_| of(random)).collect()
}

/// Keys put twice, deleted, with and without lease; some of it compacted.
async fn fill(rig: &Rig) {
    let _: LeaseGrantResponse =
        rig.call(Method::LeaseGrant, &LeaseGrantRequest { ttl: 1000, id: 7 }).await.expect("a lease");
    for (at, key) in KEYS.into_iter().enumerate() {
        let lease = if at % 2 == 0 { 7 } else { 0 };
        let put = PutRequest { key: key.into(), value: (at % 2).to_string().into(), lease, ..Default::default() };
        let _: PutResponse = rig.call(Method::Put, &put).await.expect("a put");
    }
    rig.put("b", "0").await;
    rig.put("/registry/leases/y", "1").await;
    let delete = DeleteRangeRequest { key: "c".into(), ..Default::default() };
    let _: DeleteRangeResponse = rig.call(Method::DeleteRange, &delete).await.expect("a delete");
    let compact = CompactionRequest { revision: 4, physical: false };
    let _: CompactionResponse = rig.call(Method::Compact, &compact).await.expect("a compaction");
}

async fn through_the_log(rig: &Rig, request: TxnRequest) -> Result<TxnResponse, Status> {
    let answer = rig.service.propose(Kind::Txn(request), &Caller::Nobody).settled().await;
    Ok(TxnResponse::decode(&*answer?.into_pieces().concat()).expect("an answer"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_would_answer_the_same() {
    let rig = Rig::start();
    fill(&rig).await;
    let mut random = StdRng::seed_from_u64(11);
    let (mut taken, mut refused) = ([0, 0], 0);
    for case in 0..1200 {
        if case == 600 {
            rig.service.node.checkpoint().await.expect("a checkpoint");
        }
        let request = TxnRequest {
            compare: many(&mut random, compare),
            success: many(&mut random, range),
            failure: many(&mut random, range),
        };
        assert!(is_read_only(&request));
        let direct: Result<TxnResponse, Status> = rig.call(Method::Txn, &request).await;
        match &direct {
            Ok(answer) => taken[usize::from(answer.succeeded)] += 1,
            Err(_) => refused += 1,
        }
        assert_eq!(direct, through_the_log(&rig, request.clone()).await, "case {case}: {request:?}");
    }
    assert!(taken[0] > 100 && taken[1] > 100 && refused > 50, "{taken:?} {refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_adds_nothing_to_the_log_and_no_alarm_refuses_it() {
    let rig = Rig::start();
    fill(&rig).await;
    for alarm in [AlarmType::Nospace, AlarmType::Corrupt] {
        let action = alarm_request::AlarmAction::Activate as i32;
        let _: AlarmResponse = rig
            .call(Method::Alarm, &AlarmRequest { action, member_id: 2, alarm: alarm as i32 })
            .await
            .expect("an alarm");
    }
    let applied = rig.service.node.view().applied;
    let mut random = StdRng::seed_from_u64(1);
    let request = TxnRequest { compare: vec![compare(&mut random)], success: Vec::new(), failure: Vec::new() };
    let read: TxnResponse = rig.call(Method::Txn, &request).await.expect("compares alone");
    assert_eq!(read.header.expect("a header").revision, rig.service.node.view().revision);
    assert_eq!(rig.service.node.view().applied, applied);
    // One that holds another is none (etcd-contract 9).
    let nested = RequestOp { request: Some(request_op::Request::RequestTxn(TxnRequest::default())) };
    let request = TxnRequest { success: vec![nested], ..TxnRequest::default() };
    let refused: Result<TxnResponse, Status> = rig.call(Method::Txn, &request).await;
    assert_eq!(refused, Err(super::super::status::corrupt()));
}
