//! Values that apply needs before it can decide: compared ones, and those that a put keeps.

use std::collections::HashMap;
use std::ops::ControlFlow;

use basalt_proto::etcdserverpb::TxnRequest;
use basalt_proto::etcdserverpb::compare::CompareTarget;
use basalt_proto::etcdserverpb::request_op::Request;
use basalt_proto::log::request::Kind;
use basalt_storage::mvcc::key_range::KeyRange;
use basalt_storage::mvcc::range::Hit;
use bytes::Bytes;

/// Values read ahead of one entry at most: a compare of values over a range may name as many as there are keys.
pub const VALUES_AHEAD_MAX: usize = 512;

/// Where apply takes a stored value from. The driver prefetched what a batch can need, so that this finds it in
/// memory; a source that has to read a disk counts it (`basalt_apply_disk_waits_total`).
///
/// A source that cannot deliver does not return: apply may not guess, and the node stops.
pub trait Values {
    /// The encoded KeyValue of a stored revision.
    fn value(&mut self, hit: Hit) -> Bytes;
}

/// Values fetched ahead of a batch.
#[derive(Debug, Default)]
pub struct Prefetched(HashMap<(u32, i64, i64), Bytes>);

impl Prefetched {
    /// Values of `hits`, in their order.
    pub fn of(hits: &[Hit], values: Vec<Bytes>) -> Self {
        let mut prefetched = Self::default();
        hits.iter().zip(values).for_each(|(hit, value)| prefetched.insert(*hit, value));
        prefetched
    }

    /// Keeps a fetched value.
    pub fn insert(&mut self, hit: Hit, value: Bytes) {
        self.0.insert((hit.shard.0, hit.revision.main, hit.revision.sub), value);
    }

    /// A value that was fetched.
    pub fn get(&self, hit: Hit) -> Option<&Bytes> {
        self.0.get(&(hit.shard.0, hit.revision.main, hit.revision.sub))
    }
}

/// Visits the keys whose stored values a request may look at before it can be decided, until it is told to stop.
pub fn visit_value_ranges(kind: &Kind, visit: &mut dyn FnMut(KeyRange) -> ControlFlow<()>) -> ControlFlow<()> {
    match kind {
        Kind::Put(put) if put.ignore_value => visit(KeyRange::single(&put.key)),
        Kind::Txn(txn) => visit_of_txn(txn, visit),
        _ => ControlFlow::Continue(()),
    }
}

fn visit_of_txn(txn: &TxnRequest, visit: &mut dyn FnMut(KeyRange) -> ControlFlow<()>) -> ControlFlow<()> {
    for compare in txn.compare.iter().filter(|compare| compare.target == CompareTarget::Value as i32) {
        visit(KeyRange::from_wire(&compare.key, &compare.range_end))?;
    }
    txn.success.iter().chain(&txn.failure).try_for_each(|op| match &op.request {
        Some(Request::RequestPut(put)) if put.ignore_value => visit(KeyRange::single(&put.key)),
        Some(Request::RequestTxn(nested)) => visit_of_txn(nested, visit),
        _ => ControlFlow::Continue(()),
    })
}

/// For who has prefetched all that he looks at.
impl Values for Prefetched {
    fn value(&mut self, hit: Hit) -> Bytes {
        self.get(hit).cloned().expect("every value looked at was fetched before")
    }
}
