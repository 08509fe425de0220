//! Transactions: choose the path by the state before, check it whole, then execute it (etcd-contract 3 to 11; etcd
//! `server/etcdserver/txn/txn.go`).

use std::cmp::Ordering;
use std::ops::ControlFlow;

use basalt_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use basalt_proto::etcdserverpb::request_op::Request;
use basalt_proto::etcdserverpb::{Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest};
use basalt_storage::mvcc::key_index::KeyState;
use basalt_storage::mvcc::key_range::{KeyRange, RangeEnd};
use basalt_storage::mvcc::key_value::KeyValue;
use basalt_storage::mvcc::range::{Hit, RevisionError};
use basalt_storage::mvcc::store::Store;
use basalt_storage::mvcc::transaction::Transaction;
use bytes::Bytes;

use super::answer::{DeleteAnswer, OpAnswer, PutAnswer, Refusal, TxnAnswer};
use super::latest::Latest;
use super::lease_table::LeaseTable;
use super::query::range_query;
use super::values::Values;

/// A transaction with its branch taken, and its nested ones' too.
pub struct Path<'r> {
    succeeded: bool,
    operations: Vec<Operation<'r>>,
}

enum Operation<'r> {
    Range(&'r RangeRequest),
    Put(&'r PutRequest),
    DeleteRange(&'r DeleteRangeRequest),
    Txn(Path<'r>),
}

/// Chooses branches, all by the state before the transaction (etcd-contract 7).
pub fn choose<'r>(txn: &'r TxnRequest, store: &Store, values: &mut dyn Values) -> Path<'r> {
    let succeeded = txn.compare.iter().all(|compare| holds(compare, store, values));
    let branch = if succeeded { &txn.success } else { &txn.failure };
    let operation = |op: &'r RequestOp, values: &mut dyn Values| match op.request.as_ref()? {
        Request::RequestRange(range) => Some(Operation::Range(range)),
        Request::RequestPut(put) => Some(Operation::Put(put)),
        Request::RequestDeleteRange(delete) => Some(Operation::DeleteRange(delete)),
        Request::RequestTxn(nested) => Some(Operation::Txn(choose(nested, store, values))),
    };
    let operations = branch.iter().filter_map(|op| operation(op, values)).collect();
    Path { succeeded, operations }
}

impl Path<'_> {
    /// Checks everything that could fail, so that execution cannot: any error in the taken path leaves no trace
    /// (etcd-contract 10, 11).
    pub fn check(&self, store: &Store, leases: &LeaseTable) -> Result<(), Refusal> {
        self.operations.iter().try_for_each(|operation| match operation {
            Operation::Range(range) => check_revision(range.revision, store.revision(), store.compact_revision()),
            Operation::Put(put) => check_put(put, store, leases),
            Operation::DeleteRange(_) => Ok(()),
            Operation::Txn(nested) => nested.check(store, leases),
        })
    }

    /// Carries the path out within `transaction`.
    pub fn execute(&self, transaction: &mut Transaction<'_>, values: &mut dyn Values) -> Result<TxnAnswer, Refusal> {
        let mut responses = Vec::with_capacity(self.operations.len());
        for operation in &self.operations {
            responses.push(match operation {
                Operation::Range(range) => {
                    OpAnswer::Range(transaction.plan(&range_query(range)).map_err(Refusal::from)?)
                }
                Operation::Put(request) => OpAnswer::Put(put(request, transaction, values)),
                Operation::DeleteRange(request) => OpAnswer::DeleteRange(delete_range(request, transaction)),
                Operation::Txn(nested) => OpAnswer::Txn(nested.execute(transaction, values)?),
            });
        }
        Ok(TxnAnswer { revision: transaction.revision(), succeeded: self.succeeded, responses })
    }
}

impl From<RevisionError> for Refusal {
    fn from(error: RevisionError) -> Self {
        match error {
            RevisionError::Compacted => Refusal::Compacted,
            RevisionError::Future => Refusal::FutureRevision,
        }
    }
}

/// Whether a put may go ahead.
pub fn check_put(put: &PutRequest, store: &Store, leases: &LeaseTable) -> Result<(), Refusal> {
    if put.lease != 0 && leases.get(put.lease).is_none() {
        return Err(Refusal::LeaseNotFound);
    }
    if (put.ignore_value || put.ignore_lease) && store.get(&put.key).is_none() {
        return Err(Refusal::KeyNotFound);
    }
    Ok(())
}

/// Carries out a put that [`check_put`] let through.
pub fn put(request: &PutRequest, transaction: &mut Transaction<'_>, values: &mut dyn Values) -> PutAnswer {
    let kept = request
        .ignore_value
        .then(|| transaction.hit(&request.key))
        .flatten()
        .map(|hit| stored(hit, transaction.store(), values));
    let value = match &kept {
        Some(stored) => KeyValue::parse(stored).map_or(&[][..], |kv| kv.value),
        None => &request.value,
    };
    let live = request.ignore_lease.then(|| transaction.get(&request.key)).flatten();
    let lease = live.map_or(request.lease, |state| state.lease);
    let replaced = transaction.put(&request.key, value, lease);
    PutAnswer { revision: transaction.revision(), previous: replaced.previous.filter(|_| request.prev_kv) }
}

/// Carries out a delete.
pub fn delete_range(request: &DeleteRangeRequest, transaction: &mut Transaction<'_>) -> DeleteAnswer {
    let deleted = transaction.delete_range(&KeyRange::from_wire(&request.key, &request.range_end));
    DeleteAnswer {
        revision: transaction.revision(),
        deleted: deleted.len().try_into().expect("fewer than 2^63 keys"),
        previous: if request.prev_kv { deleted } else { Vec::new() },
    }
}

/// A range's revision inside a transaction: a negative one is not the latest here but compared as it is
/// (etcd-contract 11).
pub(super) fn check_revision(asked: i64, revision: i64, compact_revision: i64) -> Result<(), Refusal> {
    if asked == 0 {
        Ok(())
    } else if asked > revision {
        Err(Refusal::FutureRevision)
    } else if asked < compact_revision {
        Err(Refusal::Compacted)
    } else {
        Ok(())
    }
}

/// A stored value, from the store's memory or from what was fetched.
fn stored(hit: Hit, latest: &impl Latest, values: &mut dyn Values) -> Bytes {
    latest.resident(hit).unwrap_or_else(|| values.value(hit))
}

/// Whether a compare holds for every key of its range (etcd-contract 8).
pub fn holds(compare: &Compare, latest: &impl Latest, values: &mut dyn Values) -> bool {
    let range = KeyRange::from_wire(&compare.key, &compare.range_end);
    if range.end == RangeEnd::Single {
        let state = latest.get(&range.start);
        return state.map_or_else(
            || holds_for_nothing(compare),
            |state| holds_for(compare, &range.start, state, latest, values),
        );
    }
    let (mut any, mut all) = (false, true);
    latest.for_each_live(&range, &mut |key, state| {
        any = true;
        all = holds_for(compare, key, state, latest, values);
        if all { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    if any { all } else { holds_for_nothing(compare) }
}

fn holds_for(compare: &Compare, key: &[u8], state: KeyState, latest: &impl Latest, values: &mut dyn Values) -> bool {
    if compare.target != CompareTarget::Value as i32 {
        return accepts(compare.result, number(compare, &state).cmp(&wanted_number(compare)));
    }
    let stored = stored(latest.hit(key, state), latest, values);
    let value = KeyValue::parse(&stored).map_or(&[][..], |kv| kv.value);
    let wanted: &[u8] = match &compare.target_union {
        Some(TargetUnion::Value(value)) => value,
        _ => &[],
    };
    accepts(compare.result, value.cmp(wanted))
}

/// A key that is not there: its value equals nothing and differs from nothing, its numbers are 0.
fn holds_for_nothing(compare: &Compare) -> bool {
    compare.target != CompareTarget::Value as i32
        && accepts(compare.result, number(compare, &KeyState::default()).cmp(&wanted_number(compare)))
}

/// The number compared; an unknown target compares equal (etcd-contract 8).
fn number(compare: &Compare, state: &KeyState) -> i64 {
    match CompareTarget::try_from(compare.target) {
        Ok(CompareTarget::Version) => state.version,
        Ok(CompareTarget::Create) => state.create_revision,
        Ok(CompareTarget::Mod) => state.mod_revision.main,
        Ok(CompareTarget::Lease) => state.lease,
        Ok(CompareTarget::Value) | Err(_) => 0,
    }
}

/// The number compared with: the union's if it is the target's, else 0.
fn wanted_number(compare: &Compare) -> i64 {
    match (CompareTarget::try_from(compare.target), &compare.target_union) {
        (Ok(CompareTarget::Version), Some(TargetUnion::Version(n)))
        | (Ok(CompareTarget::Create), Some(TargetUnion::CreateRevision(n)))
        | (Ok(CompareTarget::Mod), Some(TargetUnion::ModRevision(n)))
        | (Ok(CompareTarget::Lease), Some(TargetUnion::Lease(n))) => *n,
        _ => 0,
    }
}

/// Whether the compare accepts an ordering; an unknown result accepts all (etcd-contract 8).
fn accepts(result: i32, ordering: Ordering) -> bool {
    match CompareResult::try_from(result) {
        Ok(CompareResult::Equal) => ordering.is_eq(),
        Ok(CompareResult::NotEqual) => ordering.is_ne(),
        Ok(CompareResult::Greater) => ordering.is_gt(),
        Ok(CompareResult::Less) => ordering.is_lt(),
        Err(_) => true,
    }
}
