//! Messages as clients and members send them. The first byte says which.
//!
//! What decodes encodes to as many bytes as it says, and these decode to the same. A transaction is read by hand where it nests
//! deep, and by prost where it does not: both read the same, and refuse the same. What is checked before the log is checked by
//! a second, naive look.

use std::collections::BTreeSet;
use std::fmt::Debug;

use basalt_proto::etcdserverpb as pb;
use basalt_proto::etcdserverpb::request_op::Request as Op;
use basalt_proto::nesting::{NestingError, decode_log_entry, decode_txn};
use basalt_proto::{TXN_NESTING_MAX, effects, log, members, peer, snapshot, v3electionpb, v3lockpb};
use basalt_server::api::checks;
use basalt_server::apply::effects::Effects;
use basalt_server::apply::known;
use basalt_server::apply::members::Members;
use bytes::Bytes;
use prost::Message;

/// As `--max-txn-ops` has it by default.
const OPERATIONS_MAX: usize = 128;
/// Transactions put around one, so that prost gives up.
const DEEP: usize = 60;

type Kind = (&'static str, fn(Bytes));

const KINDS: &[Kind] = &[
    ("Txn", transaction),
    ("LogEntry", log_entry),
    ("EffectBatch", effect_batch),
    ("Membership", membership),
    ("Range", |bytes| _ = again::<pb::RangeRequest>(bytes).map(|range| checks::check_range_stream(&range).is_ok())),
    ("Put", |bytes| _ = again::<pb::PutRequest>(bytes).map(|put| checks::check_put(&put).is_ok())),
    ("DeleteRange", |bytes| {
        _ = again::<pb::DeleteRangeRequest>(bytes).map(|it| checks::check_delete_range(&it).is_ok())
    }),
    ("Compaction", just::<pb::CompactionRequest>),
    ("HashKV", just::<pb::HashKvRequest>),
    ("Watch", just::<pb::WatchRequest>),
    ("LeaseGrant", just::<pb::LeaseGrantRequest>),
    ("LeaseRevoke", just::<pb::LeaseRevokeRequest>),
    ("LeaseCheckpoint", just::<pb::LeaseCheckpointRequest>),
    ("LeaseKeepAlive", just::<pb::LeaseKeepAliveRequest>),
    ("LeaseTimeToLive", just::<pb::LeaseTimeToLiveRequest>),
    ("MemberAdd", just::<pb::MemberAddRequest>),
    ("MemberUpdate", just::<pb::MemberUpdateRequest>),
    ("Alarm", just::<pb::AlarmRequest>),
    ("Downgrade", just::<pb::DowngradeRequest>),
    ("Authenticate", just::<pb::AuthenticateRequest>),
    ("UserAdd", just::<pb::AuthUserAddRequest>),
    ("RoleGrantPermission", just::<pb::AuthRoleGrantPermissionRequest>),
    ("RangeResponse", just::<pb::RangeResponse>),
    ("TxnResponse", just::<pb::TxnResponse>),
    ("WatchResponse", just::<pb::WatchResponse>),
    ("Lock", just::<v3lockpb::LockRequest>),
    ("Campaign", just::<v3electionpb::CampaignRequest>),
    ("Proclaim", just::<v3electionpb::ProclaimRequest>),
    ("Deliver", just::<peer::DeliverRequest>),
    ("Snapshot", just::<peer::SnapshotRequest>),
    ("Chunk", just::<snapshot::Chunk>),
];

pub(super) fn run(data: &[u8]) {
    let Some((kind, bytes)) = data.split_first() else { return };
    let (_, run) = KINDS[usize::from(*kind) % KINDS.len()];
    run(Bytes::copy_from_slice(bytes));
}

/// Decodes, encodes, decodes.
fn again<M: Message + Default + PartialEq + Debug>(bytes: Bytes) -> Option<M> {
    let message = M::decode(bytes).ok()?;
    let encoded = message.encode_to_vec();
    assert_eq!(encoded.len(), message.encoded_len(), "{message:?}");
    assert_eq!(M::decode(&*encoded).as_ref(), Ok(&message));
    Some(message)
}

fn just<M: Message + Default + PartialEq + Debug>(bytes: Bytes) {
    again::<M>(bytes);
}

fn transaction(bytes: Bytes) {
    let by_prost = pb::TxnRequest::decode(bytes.clone());
    match (decode_txn(bytes.clone()), &by_prost) {
        (Ok(read), Ok(expected)) => assert_eq!(&read, expected),
        // Deeper than prost follows: what was read is read again.
        (Ok(read), Err(cause)) => {
            assert!(is_too_deep(cause), "read by hand what prost refuses: {cause}");
            assert_eq!(decode_txn(read.encode_to_vec().into()), Ok(read));
        }
        (Err(NestingError::TooDeep), Err(_)) => {}
        (Err(refused), Err(cause)) => assert_eq!(refused, cause.clone().into()),
        (Err(refused), Ok(_)) => panic!("prost reads what is refused: {refused}"),
    }
    if by_prost.as_ref().is_err_and(|cause| !is_too_deep(cause)) {
        assert!(decode_txn(deep(&bytes)).is_err(), "what prost refuses is refused at the bottom of others too");
    }
    if let Ok(txn) = by_prost {
        assert_eq!(pb::TxnRequest::decode(&*txn.encode_to_vec()).as_ref(), Ok(&txn));
        checked(&txn);
        read_by_hand(&bytes, &txn);
    }
}

/// prost says no more than in words that it gave up.
fn is_too_deep(cause: &prost::DecodeError) -> bool {
    cause.to_string().contains("recursion limit reached")
}

/// A transaction at the bottom of others, where only the walk by hand gets to.
fn deep(bytes: &Bytes) -> Bytes {
    let field = |number: u8, payload: &[u8]| {
        let mut field = vec![number << 3 | 2];
        prost::encoding::encode_varint(payload.len() as u64, &mut field);
        field.extend_from_slice(payload);
        field
    };
    // RequestOp: its transaction is field 4; TxnRequest: the operations of its success are field 2.
    let nest = |inner: Vec<u8>| field(2, &field(4, &inner));
    (0..DEEP).fold(bytes.to_vec(), |inner, _| nest(inner)).into()
}

/// The walk by hand reads what prost reads.
fn read_by_hand(bytes: &Bytes, expected: &pb::TxnRequest) {
    let mut read = match decode_txn(deep(bytes)) {
        Ok(read) => read,
        Err(NestingError::TooDeep) if depth(expected) + DEEP > TXN_NESTING_MAX => return,
        // Groups, which no message has: prost passes over them, the walk refuses them, and nobody makes them.
        Err(NestingError::Malformed(why)) if has_group(bytes) => return drop(why),
        Err(refused) => panic!("{refused} of what prost reads: {expected:?}"),
    };
    for _ in 0..DEEP {
        let inner = read.success.pop().and_then(|op| op.request);
        let Some(Op::RequestTxn(inner)) = inner else { panic!("a level is lost: {inner:?}") };
        read = inner;
    }
    assert_eq!(&read, expected);
}

fn depth(txn: &pb::TxnRequest) -> usize {
    let nested = txn.success.iter().chain(&txn.failure).filter_map(|op| match &op.request {
        Some(Op::RequestTxn(nested)) => Some(depth(nested)),
        _ => None,
    });
    1 + nested.max().unwrap_or(0)
}

/// Whether the bytes may hold a group somewhere; a number that happens to look like one counts too.
fn has_group(bytes: &[u8]) -> bool {
    bytes.iter().any(|byte| matches!(byte & 7, 3 | 4))
}

/// What is let through holds by a naive look too.
fn checked(txn: &pb::TxnRequest) {
    if checks::check_txn(txn, OPERATIONS_MAX).is_err() {
        return;
    }
    assert!(depth(txn) <= TXN_NESTING_MAX);
    for branch in [&txn.success, &txn.failure] {
        assert!(branch.len() <= OPERATIONS_MAX && txn.compare.len() <= OPERATIONS_MAX);
        let mut written = BTreeSet::new();
        for op in branch {
            match op.request.as_ref().expect("an operation without content is refused") {
                Op::RequestPut(put) => assert!(!put.key.is_empty() && written.insert(&put.key), "{put:?} twice"),
                Op::RequestRange(range) => assert!(!range.key.is_empty()),
                Op::RequestDeleteRange(delete) => assert!(!delete.key.is_empty()),
                Op::RequestTxn(nested) => checked(nested),
            }
        }
    }
}

fn log_entry(bytes: Bytes) {
    let by_prost = log::LogEntry::decode(bytes.clone());
    match (decode_log_entry(bytes), by_prost) {
        (Ok(read), Ok(expected)) => {
            assert_eq!(read, expected);
            assert_eq!(decode_log_entry(read.encode_to_vec().into()).as_ref(), Ok(&read));
            // Either answer will do, but not both.
            assert_eq!(known::check(1, &read), known::check(1, &expected));
        }
        (Ok(read), Err(cause)) => {
            assert!(is_too_deep(&cause), "read by hand what prost refuses: {cause}");
            assert_eq!(decode_log_entry(read.encode_to_vec().into()), Ok(read));
        }
        (Err(refused), Ok(_)) => panic!("prost reads what is refused: {refused}"),
        (Err(_), Err(_)) => {}
    }
}

fn effect_batch(bytes: Bytes) {
    let Some(batch) = again::<effects::EffectBatch>(bytes) else { return };
    if let Ok(read) = Effects::from_wire(batch) {
        assert_eq!(Effects::from_wire(read.to_wire()).as_ref(), Ok(&read));
    }
}

fn membership(bytes: Bytes) {
    if let Ok(read) = Members::decode(&bytes) {
        let again = Members::decode(&read.encode()).expect("encoded just now");
        assert_eq!(again, read);
        assert_eq!(again.conf_state(), read.conf_state());
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let put = pb::PutRequest { key: "a".into(), value: "b".into(), lease: 7, ..pb::PutRequest::default() };
    let delete = pb::DeleteRangeRequest { key: "c".into(), range_end: "d".into(), prev_kv: true };
    let range =
        pb::RangeRequest { key: "a".into(), range_end: [0][..].into(), limit: 3, ..pb::RangeRequest::default() };
    let compare = pb::Compare {
        key: "a".into(),
        target: pb::compare::CompareTarget::Mod as i32,
        target_union: Some(pb::compare::TargetUnion::ModRevision(9)),
        ..pb::Compare::default()
    };
    let op = |op: Op| pb::RequestOp { request: Some(op) };
    let flat = pb::TxnRequest {
        compare: vec![compare],
        success: vec![op(Op::RequestPut(put.clone())), op(Op::RequestDeleteRange(delete.clone()))],
        failure: vec![op(Op::RequestRange(range.clone()))],
    };
    let nested = pb::TxnRequest { success: vec![op(Op::RequestTxn(flat.clone()))], ..flat.clone() };
    let request = |kind| log::Request { id: 1, principal: None, kind: Some(kind) };
    let entry = log::LogEntry {
        format_version: 1,
        apply_version: 1,
        requests: vec![request(log::request::Kind::Txn(nested.clone())), request(log::request::Kind::Put(put.clone()))],
        ..log::LogEntry::default()
    };
    let member =
        members::Member { id: 7, name: "m".into(), peer_urls: vec!["http://m:1".into()], ..members::Member::default() };
    let watch = pb::WatchCreateRequest { key: "a".into(), start_revision: 4, ..pb::WatchCreateRequest::default() };
    let watch = pb::WatchRequest { request_union: Some(pb::watch_request::RequestUnion::CreateRequest(watch)) };
    let messages: Vec<(&str, Vec<u8>)> = vec![
        ("Txn", flat.encode_to_vec()),
        ("Txn", nested.encode_to_vec()),
        ("LogEntry", entry.encode_to_vec()),
        ("Membership", Members::first(vec![member]).encode().to_vec()),
        ("Range", range.encode_to_vec()),
        ("Put", put.encode_to_vec()),
        ("DeleteRange", delete.encode_to_vec()),
        ("Watch", watch.encode_to_vec()),
        ("EffectBatch", Vec::new()),
        ("Deliver", peer::DeliverRequest::default().encode_to_vec()),
    ];
    let number = |name| KINDS.iter().position(|(kind, _)| *kind == name).expect("a kind of the table") as u8;
    messages.into_iter().map(|(name, bytes)| [&[number(name)], &bytes[..]].concat()).collect()
}
