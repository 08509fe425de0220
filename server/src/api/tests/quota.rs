//! The quota comes before whatever else may be wrong with a request, as in etcd (`v3rpc/quota.go`).

use basalt_proto::etcdserverpb::{
    AlarmRequest, AlarmResponse, LeaseGrantRequest, LeaseGrantResponse, PutRequest, PutResponse, RangeRequest,
    RequestOp, TxnRequest, TxnResponse, request_op,
};

use super::super::method::Method;
use super::super::status;
use super::rig::{LIMITS, Rig};
use crate::node::handle::Limits;

fn put(key: &'static str) -> request_op::Request {
    request_op::Request::RequestPut(PutRequest { key: key.into(), ..PutRequest::default() })
}

fn txn(ops: Vec<request_op::Request>) -> TxnRequest {
    let success = ops.into_iter().map(|op| RequestOp { request: Some(op) }).collect();
    TxnRequest { success, ..TxnRequest::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_request_is_told_within_the_quota_alone() {
    let (free, full) = (Rig::start(), Rig::start_with(Limits { quota_bytes: 1, ..LIMITS }));
    let keyless = PutRequest::default();
    let put_at = async |rig: &Rig| rig.call::<PutResponse>(Method::Put, &keyless).await.map(drop);
    assert_eq!(put_at(&free).await, Err(status::empty_key()));
    assert_eq!(put_at(&full).await, Err(status::no_space()));
    let alarms: AlarmResponse = full.call(Method::Alarm, &AlarmRequest::default()).await.expect("a list");
    assert_eq!(alarms.alarms.len(), 1, "it arms the alarm all the same");

    let txn_at = async |rig: &Rig, txn: &TxnRequest| rig.call::<TxnResponse>(Method::Txn, txn).await.map(drop);
    for (request, wrong) in [
        (txn(vec![put("")]), status::empty_key()),
        (txn(vec![put("a"), put("a")]), status::duplicate_key()),
        (txn((0..129).map(|_| put("a")).collect()), status::too_many_ops()),
    ] {
        assert_eq!(txn_at(&free, &request).await, Err(wrong));
        assert_eq!(txn_at(&full, &request).await, Err(status::no_space()));
    }
    // One that stores nothing is let through to what is wrong with it.
    let reading = txn(vec![request_op::Request::RequestRange(RangeRequest::default())]);
    assert_eq!(txn_at(&full, &reading).await, Err(status::empty_key()));
    let endless = LeaseGrantRequest { ttl: i64::MAX, ..LeaseGrantRequest::default() };
    let grant_at = async |rig: &Rig| rig.call::<LeaseGrantResponse>(Method::LeaseGrant, &endless).await.map(drop);
    assert_eq!(grant_at(&free).await, Err(status::lease_ttl_too_large()));
    assert_eq!(grant_at(&full).await, Err(status::no_space()));
}
