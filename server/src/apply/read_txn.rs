//! Transactions that only read: answered from a View, without the log (etcd-contract 9). They answer as those that went
//! through it would at the same revision.

use basalt_proto::etcdserverpb::request_op::Request;
use basalt_proto::etcdserverpb::{RangeRequest, RequestOp, TxnRequest};
use basalt_storage::mvcc::range::Hit;
use basalt_storage::mvcc::view::View;

use super::answer::{OpAnswer, Refusal, TxnAnswer};
use super::query::range_query;
use super::txn::{check_revision, collect_compared, holds};
use super::values::Values;

/// Whether a View of any age will do: every range says so. One that only compares says nothing, and gets the newest; etcd
/// lets it be served stale (etcd-contract 9).
pub fn is_serializable(txn: &TxnRequest) -> bool {
    let mut ranges = txn.success.iter().chain(&txn.failure).filter_map(range).peekable();
    ranges.peek().is_some() && ranges.all(|range| range.serializable)
}

/// Values that the compares look at and that are in no memory.
pub fn needed_values(txn: &TxnRequest, view: &View) -> Vec<Hit> {
    let mut needed = Vec::new();
    collect_compared(txn, view, &mut needed);
    needed.retain(|hit| view.resident(*hit).is_none());
    needed
}

/// Answers `txn`, which [`is_read_only`](super::query::is_read_only), from `view`; `values` has those of
/// [`needed_values`].
///
/// # Errors
/// A range of the taken branch at a revision that cannot be read.
pub fn evaluate(txn: &TxnRequest, view: &View, values: &mut dyn Values) -> Result<TxnAnswer, Refusal> {
    let succeeded = txn.compare.iter().all(|compare| holds(compare, view, values));
    let branch = if succeeded { &txn.success } else { &txn.failure };
    for range in branch.iter().filter_map(range) {
        check_revision(range.revision, view.revision, view.compact_revision)?;
    }
    let plan = |range: &RangeRequest| Ok(OpAnswer::Range(view.plan(&range_query(range))?));
    let responses = branch.iter().filter_map(range).map(plan).collect::<Result<_, Refusal>>()?;
    Ok(TxnAnswer { revision: view.revision, succeeded, responses })
}

fn range(op: &RequestOp) -> Option<&RangeRequest> {
    match &op.request {
        Some(Request::RequestRange(range)) => Some(range),
        _ => None,
    }
}
