//! Transactions within transactions, on the stacks that serve them.

use basalt_proto::TXN_NESTING_MAX;
use basalt_proto::etcdserverpb::{PutRequest, RangeRequest, RangeResponse, RequestOp, TxnRequest, request_op};
use prost::Message;

use super::super::method::Method;
use super::super::status::{self, Status};
use super::rig::{LIMITS, Rig};
use crate::auth::Caller;
use crate::node::handle::Limits;

/// So many transactions, of which the innermost puts `a`.
fn nested(transactions: usize) -> TxnRequest {
    let around = |op| TxnRequest { success: vec![RequestOp { request: Some(op) }], ..TxnRequest::default() };
    let put = PutRequest { key: "a".into(), ..PutRequest::default() };
    (1..transactions)
        .fold(around(request_op::Request::RequestPut(put)), |inner, _| around(request_op::Request::RequestTxn(inner)))
}

/// Bytes of the answer: nested as deep, it is nothing that prost would decode.
async fn answer_bytes(rig: &Rig, request: &TxnRequest) -> Result<usize, Status> {
    let answer = rig.service.call(Method::Txn, request.encode_to_vec().into(), Caller::Nobody).settled().await;
    answer.map(|chunks| chunks.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_nest_as_deep_as_the_limit_says() {
    let rig = Rig::start_with(Limits { txn_operations_max: 1000, ..LIMITS });
    for transactions in [1, 48, 49, TXN_NESTING_MAX] {
        let bytes = answer_bytes(&rig, &nested(transactions)).await.expect("it is done");
        assert!(bytes > 4 * transactions, "{bytes}");
    }
    let a: RangeResponse =
        rig.call(Method::Range, &RangeRequest { key: "a".into(), ..Default::default() }).await.expect("a range");
    assert_eq!(a.kvs[0].version, 4);
    for transactions in [TXN_NESTING_MAX + 1, 500] {
        assert_eq!(answer_bytes(&rig, &nested(transactions)).await, Err(status::nested_too_deep()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_budget_of_operations_refuses_in_etcds_words() {
    let rig = Rig::start_with(Limits { txn_operations_max: 60, ..LIMITS });
    assert!(answer_bytes(&rig, &nested(60)).await.is_ok());
    assert_eq!(answer_bytes(&rig, &nested(61)).await, Err(status::too_many_ops()));
    // Also where it is nested too deep to be decoded at all.
    assert_eq!(answer_bytes(&rig, &nested(200)).await, Err(status::too_many_ops()));
}
