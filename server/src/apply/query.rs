//! Requests in the words of storage.

use basalt_proto::etcdserverpb::range_request::{SortOrder as WireOrder, SortTarget as WireTarget};
use basalt_proto::etcdserverpb::{Compare, RangeRequest, RequestOp, TxnRequest, request_op::Request};
use basalt_storage::mvcc::key_range::KeyRange;
use basalt_storage::mvcc::range::{RangeQuery, RevisionFilter, SortOrder, SortTarget};

/// A range request as a query; unknown sort options, which the API refuses, count as their defaults.
pub fn range_query(request: &RangeRequest) -> RangeQuery {
    RangeQuery {
        range: KeyRange::from_wire(&request.key, &request.range_end),
        revision: request.revision,
        limit: request.limit,
        sort_target: match request.sort_target() {
            WireTarget::Key => SortTarget::Key,
            WireTarget::Version => SortTarget::Version,
            WireTarget::Create => SortTarget::Create,
            WireTarget::Mod => SortTarget::Mod,
            WireTarget::Value => SortTarget::Value,
        },
        sort_order: match request.sort_order() {
            WireOrder::None => SortOrder::None,
            WireOrder::Ascend => SortOrder::Ascend,
            WireOrder::Descend => SortOrder::Descend,
        },
        keys_only: request.keys_only,
        count_only: request.count_only,
        filter: RevisionFilter {
            min_mod: request.min_mod_revision,
            max_mod: request.max_mod_revision,
            min_create: request.min_create_revision,
            max_create: request.max_create_revision,
        },
    }
}

/// Whether a transaction only reads. One that holds a nested transaction never counts as such (etcd-contract 9).
pub fn is_read_only(txn: &TxnRequest) -> bool {
    let reads = |op: &RequestOp| matches!(op.request, Some(Request::RequestRange(_)));
    txn.success.iter().chain(&txn.failure).all(reads)
}

/// Whether a transaction puts anything in either branch, at any depth: such a one is refused while NOSPACE is armed
/// (etcd-contract 42).
pub fn has_put(txn: &TxnRequest) -> bool {
    txn.success.iter().chain(&txn.failure).any(|op| match &op.request {
        Some(Request::RequestPut(_)) => true,
        Some(Request::RequestTxn(nested)) => has_put(nested),
        _ => false,
    })
}

/// What the parts of a transaction take in memory beside their keys and values: an operation of seven bytes is twenty times that
/// once it is decoded.
pub fn parts_bytes(txn: &TxnRequest) -> usize {
    let operation = |op: &RequestOp| {
        let nested = if let Some(Request::RequestTxn(nested)) = &op.request { parts_bytes(nested) } else { 0 };
        size_of::<RequestOp>() + nested
    };
    let operations: usize = txn.success.iter().chain(&txn.failure).map(operation).sum();
    txn.compare.len() * size_of::<Compare>() + operations
}
