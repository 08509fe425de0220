//! What is accepted before the log must be readable from it.

use basalt_proto::etcdserverpb::request_op::Request as Op;
use basalt_proto::etcdserverpb::{PutRequest, RequestOp, TxnRequest};
use basalt_proto::log::{LogEntry, Request, request};
use basalt_proto::{TXN_NESTING_MAX, effects};
use bytes::Bytes;
use prost::Message;

fn txn_nested(levels: usize) -> TxnRequest {
    let branch = |op| TxnRequest { success: vec![RequestOp { request: Some(op) }], ..TxnRequest::default() };
    let put = PutRequest { key: Bytes::from_static(b"k"), ..PutRequest::default() };
    (1..levels).fold(branch(Op::RequestPut(put)), |inner, _| branch(Op::RequestTxn(inner)))
}

fn entry_of(txn: TxnRequest) -> LogEntry {
    let request = Request { id: 1, principal: None, kind: Some(request::Kind::Txn(txn)) };
    LogEntry { format_version: 1, apply_version: 1, proposer: 7, time_unix_ns: -1, requests: vec![request] }
}

#[test]
fn the_deepest_transaction_comes_back_from_the_log() {
    let entry = entry_of(txn_nested(TXN_NESTING_MAX));
    assert_eq!(LogEntry::decode(entry.encode_to_vec().as_slice()), Ok(entry));
}

/// The reason for the limit: were this to pass, the limit could go.
#[test]
fn a_deeper_transaction_is_read_from_its_client_and_lost_in_the_log() {
    let txn = txn_nested(TXN_NESTING_MAX + 2);
    assert_eq!(TxnRequest::decode(txn.encode_to_vec().as_slice()).as_ref(), Ok(&txn));
    assert!(LogEntry::decode(entry_of(txn).encode_to_vec().as_slice()).is_err());
}

#[test]
fn a_kind_of_a_newer_release_reads_as_none() {
    // Field 500, a message of no bytes.
    let newer = [0xa2, 0x1f, 0];
    assert_eq!(Request::decode(newer.as_slice()).map(|request| request.kind), Ok(None));
    assert_eq!(effects::Effect::decode(newer.as_slice()).map(|effect| effect.kind), Ok(None));
}
