//! Transactions that only read: answered from a View, without the log (etcd-contract 9). They answer as those that went
//! through it would at the same revision.

use std::ops::ControlFlow;

use basalt_proto::etcdserverpb::compare::CompareTarget;
use basalt_proto::etcdserverpb::request_op::Request;
use basalt_proto::etcdserverpb::{Compare, RangeRequest, RequestOp, TxnRequest};
use basalt_storage::mvcc::key_range::KeyRange;
use basalt_storage::mvcc::range::Hit;
use basalt_storage::mvcc::view::View;

use super::answer::{OpAnswer, Refusal, TxnAnswer};
use super::latest::Latest;
use super::query::range_query;
use super::txn::check_revision;
pub use super::txn::holds;

/// Whether a View of any age will do: every range says so. One that only compares says nothing, and gets the newest; etcd
/// lets it be served stale (etcd-contract 9).
pub fn is_serializable(txn: &TxnRequest) -> bool {
    let mut ranges = txn.success.iter().chain(&txn.failure).filter_map(range).peekable();
    ranges.peek().is_some() && ranges.all(|range| range.serializable)
}

/// Values that a compare looks at and that are in no memory.
pub fn needed_values(compare: &Compare, view: &View) -> Vec<Hit> {
    let mut needed = Vec::new();
    if compare.target == CompareTarget::Value as i32 {
        let range = KeyRange::from_wire(&compare.key, &compare.range_end);
        view.for_each_live(&range, &mut |key, state| {
            let hit = view.hit(key, state);
            if view.resident(hit).is_none() {
                needed.push(hit);
            }
            ControlFlow::Continue(())
        });
    }
    needed
}

/// Answers `txn`, which [`is_read_only`](super::query::is_read_only), from `view`; `succeeded` says whether all its
/// compares hold.
///
/// # Errors
/// A range of the taken branch at a revision that cannot be read.
pub fn evaluate(txn: &TxnRequest, view: &View, succeeded: bool) -> Result<TxnAnswer, Refusal> {
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
