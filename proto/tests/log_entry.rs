//! What is accepted before the log must be readable from it.

use basalt_proto::etcdserverpb::request_op::Request as Op;
use basalt_proto::etcdserverpb::{PutRequest, RequestOp, TxnRequest};
use basalt_proto::log::{LogEntry, Request, request};
use basalt_proto::nesting::{NestingError, decode_log_entry, decode_txn};
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
    LogEntry { format_version: 1, apply_version: 1, proposer: 7, time_unix_ns: -1, requests: vec![request], round: 9 }
}

#[test]
fn the_deepest_transaction_comes_back_from_client_and_log() {
    for levels in [1, 2, 40, 49, 50, 51, TXN_NESTING_MAX] {
        let txn = txn_nested(levels);
        assert_eq!(decode_txn(txn.encode_to_vec().into()).as_ref(), Ok(&txn), "{levels}");
        let entry = entry_of(txn);
        assert_eq!(decode_log_entry(entry.encode_to_vec().into()), Ok(entry), "{levels}");
    }
}

/// Why prost alone does not do.
#[test]
fn prost_alone_reads_from_a_client_what_it_loses_in_the_log() {
    let txn = txn_nested(50);
    assert_eq!(TxnRequest::decode(txn.encode_to_vec().as_slice()).as_ref(), Ok(&txn));
    assert!(LogEntry::decode(entry_of(txn).encode_to_vec().as_slice()).is_err());
}

#[test]
fn a_deeper_transaction_is_refused_and_so_is_what_only_looks_deep() {
    let deeper = txn_nested(TXN_NESTING_MAX + 1);
    assert_eq!(decode_txn(deeper.encode_to_vec().into()), Err(NestingError::TooDeep));
    // Deeper than any stack: beginnings of groups, and of transactions without an end.
    assert!(decode_txn(vec![0x0b; 1 << 20].into()).is_err());
    let mut bytes = Vec::new();
    for _ in 0..100_000 {
        let mut op = vec![0x22];
        prost::encode_length_delimiter(bytes.len(), &mut op).expect("a vector takes it");
        op.extend_from_slice(&bytes);
        let mut txn = vec![0x12];
        prost::encode_length_delimiter(op.len(), &mut txn).expect("a vector takes it");
        txn.extend_from_slice(&op);
        bytes = txn;
        if bytes.len() > 4096 {
            break;
        }
    }
    assert_eq!(decode_txn(bytes.into()), Err(NestingError::TooDeep));
}

#[test]
fn the_walk_by_hand_reads_as_prost_does() {
    let op = |request: Op| RequestOp { request: Some(request) }.encode_to_vec();
    let put = |key: &'static str| op(Op::RequestPut(PutRequest { key: key.into(), ..PutRequest::default() }));
    let nested = |levels: usize| op(Op::RequestTxn(txn_nested(levels)));
    let field = |number: u8, payload: &[u8]| {
        let mut bytes = vec![number << 3 | 2];
        prost::encode_length_delimiter(payload.len(), &mut bytes).expect("a vector takes it");
        bytes.extend_from_slice(payload);
        bytes
    };
    // Several of a kind, the last counts; pieces of one; unknown fields of all wire types.
    let unknown =
        [0xf8, 0x01, 0x96, 0x01, 0xf9, 0x01, 1, 2, 3, 4, 5, 6, 7, 8, 0xfd, 0x01, 1, 2, 3, 4, 0xfa, 0x01, 1, 9];
    let odd = [
        field(2, &[put("a"), put("b")].concat()),
        field(2, &[put("a"), nested(2)].concat()),
        field(3, &[nested(2), nested(1)].concat()),
        field(2, &[nested(2), put("a"), unknown.to_vec()].concat()),
        unknown.to_vec(),
        field(2, &[]),
    ];
    for bytes in odd.iter().cloned().chain([odd.concat()]) {
        let shallow = TxnRequest::decode(bytes.as_slice()).expect("prost reads it");
        // The same beside a branch that prost does not follow.
        let both = [bytes, field(3, &nested(60))].concat();
        assert!(TxnRequest::decode(both.as_slice()).is_err());
        let mut read = decode_txn(both.into()).expect("we read it");
        assert_eq!(read.failure.pop().map(|op| op.encode_to_vec()), Some(nested(60)));
        assert_eq!(read, shallow);
    }
}

#[test]
fn a_kind_of_a_newer_release_reads_as_none() {
    // Field 500, a message of no bytes.
    let newer = [0xa2, 0x1f, 0];
    assert_eq!(Request::decode(newer.as_slice()).map(|request| request.kind), Ok(None));
    assert_eq!(effects::Effect::decode(newer.as_slice()).map(|effect| effect.kind), Ok(None));
}
