//! How often a request is judged, and who is joined anew by a change.

use super::*;
use crate::apply::auth::permissions::counts;

#[test]
fn a_lease_is_judged_once_for_a_request_however_often_it_is_named() {
    let state = people();
    let mut leases = LeaseTable::default();
    for (id, prefix) in [(1, "a"), (2, "b"), (3, "x")] {
        let keys = (0..1000).map(|number| Bytes::from(format!("{prefix}{number:04}"))).collect();
        leases.insert(id, LeaseRecord { ttl: 10, keys, ..LeaseRecord::default() });
    }
    let on = |lease: i64| op(Operation::RequestPut(PutRequest { lease, ..put("a") }));
    let puts = |leases: &[i64]| -> Vec<RequestOp> { (0..500).flat_map(|_| leases).map(|lease| on(*lease)).collect() };
    let inner = TxnRequest { failure: puts(&[2, 1]), ..TxnRequest::default() };
    let outer =
        TxnRequest { success: puts(&[1, 0]), failure: vec![op(Operation::RequestTxn(inner))], ..Default::default() };
    let judged = |txn: TxnRequest| {
        let before = counts::ASKED.get();
        let judged = state.check(by("ann", state.revision()).as_ref(), &Kind::Txn(txn), &leases);
        (judged, counts::ASKED.get() - before)
    };
    // The key of each put, and those of two leases once.
    assert_eq!(judged(outer.clone()), (Ok(()), 2 * 1000 + 2 * 1000));
    // Another lease is judged where it stands: what comes before it was looked at, what comes behind it was not.
    let mut denied = outer;
    denied.success.insert(7, on(3));
    let (refused, asked) = judged(denied);
    assert_eq!(refused, Err(AuthError::PermissionDenied));
    assert_eq!(asked, 7 + 1000 + 1 + 1);
}

/// What names a lease before it is granted, as an import may bring it, goes with it when it ends.
#[test]
fn who_grants_a_lease_may_write_what_names_it_already() {
    let state = people();
    let now = state.revision();
    let mut leases = LeaseTable::default();
    for (key, lease) in [("a", 5), ("a", 6), ("x", 6)] {
        leases.reattach(key.as_bytes(), 0, lease);
    }
    let granted = |user: &str, id: i64| {
        let kind = Kind::LeaseGrant(LeaseGrantRequest { id, ttl: 10 });
        state.check(by(user, now).as_ref(), &kind, &leases)
    };
    assert_eq!(granted("ann", 5), Ok(()));
    assert_eq!(granted("ann", 6), Err(AuthError::PermissionDenied));
    assert_eq!(granted("ann", 7), Ok(()));
    assert_eq!(granted("bob", 5), Err(AuthError::PermissionDenied));
    assert_eq!(granted("root", 6), Ok(()));
    assert_eq!(granted("", 7), Err(AuthError::UserEmpty));
    assert_eq!(
        state.check(Some(&cluster_principal()), &Kind::LeaseGrant(LeaseGrantRequest { id: 6, ttl: 10 }), &leases),
        Ok(())
    );
}

#[test]
fn only_those_are_joined_anew_whom_a_change_concerns() {
    let mut state = people();
    let mut joined = |kind: Kind| {
        let before = counts::JOINED.get();
        let records = state.evaluate(&kind).expect("of users and roles").expect("allowed");
        state.install_all(&records);
        counts::JOINED.get() - before
    };
    assert_eq!(joined(user_add("carl")), 1);
    assert_eq!(joined(role_add("s")), 0);
    assert_eq!(joined(grant_role("carl", "r")), 1);
    assert_eq!(joined(grant("r", Type::Read, "z", "")), 2);
    assert_eq!(joined(role_delete("r")), 2);
    assert_eq!(joined(user_delete("carl")), 0);
    assert_eq!(joined(disable()), 0);
}
