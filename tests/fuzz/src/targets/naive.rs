//! What a request must come to, by a plain walk over the live keys of the model; and the model, taken along.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use basalt_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use basalt_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use basalt_proto::etcdserverpb::request_op::Request as Op;
use basalt_proto::etcdserverpb::{Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest};
use basalt_proto::log::Request;
use basalt_proto::log::request::Kind;
use basalt_tests::model::{Model, Version};

use super::answers::{Found, Told};

/// What becomes of a request.
pub(super) enum Outcome {
    /// The model says nothing of it, and was not changed.
    Skipped,
    /// It changes nothing.
    Refused,
    /// Its revision, and its answer.
    Told(i64, Told),
}

type Live = BTreeMap<Vec<u8>, Version>;

/// The outcome of a request, which the model then holds.
pub(super) fn expect(model: &mut Model, kind: &Kind) -> Outcome {
    let operation = match kind {
        Kind::Put(put) => Op::RequestPut(put.clone()),
        Kind::DeleteRange(delete) => Op::RequestDeleteRange(delete.clone()),
        Kind::Txn(txn) => Op::RequestTxn(txn.clone()),
        other => return of_model(model, other.clone(), Told::Done),
    };
    let whole = [RequestOp { request: Some(operation) }];
    if !model.out_of_space().is_empty() && has_put(&whole) {
        return Outcome::Refused;
    }
    let before = Live::from_iter(model.live(model.revision));
    if !is_possible(model, &before, &whole) {
        return Outcome::Refused;
    }
    let mut walk = Walk { model, live: before.clone(), before, writes: Vec::new(), is_unknown: false };
    let mut told = walk.all(&whole);
    let Walk { writes, is_unknown, .. } = walk;
    if is_unknown {
        return Outcome::Skipped;
    }
    let flat = TxnRequest { success: writes, ..TxnRequest::default() };
    of_model(model, Kind::Txn(flat), told.pop().expect("one operation, one answer"))
}

fn of_model(model: &mut Model, kind: Kind, told: Told) -> Outcome {
    let request = Request { id: 1, principal: None, kind: Some(kind) };
    match model.apply(&request) {
        Ok(revision) => Outcome::Told(revision, told),
        Err(_) => Outcome::Refused,
    }
}

fn has_put(operations: &[RequestOp]) -> bool {
    operations.iter().any(|op| match op.request.as_ref() {
        Some(Op::RequestPut(_)) => true,
        Some(Op::RequestTxn(txn)) => has_put(&txn.success) || has_put(&txn.failure),
        _ => false,
    })
}

/// The branch that is taken, by the state before everything.
fn branch<'a>(before: &Live, txn: &'a TxnRequest) -> (bool, &'a [RequestOp]) {
    let succeeds = txn.compare.iter().all(|compare| holds(before, compare));
    (succeeds, if succeeds { &txn.success } else { &txn.failure })
}

/// Whether nothing on the path is refused (etcd-contract 10, 11).
fn is_possible(model: &Model, before: &Live, operations: &[RequestOp]) -> bool {
    operations.iter().all(|op| match op.request.as_ref() {
        Some(Op::RequestRange(range)) => {
            range.revision == 0 || (model.compact_revision..=model.revision).contains(&range.revision)
        }
        Some(Op::RequestPut(put)) => {
            let has_lease = put.lease == 0 || model.lease_ttl(put.lease).is_some();
            has_lease && (!(put.ignore_value || put.ignore_lease) || before.contains_key(&put.key[..]))
        }
        Some(Op::RequestTxn(txn)) => is_possible(model, before, branch(before, txn).1),
        _ => true,
    })
}

/// One request on its way, operation by operation.
struct Walk<'a> {
    model: &'a Model,
    before: Live,
    live: Live,
    /// What was written, one key each.
    writes: Vec<RequestOp>,
    /// A put keeps what the same transaction deleted before: there etcd itself panics.
    is_unknown: bool,
}

impl Walk<'_> {
    fn all(&mut self, operations: &[RequestOp]) -> Vec<Told> {
        operations.iter().filter_map(|op| op.request.as_ref()).map(|op| self.one(op)).collect()
    }

    fn one(&mut self, operation: &Op) -> Told {
        match operation {
            Op::RequestPut(put) => self.put(put),
            Op::RequestDeleteRange(delete) => self.delete(delete),
            Op::RequestRange(range) => self.range(range),
            Op::RequestTxn(txn) => {
                let (succeeded, operations) = branch(&self.before, txn);
                Told::Txn { succeeded, responses: self.all(operations) }
            }
        }
    }

    fn put(&mut self, put: &PutRequest) -> Told {
        let key = put.key.to_vec();
        let live = self.live.get(&key).cloned();
        self.is_unknown |= live.is_none() && (put.ignore_value || put.ignore_lease);
        let kept = live.clone().filter(|_| put.ignore_value).and_then(|version| version.value);
        let value = kept.unwrap_or_else(|| put.value.to_vec());
        let lease = live.as_ref().filter(|_| put.ignore_lease).map_or(put.lease, |version| version.lease);
        let mod_revision = self.model.revision + 1;
        let create_revision = live.as_ref().map_or(mod_revision, |version| version.create_revision);
        let version = live.as_ref().map_or(0, |version| version.version) + 1;
        let new = Version { create_revision, mod_revision, version, lease, value: Some(value.clone()) };
        self.live.insert(key.clone(), new);
        let write = PutRequest { key: put.key.clone(), value: value.into(), lease, ..PutRequest::default() };
        self.writes.push(RequestOp { request: Some(Op::RequestPut(write)) });
        Told::Put(live.filter(|_| put.prev_kv).map(|version| (key, version)))
    }

    fn delete(&mut self, delete: &DeleteRangeRequest) -> Told {
        let deleted = within(&self.live, &delete.key, &delete.range_end);
        for (key, _) in &deleted {
            self.live.remove(key);
            let write = DeleteRangeRequest { key: key.clone().into(), ..DeleteRangeRequest::default() };
            self.writes.push(RequestOp { request: Some(Op::RequestDeleteRange(write)) });
        }
        Told::Delete { deleted: deleted.len(), previous: if delete.prev_kv { deleted } else { Vec::new() } }
    }

    fn range(&self, range: &RangeRequest) -> Told {
        let old = (range.revision > 0).then(|| Live::from_iter(self.model.live(range.revision)));
        let mut found = within(old.as_ref().unwrap_or(&self.live), &range.key, &range.range_end);
        let count = found.len();
        if range.count_only {
            return Told::Range { count, found: Vec::new(), more: false };
        }
        let fits = |n: i64, min: i64, max: i64| (min == 0 || n >= min) && (max == 0 || n <= max);
        let limit = usize::try_from(range.limit).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX);
        let has_filter =
            [range.min_mod_revision, range.max_mod_revision, range.min_create_revision, range.max_create_revision]
                != [0; 4];
        // A target without an order sorts what the limit let through, one more than it (etcd-contract 15).
        let is_sorted_late = range.sort_order() == SortOrder::None && !has_filter;
        if is_sorted_late {
            found.truncate(limit.saturating_add(1));
        }
        found.retain(|(_, version)| {
            fits(version.mod_revision, range.min_mod_revision, range.max_mod_revision)
                && fits(version.create_revision, range.min_create_revision, range.max_create_revision)
        });
        sort(&mut found, range.sort_target(), range.sort_order());
        let more = found.len() > limit;
        found.truncate(limit);
        if range.keys_only {
            for (_, version) in &mut found {
                version.value = Some(Vec::new());
                version.lease = if range.sort_target() == SortTarget::Value { version.lease } else { 0 };
            }
        }
        Told::Range { count, found, more }
    }
}

fn sort(found: &mut [Found], target: SortTarget, order: SortOrder) {
    let compare = |(one_key, one): &Found, (other_key, other): &Found| match target {
        SortTarget::Key => one_key.cmp(other_key),
        SortTarget::Version => one.version.cmp(&other.version),
        SortTarget::Create => one.create_revision.cmp(&other.create_revision),
        SortTarget::Mod => one.mod_revision.cmp(&other.mod_revision),
        SortTarget::Value => one.value.cmp(&other.value),
    };
    found.sort_by(|one, other| match order {
        SortOrder::Descend => compare(other, one),
        SortOrder::None | SortOrder::Ascend => compare(one, other),
    });
}

/// Keys of a range as the wire names it (etcd-contract 17), in order.
fn within(live: &Live, key: &[u8], end: &[u8]) -> Vec<Found> {
    let is_within = |candidate: &[u8]| match end {
        [] => candidate == key,
        [0] => candidate >= key,
        end => candidate >= key && candidate < end,
    };
    live.iter().filter(|(key, _)| is_within(key)).map(|(key, version)| (key.clone(), version.clone())).collect()
}

/// Whether a compare holds for all keys of its range (etcd-contract 8).
fn holds(before: &Live, compare: &Compare) -> bool {
    let found = within(before, &compare.key, &compare.range_end);
    let is_of_values = compare.target == CompareTarget::Value as i32;
    match &found[..] {
        // What is not there has no value, and numbers of 0.
        [] => !is_of_values && accepts(compare.result, number(compare, None).cmp(&wanted(compare))),
        found => found.iter().all(|(_, version)| {
            let ordering = if is_of_values {
                let wanted = match &compare.target_union {
                    Some(TargetUnion::Value(value)) => value.to_vec(),
                    _ => Vec::new(),
                };
                version.value.clone().unwrap_or_default().cmp(&wanted)
            } else {
                number(compare, Some(version)).cmp(&wanted(compare))
            };
            accepts(compare.result, ordering)
        }),
    }
}

fn number(compare: &Compare, version: Option<&Version>) -> i64 {
    let Some(version) = version else { return 0 };
    match CompareTarget::try_from(compare.target) {
        Ok(CompareTarget::Version) => version.version,
        Ok(CompareTarget::Create) => version.create_revision,
        Ok(CompareTarget::Mod) => version.mod_revision,
        Ok(CompareTarget::Lease) => version.lease,
        Ok(CompareTarget::Value) | Err(_) => 0,
    }
}

fn wanted(compare: &Compare) -> i64 {
    match (CompareTarget::try_from(compare.target), &compare.target_union) {
        (Ok(CompareTarget::Version), Some(TargetUnion::Version(number)))
        | (Ok(CompareTarget::Create), Some(TargetUnion::CreateRevision(number)))
        | (Ok(CompareTarget::Mod), Some(TargetUnion::ModRevision(number)))
        | (Ok(CompareTarget::Lease), Some(TargetUnion::Lease(number))) => *number,
        _ => 0,
    }
}

fn accepts(result: i32, ordering: Ordering) -> bool {
    match CompareResult::try_from(result) {
        Ok(CompareResult::Equal) => ordering.is_eq(),
        Ok(CompareResult::NotEqual) => ordering.is_ne(),
        Ok(CompareResult::Greater) => ordering.is_gt(),
        Ok(CompareResult::Less) => ordering.is_lt(),
        Err(_) => true,
    }
}
