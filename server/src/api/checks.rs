//! What is refused before it reaches the log (etcd `server/etcdserver/api/v3rpc/key.go`).

use basalt_proto::TXN_NESTING_MAX;
use basalt_proto::etcdserverpb::request_op::Request;
use basalt_proto::etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest, TxnRequest, range_request};
use basalt_storage::mvcc::key_index::KEY_BYTES_MAX;

use super::status::{self, Code, Status};
use super::txn_writes::refuse_overlaps;

/// Checks a range.
///
/// # Errors
/// etcd's; unknown sort options are refused since 3.6 (etcd-contract 15).
pub fn check_range(request: &RangeRequest) -> Result<(), Status> {
    if request.key.is_empty() {
        return Err(status::empty_key());
    }
    let order = range_request::SortOrder::try_from(request.sort_order);
    let target = range_request::SortTarget::try_from(request.sort_target);
    if order.is_err() || target.is_err() {
        return Err(status::invalid_sort_option());
    }
    Ok(())
}

/// Checks a streamed range: natural order and no filters. etcd lets a target without an order pass and then repeats
/// keys; we refuse it (etcd-contract 18).
///
/// # Errors
/// As [`check_range`], and Unimplemented.
pub fn check_range_stream(request: &RangeRequest) -> Result<(), Status> {
    check_range(request)?;
    let by_key = request.sort_target() == range_request::SortTarget::Key;
    let custom = match request.sort_order() {
        range_request::SortOrder::None => false,
        range_request::SortOrder::Ascend => !by_key,
        range_request::SortOrder::Descend => true,
    };
    if custom {
        return Err(Status::new(Code::Unimplemented, "RangeStream does not support custom sort orders"));
    }
    let filters =
        [request.min_mod_revision, request.max_mod_revision, request.min_create_revision, request.max_create_revision];
    if filters.iter().any(|filter| *filter != 0) {
        return Err(Status::new(Code::Unimplemented, "RangeStream does not support revision filters"));
    }
    Ok(())
}

/// Checks a put (etcd-contract 19).
///
/// # Errors
/// etcd's.
pub fn check_put(request: &PutRequest) -> Result<(), Status> {
    if request.key.is_empty() {
        return Err(status::empty_key());
    }
    // The index holds no longer one. No request that may be sent is as large (`--max-request-bytes`); one that came into
    // the log would stop the node there and at every start.
    if request.key.len() > KEY_BYTES_MAX {
        return Err(status::request_too_large());
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(status::value_provided());
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(status::lease_provided());
    }
    Ok(())
}

/// Checks a delete.
///
/// # Errors
/// etcd's.
pub fn check_delete_range(request: &DeleteRangeRequest) -> Result<(), Status> {
    if request.key.is_empty() { Err(status::empty_key()) } else { Ok(()) }
}

/// Checks a transaction: its operations, their number (etcd-contract 5), and that no key is written twice
/// (etcd-contract 4).
///
/// # Errors
/// etcd's.
pub fn check_txn(request: &TxnRequest, operations_max: usize) -> Result<(), Status> {
    check_operations(request, operations_max, 1)?;
    refuse_overlaps(request)
}

/// A nested transaction has the budget that its parent left. Nesting has a bound of its own besides, however large the
/// budget, which decoding holds already (docs/decisions/0010).
fn check_operations(request: &TxnRequest, operations_max: usize, depth: usize) -> Result<(), Status> {
    let operations = request.compare.len().max(request.success.len()).max(request.failure.len());
    let Some(budget) = operations_max.checked_sub(operations) else { return Err(status::too_many_ops()) };
    if depth > TXN_NESTING_MAX {
        return Err(status::nested_too_deep());
    }
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(status::empty_key());
    }
    request.success.iter().chain(&request.failure).try_for_each(|op| match &op.request {
        Some(Request::RequestRange(range)) => check_range(range),
        Some(Request::RequestPut(put)) => check_put(put),
        Some(Request::RequestDeleteRange(delete)) => check_delete_range(delete),
        Some(Request::RequestTxn(nested)) => check_operations(nested, budget, depth + 1),
        None => Err(status::key_not_found()),
    })
}

#[cfg(test)]
mod tests {
    use basalt_proto::etcdserverpb::RequestOp;

    use super::*;

    fn put(key: &'static str) -> RequestOp {
        let put = PutRequest { key: key.into(), ..PutRequest::default() };
        RequestOp { request: Some(Request::RequestPut(put)) }
    }

    fn delete(key: &'static str, range_end: &'static str) -> RequestOp {
        let delete =
            DeleteRangeRequest { key: key.into(), range_end: range_end.into(), ..DeleteRangeRequest::default() };
        RequestOp { request: Some(Request::RequestDeleteRange(delete)) }
    }

    fn txn(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> TxnRequest {
        TxnRequest { compare: Vec::new(), success, failure }
    }

    fn nested(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> RequestOp {
        RequestOp { request: Some(Request::RequestTxn(txn(success, failure))) }
    }

    #[test]
    fn overlaps_as_etcd_contract_4_lists_them() {
        let duplicate = Err(status::duplicate_key());
        assert_eq!(check_txn(&txn(vec![put("a"), put("a")], vec![]), 128), duplicate);
        assert_eq!(check_txn(&txn(vec![], vec![put("a"), put("a")]), 128), duplicate);
        assert_eq!(check_txn(&txn(vec![put("b"), delete("a", "c")], vec![]), 128), duplicate);
        assert_eq!(check_txn(&txn(vec![delete("a", "c"), delete("b", "d")], vec![]), 128), Ok(()));
        assert_eq!(check_txn(&txn(vec![put("a")], vec![put("a")]), 128), Ok(()));
        assert_eq!(check_txn(&txn(vec![nested(vec![put("a")], vec![put("a")])], vec![]), 128), Ok(()));
        assert_eq!(check_txn(&txn(vec![put("a"), nested(vec![put("a")], vec![])], vec![]), 128), duplicate);
        assert_eq!(check_txn(&txn(vec![nested(vec![], vec![delete("a", "")]), put("a")], vec![]), 128), duplicate);
    }

    #[test]
    fn operations_share_one_budget_over_levels() {
        let many = |n: usize| (0..n).map(|_| delete("a", "")).collect::<Vec<_>>();
        assert_eq!(check_txn(&txn(many(128), vec![]), 128), Ok(()));
        assert_eq!(check_txn(&txn(many(129), vec![]), 128), Err(status::too_many_ops()));
        assert_eq!(check_txn(&txn(vec![nested(many(127), vec![])], vec![]), 128), Ok(()));
        assert_eq!(check_txn(&txn(vec![nested(many(128), vec![])], vec![]), 128), Err(status::too_many_ops()));
    }

    #[test]
    fn nesting_has_a_bound_of_its_own() {
        let nest = |transactions: usize| {
            (1..transactions)
                .fold(txn(vec![put("a")], vec![]), |inner, _| txn(vec![nested(inner.success, vec![])], vec![]))
        };
        assert_eq!(check_txn(&nest(TXN_NESTING_MAX), 128), Ok(()));
        assert_eq!(check_txn(&nest(TXN_NESTING_MAX + 1), 1000), Err(status::nested_too_deep()));
        assert_eq!(check_txn(&nest(100), 99), Err(status::too_many_ops()));
    }

    #[test]
    fn a_key_that_the_index_cannot_hold_never_reaches_the_log() {
        let put = |bytes: usize| PutRequest { key: vec![b'k'; bytes].into(), ..PutRequest::default() };
        assert_eq!(check_put(&put(KEY_BYTES_MAX)), Ok(()));
        let op = RequestOp { request: Some(Request::RequestPut(put(KEY_BYTES_MAX + 1))) };
        assert_eq!(check_txn(&txn(vec![op], vec![]), 128), Err(status::request_too_large()));
    }

    #[test]
    fn an_operation_without_content_is_refused() {
        assert_eq!(check_txn(&txn(vec![RequestOp { request: None }], vec![]), 128), Err(status::key_not_found()));
        assert_eq!(check_txn(&txn(vec![], vec![]), 128), Ok(()));
    }
}
