//! What the operations of a transaction write, and that none of it overlaps (etcd-contract 4; etcd `checkIntervals`).
//!
//! Joining two parts costs about as much as the smaller one, so that a request of a hundred thousand operations costs little
//! more than reading it: nobody was asked yet who sends it.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::ops::Bound::{Excluded, Included, Unbounded};

use basalt_proto::etcdserverpb::request_op::Request;
use basalt_proto::etcdserverpb::{DeleteRangeRequest, RequestOp, TxnRequest};
use bytes::Bytes;

use super::status::{self, Status};

/// Refuses a transaction that may write a key twice.
///
/// # Errors
/// etcd's.
pub(super) fn refuse_overlaps(request: &TxnRequest) -> Result<(), Status> {
    written(&request.success)?;
    written(&request.failure)?;
    Ok(())
}

/// What a branch writes.
#[derive(Default)]
struct Written {
    puts: BTreeSet<Bytes>,
    deletes: DeletedKeys,
}

impl Written {
    fn put(&mut self, key: &Bytes) -> Result<(), Status> {
        let clashes = self.deletes.contains(key);
        if clashes || !self.puts.insert(key.clone()) { Err(status::duplicate_key()) } else { Ok(()) }
    }

    /// Takes over what a nested transaction writes beside this.
    fn absorb(&mut self, nested: Self) -> Result<(), Status> {
        let (few, many) =
            if nested.puts.len() < self.puts.len() { (&nested.puts, &self.puts) } else { (&self.puts, &nested.puts) };
        if few.iter().any(|key| many.contains(key)) || self.deletes.overlaps(&nested.puts) {
            return Err(status::duplicate_key());
        }
        self.puts = united(mem::take(&mut self.puts), nested.puts);
        self.deletes = mem::take(&mut self.deletes).joined(nested.deletes);
        Ok(())
    }
}

fn united(one: BTreeSet<Bytes>, other: BTreeSet<Bytes>) -> BTreeSet<Bytes> {
    let (mut large, small) = if one.len() < other.len() { (other, one) } else { (one, other) };
    large.extend(small);
    large
}

/// Collects what a branch writes and refuses overlaps: deletes of this level first, then nested transactions, whose two
/// branches exclude each other, then this level's puts (etcd `checkIntervals`).
fn written(branch: &[RequestOp]) -> Result<Written, Status> {
    let mut all = Written::default();
    for op in branch {
        if let Some(Request::RequestDeleteRange(delete)) = &op.request {
            all.deletes.insert(delete);
        }
    }
    for op in branch {
        let Some(Request::RequestTxn(nested)) = &op.request else { continue };
        let (then, otherwise) = (written(&nested.success)?, written(&nested.failure)?);
        all.absorb(Written {
            puts: united(then.puts, otherwise.puts),
            deletes: then.deletes.joined(otherwise.deletes),
        })?;
    }
    for op in branch {
        if let Some(Request::RequestPut(put)) = &op.request {
            all.put(&put.key)?;
        }
    }
    Ok(all)
}

/// Keys that deletes name: intervals from a key to the one before another, apart from each other.
#[derive(Default)]
struct DeletedKeys(BTreeMap<Bytes, Bytes>);

impl DeletedKeys {
    /// The interval that etcd compares puts with: an end of one zero byte means what it says there, a key below every other
    /// but the empty one, so that a delete of all keys from some key on overlaps no put.
    fn insert(&mut self, delete: &DeleteRangeRequest) {
        let end = if delete.range_end.is_empty() {
            [&delete.key[..], &[0]].concat().into()
        } else {
            delete.range_end.clone()
        };
        self.insert_between(delete.key.clone(), end);
    }

    fn insert_between(&mut self, mut start: Bytes, mut end: Bytes) {
        if end <= start {
            return;
        }
        if let Some((before, until)) = self.0.range(..=start.clone()).next_back()
            && *until >= start
        {
            start = before.clone();
        }
        while let Some((other, until)) = self.0.range(start.clone()..=end.clone()).next() {
            end = end.max(until.clone());
            let other = other.clone();
            self.0.remove(&other);
        }
        self.0.insert(start, end);
    }

    fn contains(&self, key: &Bytes) -> bool {
        let begun = self.0.range::<Bytes, _>((Unbounded, Included(key))).next_back();
        begun.is_some_and(|(_, end)| key < end)
    }

    fn overlaps(&self, keys: &BTreeSet<Bytes>) -> bool {
        if keys.len() <= self.0.len() {
            return keys.iter().any(|key| self.contains(key));
        }
        self.0.iter().any(|(start, end)| keys.range::<Bytes, _>((Included(start), Excluded(end))).next().is_some())
    }

    fn joined(self, other: Self) -> Self {
        let (mut large, small) = if self.0.len() < other.0.len() { (other, self) } else { (self, other) };
        small.0.into_iter().for_each(|(start, end)| large.insert_between(start, end));
        large
    }
}

#[cfg(test)]
mod tests {
    use basalt_proto::etcdserverpb::PutRequest;
    use proptest::prelude::*;

    use super::*;

    fn op(request: Request) -> RequestOp {
        RequestOp { request: Some(request) }
    }

    fn put(key: impl Into<Bytes>) -> RequestOp {
        op(Request::RequestPut(PutRequest { key: key.into(), ..PutRequest::default() }))
    }

    fn delete(key: impl Into<Bytes>, range_end: impl Into<Bytes>) -> DeleteRangeRequest {
        DeleteRangeRequest { key: key.into(), range_end: range_end.into(), ..DeleteRangeRequest::default() }
    }

    fn nested(success: Vec<RequestOp>) -> RequestOp {
        op(Request::RequestTxn(TxnRequest { success, ..TxnRequest::default() }))
    }

    #[test]
    fn a_hundred_thousand_operations_are_compared_without_a_look_at_each_pair() {
        // Pair by pair this takes minutes.
        let wide = |each: &dyn Fn(usize) -> RequestOp| {
            let leaf = |from: usize| nested((from..from + 36).map(each).collect());
            let middle = |from: usize| nested((0..36).map(|n| leaf(from + n * 36)).collect());
            nested((0..36).map(|n| middle(n * 36 * 36)).collect())
        };
        let deletes = wide(&|n| op(Request::RequestDeleteRange(delete(format!("d{n:07}"), ""))));
        let puts = wide(&|n| put(format!("p{n:07}")));
        let with = |last: RequestOp| {
            let success = vec![deletes.clone(), puts.clone(), last];
            refuse_overlaps(&TxnRequest { success, ..TxnRequest::default() })
        };
        assert_eq!(with(put("p1000000")), Ok(()));
        assert_eq!(with(put("p0040000")), Err(status::duplicate_key()));
        assert_eq!(with(put("d0040000")), Err(status::duplicate_key()));
    }

    /// Keys of one or two letters, and the end that means everything.
    fn key() -> impl Strategy<Value = Bytes> {
        "[a-d]{1,2}".prop_map(Bytes::from)
    }

    fn end() -> impl Strategy<Value = Bytes> {
        prop_oneof![Just(Bytes::new()), Just(Bytes::from_static(&[0])), key()]
    }

    /// The rule without any care for time.
    #[derive(Default)]
    struct Pairs {
        puts: Vec<Bytes>,
        deletes: Vec<(Bytes, Bytes)>,
    }

    impl Pairs {
        fn of(branch: &[RequestOp]) -> Option<Self> {
            let mut all = Self::default();
            let mut puts = Vec::new();
            for op in branch {
                match op.request.as_ref()? {
                    Request::RequestDeleteRange(delete) => {
                        all.deletes.push((delete.key.clone(), delete.range_end.clone()));
                    }
                    Request::RequestPut(put) => puts.push(put.key.clone()),
                    _ => {}
                }
            }
            for op in branch {
                let Some(Request::RequestTxn(txn)) = &op.request else { continue };
                let (then, otherwise) = (Self::of(&txn.success)?, Self::of(&txn.failure)?);
                then.puts.iter().try_for_each(|key| all.put(key))?;
                otherwise.puts.iter().filter(|key| !then.puts.contains(key)).try_for_each(|key| all.put(key))?;
                all.deletes.extend(then.deletes.into_iter().chain(otherwise.deletes));
            }
            puts.iter().try_for_each(|key| all.put(key))?;
            Some(all)
        }

        fn put(&mut self, key: &Bytes) -> Option<()> {
            let is_free = !self.puts.contains(key) && !self.deletes.iter().any(|range| names(key, range));
            is_free.then(|| self.puts.push(key.clone()))
        }
    }

    fn names(key: &Bytes, (start, end): &(Bytes, Bytes)) -> bool {
        if end.is_empty() { key == start } else { start <= key && key < end }
    }

    /// What a level may hold, and transactions of the level below.
    fn branch() -> impl Strategy<Value = Vec<RequestOp>> {
        let leaf = prop_oneof![
            3 => key().prop_map(put),
            1 => (key(), end()).prop_map(|(key, end)| op(Request::RequestDeleteRange(delete(key, end)))),
        ];
        let op = leaf.prop_recursive(3, 24, 4, |inner| {
            let branch = || prop::collection::vec(inner.clone(), 0..4);
            (branch(), branch()).prop_map(|(success, failure)| {
                op(Request::RequestTxn(TxnRequest { success, failure, ..TxnRequest::default() }))
            })
        });
        prop::collection::vec(op, 0..5)
    }

    proptest! {
        #[test]
        fn overlaps_are_those_that_a_look_at_each_pair_finds(success in branch(), failure in branch()) {
            let is_sound = Pairs::of(&success).is_some() && Pairs::of(&failure).is_some();
            let request = TxnRequest { success, failure, ..TxnRequest::default() };
            prop_assert_eq!(refuse_overlaps(&request).is_ok(), is_sound);
        }

        #[test]
        fn intervals_hold_the_keys_that_some_delete_names(
            one in prop::collection::vec((key(), end()), 0..8),
            other in prop::collection::vec((key(), end()), 0..8),
            keys in prop::collection::btree_set(key(), 0..12),
        ) {
            let of = |deletes: &[(Bytes, Bytes)]| {
                let mut all = DeletedKeys::default();
                deletes.iter().for_each(|(start, end)| all.insert(&delete(start.clone(), end.clone())));
                all
            };
            let joined = of(&one).joined(of(&other));
            let named = |key: &Bytes| one.iter().chain(&other).any(|range| names(key, range));
            for key in &keys {
                prop_assert_eq!(joined.contains(key), named(key), "{:?}", key);
            }
            prop_assert_eq!(joined.overlaps(&keys), keys.iter().any(named));
        }
    }
}
