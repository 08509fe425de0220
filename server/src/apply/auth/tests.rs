//! Management as etcd does it, permissions against a naive model, and requests of every kind.

use basalt_proto::authpb::{Permission, Role, User, UserAddOptions, permission::Type};
use basalt_proto::etcdserverpb::compare::CompareTarget;
use basalt_proto::etcdserverpb::request_op::Request as Operation;
use basalt_proto::etcdserverpb::{
    AlarmRequest, AuthDisableRequest, AuthEnableRequest, AuthRoleAddRequest, AuthRoleDeleteRequest,
    AuthRoleGrantPermissionRequest, AuthRoleRevokePermissionRequest, AuthUserAddRequest, AuthUserChangePasswordRequest,
    AuthUserDeleteRequest, AuthUserGrantRoleRequest, AuthUserRevokeRoleRequest, CompactionRequest, Compare,
    DeleteRangeRequest, LeaseGrantRequest, LeaseRevokeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};
use basalt_proto::log::request::Kind;
use basalt_proto::log::{HashMark, Principal};
use basalt_storage::mvcc::system::{System, Table};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use super::bounds::{ALL_BYTES_MAX, NAME_BYTES_MAX, RECORD_BYTES_MAX};
use super::check::cluster_principal;
use super::error::AuthError;
use super::permissions::{Access, Permissions, counts};
use super::state::{AuthRecord, AuthState};
use crate::apply::lease_table::{LeaseRecord, LeaseTable};

fn user_add(name: &str) -> Kind {
    let hashed_password = "aGFzaA==".to_owned();
    Kind::UserAdd(AuthUserAddRequest { name: name.to_owned(), hashed_password, ..Default::default() })
}

fn user_delete(name: &str) -> Kind {
    Kind::UserDelete(AuthUserDeleteRequest { name: name.to_owned() })
}

fn role_add(name: &str) -> Kind {
    Kind::RoleAdd(AuthRoleAddRequest { name: name.to_owned() })
}

fn role_delete(role: &str) -> Kind {
    Kind::RoleDelete(AuthRoleDeleteRequest { role: role.to_owned() })
}

fn grant_role(user: &str, role: &str) -> Kind {
    Kind::UserGrantRole(AuthUserGrantRoleRequest { user: user.to_owned(), role: role.to_owned() })
}

fn revoke_role(user: &str, role: &str) -> Kind {
    Kind::UserRevokeRole(AuthUserRevokeRoleRequest { name: user.to_owned(), role: role.to_owned() })
}

fn permission(kind: Type, key: &str, range_end: &str) -> Permission {
    Permission { perm_type: kind as i32, key: key.to_owned().into(), range_end: range_end.to_owned().into() }
}

fn grant(role: &str, kind: Type, key: &str, range_end: &str) -> Kind {
    let perm = Some(permission(kind, key, range_end));
    Kind::RoleGrantPermission(AuthRoleGrantPermissionRequest { name: role.to_owned(), perm })
}

fn revoke(role: &str, key: &str, range_end: &str) -> Kind {
    let (key, range_end) = (key.to_owned().into(), range_end.to_owned().into());
    Kind::RoleRevokePermission(AuthRoleRevokePermissionRequest { role: role.to_owned(), key, range_end })
}

fn enable() -> Kind {
    Kind::AuthEnable(AuthEnableRequest {})
}

fn disable() -> Kind {
    Kind::AuthDisable(AuthDisableRequest {})
}

/// Does what a request asks for; tells whether users and roles count as changed.
fn act(state: &mut AuthState, kind: &Kind) -> Result<bool, AuthError> {
    let before = state.revision();
    let records = state.evaluate(kind).expect("a request about users and roles")?;
    for record in &records {
        assert!(record.is_well_formed(), "{record:?}");
        state.install(record);
    }
    Ok(state.revision() > before)
}

fn state_after(kinds: &[Kind]) -> AuthState {
    let mut state = AuthState::default();
    for kind in kinds {
        act(&mut state, kind).expect("a setting up");
    }
    state
}

fn by(user: &str, auth_revision: u64) -> Option<Principal> {
    Some(Principal { user: user.to_owned(), auth_revision })
}

#[test]
fn users_and_roles_change_by_etcds_rules() {
    let mut state = AuthState::default();
    let mut expect = |kind: Kind, expected: Result<bool, AuthError>| {
        assert_eq!(act(&mut state, &kind), expected, "{kind:?}");
    };
    expect(enable(), Err(AuthError::RootUserMissing));
    expect(disable(), Ok(false));
    expect(user_add(""), Err(AuthError::UserEmpty));
    expect(user_add("root"), Ok(true));
    expect(user_add("root"), Err(AuthError::UserExists));
    expect(enable(), Err(AuthError::RootRoleMissing));
    // The role root can be granted though nobody made it, and no other.
    expect(grant_role("root", "root"), Ok(true));
    expect(grant_role("root", "root"), Ok(false));
    expect(grant_role("ann", "root"), Err(AuthError::UserNotFound));
    expect(grant_role("root", "reader"), Err(AuthError::RoleNotFound));
    expect(enable(), Ok(false));
    expect(enable(), Ok(false));
    // Nobody locks everybody out.
    expect(user_delete("root"), Err(AuthError::InvalidManagement));
    expect(revoke_role("root", "root"), Err(AuthError::InvalidManagement));
    expect(role_delete("root"), Err(AuthError::InvalidManagement));
    expect(role_add(""), Err(AuthError::RoleEmpty));
    expect(role_add("reader"), Ok(true));
    expect(role_add("reader"), Err(AuthError::RoleExists));
    expect(grant("writer", Type::Read, "a", ""), Err(AuthError::RoleNotFound));
    expect(grant("reader", Type::Read, "", "b"), Err(AuthError::InvalidManagement));
    expect(grant("reader", Type::Read, "b", "a"), Err(AuthError::InvalidManagement));
    expect(grant("reader", Type::Read, "a", "\0"), Ok(true));
    let nothing = AuthRoleGrantPermissionRequest { name: "reader".to_owned(), perm: None };
    expect(Kind::RoleGrantPermission(nothing), Err(AuthError::PermissionMissing));
    expect(revoke("reader", "a", ""), Err(AuthError::PermissionNotGranted));
    expect(revoke("writer", "a", ""), Err(AuthError::RoleNotFound));
    expect(revoke("reader", "a", "\0"), Ok(true));
    expect(user_add("ann"), Ok(true));
    expect(revoke_role("ann", "reader"), Err(AuthError::RoleNotGranted));
    expect(grant_role("ann", "reader"), Ok(true));
    expect(role_delete("reader"), Ok(true));
    expect(role_delete("reader"), Err(AuthError::RoleNotFound));
    expect(revoke_role("ann", "reader"), Err(AuthError::RoleNotGranted));
    expect(user_delete("ann"), Ok(true));
    expect(user_delete("ann"), Err(AuthError::UserNotFound));
    expect(disable(), Ok(true));
    expect(user_delete("root"), Ok(true));
}

#[test]
fn passwords_are_kept_as_they_came_hashed() {
    let mut state = AuthState::default();
    act(&mut state, &user_add("ann")).expect("a user");
    assert_eq!(state.user("ann").expect("ann").password, &b"hash"[..]);
    let change = |name: &str, hashed: &str| {
        let (name, hashed_password) = (name.to_owned(), hashed.to_owned());
        Kind::UserChangePassword(AuthUserChangePasswordRequest { name, hashed_password, ..Default::default() })
    };
    assert_eq!(act(&mut state, &change("ann", "bmV3")), Ok(true));
    assert_eq!(state.user("ann").expect("ann").password, &b"new"[..]);
    assert_eq!(act(&mut state, &change("ann", "%")), Err(AuthError::NoPassword));
    assert_eq!(act(&mut state, &change("bob", "bmV3")), Err(AuthError::UserNotFound));
    let options = Some(UserAddOptions { no_password: true });
    let carl = AuthUserAddRequest { name: "carl".to_owned(), options, ..Default::default() };
    act(&mut state, &Kind::UserAdd(carl)).expect("a user");
    assert_eq!(act(&mut state, &change("carl", "bmV3")), Ok(true));
    assert!(state.user("carl").expect("carl").password.is_empty(), "who shall have no password gets none");
}

#[test]
fn a_permission_that_is_granted_again_is_replaced() {
    let kinds = [
        role_add("r"),
        grant("r", Type::Readwrite, "a", "b"),
        grant("r", Type::Readwrite, "a", "c"),
        grant("r", Type::Read, "a", "c"),
        user_add("ann"),
        grant_role("ann", "r"),
    ];
    let state = state_after(&kinds);
    let granted = &state.role("r").expect("the role").key_permission;
    assert_eq!(granted[..], [permission(Type::Readwrite, "a", "b"), permission(Type::Read, "a", "c")]);
}

#[test]
fn what_is_stored_comes_back() {
    let kinds = [
        user_add("root"),
        grant_role("root", "root"),
        role_add("r"),
        grant("r", Type::Write, "k", ""),
        user_add("ann"),
        grant_role("ann", "r"),
        enable(),
    ];
    let (mut state, mut system) = (AuthState::default(), System::default());
    let mut set = |table: Table, key: &[u8], value: &[u8]| {
        assert!(system.restore(&[&[table as u8], key].concat(), Bytes::copy_from_slice(value)));
    };
    for kind in &kinds {
        for record in state.evaluate(kind).expect("of users and roles").expect("allowed") {
            set(record.table, &record.key, record.value.as_ref().expect("nothing is deleted"));
            state.install(&record);
        }
    }
    assert_eq!(AuthState::load(&system), Ok(state));
    // One that cannot be read lets nobody in.
    assert!(system.restore(&[&[Table::Auth as u8], &b"authEnabled"[..]].concat(), Bytes::from_static(&[7])));
    assert!(AuthState::load(&system).is_err());
}

#[test]
fn malformed_records_are_told() {
    let is_good = |table, key: &'static [u8], value: Option<&'static [u8]>| {
        let record = AuthRecord { table, key: key.into(), value: value.map(Bytes::from_static) };
        record.is_well_formed()
    };
    assert!(is_good(Table::Auth, b"authRevision", Some(&[0, 0, 0, 0, 0, 0, 0, 9])));
    assert!(is_good(Table::AuthUser, b"ann", None));
    assert!(!is_good(Table::Auth, b"authRevision", Some(&[9])));
    assert!(!is_good(Table::Auth, b"authRevision", None));
    assert!(!is_good(Table::Auth, b"nonsense", Some(&[1])));
    assert!(!is_good(Table::AuthUser, b"\xff", None));
    assert!(!is_good(Table::AuthUser, b"ann", Some(&[0xff])));
    assert!(!is_good(Table::AuthRole, b"r", Some(&[0xff])));
    assert!(!is_good(Table::Lease, b"x", None));
}

/// Root with everything; ann reads a to m and writes a to c; bob has no role.
fn people() -> AuthState {
    state_after(&[
        user_add("root"),
        grant_role("root", "root"),
        role_add("r"),
        grant("r", Type::Read, "a", "m"),
        grant("r", Type::Write, "a", "c"),
        user_add("ann"),
        grant_role("ann", "r"),
        user_add("bob"),
        enable(),
    ])
}

fn put(key: &str) -> PutRequest {
    PutRequest { key: key.to_owned().into(), ..PutRequest::default() }
}

fn op(request: Operation) -> RequestOp {
    RequestOp { request: Some(request) }
}

#[test]
fn a_request_is_judged_by_whose_it_is() {
    let state = people();
    let now = state.revision();
    let mut leases = LeaseTable::default();
    for (id, key) in [(1, "a"), (2, "x")] {
        let mut record = LeaseRecord { ttl: 10, ..LeaseRecord::default() };
        record.keys.insert(Bytes::copy_from_slice(key.as_bytes()));
        leases.insert(id, record);
    }
    let judged = |principal: Option<Principal>, kind: &Kind| state.check(principal.as_ref(), kind, &leases);
    let delete = |key: &str, end: &str, prev_kv| {
        let (key, range_end) = (key.to_owned().into(), end.to_owned().into());
        DeleteRangeRequest { key, range_end, prev_kv }
    };
    let range = |key: &str| RangeRequest { key: key.to_owned().into(), ..RangeRequest::default() };
    let compare =
        |key: &str| Compare { key: key.to_owned().into(), target: CompareTarget::Mod as i32, ..Compare::default() };
    let denied = Err(AuthError::PermissionDenied);
    let nested = |txn: TxnRequest| TxnRequest { failure: vec![op(Operation::RequestTxn(txn))], ..Default::default() };
    let reads = |key: &str| TxnRequest { success: vec![op(Operation::RequestRange(range(key)))], ..Default::default() };
    let writes = |key: &str| TxnRequest { failure: vec![op(Operation::RequestPut(put(key)))], ..Default::default() };
    let deletes = |key: &str, end: &str| TxnRequest {
        success: vec![op(Operation::RequestDeleteRange(delete(key, end, false)))],
        ..Default::default()
    };
    let compares = |key: &str| TxnRequest { compare: vec![compare(key)], ..TxnRequest::default() };
    for (kind, of_ann) in [
        (Kind::Put(put("a")), Ok(())),
        (Kind::Put(put("c")), denied),
        (Kind::Put(PutRequest { prev_kv: true, ..put("a") }), Ok(())),
        (Kind::Put(PutRequest { lease: 1, ..put("a") }), Ok(())),
        // A lease that holds what she may not write she cannot end: she may not use it either.
        (Kind::Put(PutRequest { lease: 2, ..put("a") }), denied),
        (Kind::DeleteRange(delete("a", "c", false)), Ok(())),
        (Kind::DeleteRange(delete("a", "d", false)), denied),
        (Kind::DeleteRange(delete("a", "\0", false)), denied),
        (Kind::Txn(TxnRequest::default()), Ok(())),
        (Kind::Txn(compares("l")), Ok(())),
        (Kind::Txn(compares("m")), denied),
        (Kind::Txn(reads("l")), Ok(())),
        (Kind::Txn(reads("m")), denied),
        (Kind::Txn(writes("b")), Ok(())),
        // Also in the branch that is not taken.
        (Kind::Txn(writes("c")), denied),
        (Kind::Txn(deletes("a", "c")), Ok(())),
        (Kind::Txn(deletes("a", "d")), denied),
        (Kind::Txn(nested(writes("b"))), Ok(())),
        (Kind::Txn(nested(writes("c"))), denied),
        (Kind::Txn(nested(nested(compares("m")))), denied),
        (Kind::LeaseGrant(LeaseGrantRequest::default()), Ok(())),
        (Kind::LeaseRevoke(LeaseRevokeRequest { id: 1 }), Ok(())),
        (Kind::LeaseRevoke(LeaseRevokeRequest { id: 2 }), denied),
        (Kind::LeaseRevoke(LeaseRevokeRequest { id: 3 }), Ok(())),
        (Kind::Compaction(CompactionRequest::default()), denied),
        (Kind::Alarm(AlarmRequest::default()), denied),
        (disable(), denied),
        (user_add("x"), denied),
        (grant_role("ann", "root"), denied),
    ] {
        assert_eq!(judged(by("ann", now), &kind), of_ann, "{kind:?}");
        assert_eq!(judged(by("root", now), &kind), Ok(()), "{kind:?}");
        assert_eq!(judged(Some(cluster_principal()), &kind), Ok(()), "{kind:?}");
        let is_of_keys = !matches!(&kind, Kind::Txn(txn) if *txn == TxnRequest::default());
        assert_eq!(judged(None, &kind).is_err(), is_of_keys, "{kind:?}");
    }
    // What a write shows must be readable.
    let mut state = people();
    act(&mut state, &grant("r", Type::Write, "w", "")).expect("granted");
    let now = state.revision();
    let judged = |kind| state.check(by("ann", now).as_ref(), &kind, &leases);
    assert_eq!(judged(Kind::Put(put("w"))), Ok(()));
    assert_eq!(judged(Kind::Put(PutRequest { prev_kv: true, ..put("w") })), denied);
    assert_eq!(judged(Kind::DeleteRange(delete("w", "", true))), denied);
}

#[test]
fn who_asks_must_be_known_and_up_to_date() {
    let state = people();
    let now = state.revision();
    let judged =
        |principal: Option<Principal>, kind: &Kind| state.check(principal.as_ref(), kind, &LeaseTable::default());
    let kind = Kind::Put(put("a"));
    assert_eq!(judged(None, &kind), Err(AuthError::UserEmpty));
    assert_eq!(judged(by("", now), &kind), Err(AuthError::UserEmpty));
    assert_eq!(judged(by("ann", now - 1), &kind), Err(AuthError::OldRevision));
    assert_eq!(judged(by("ann", now), &kind), Ok(()));
    assert_eq!(judged(by("nobody", now), &kind), Err(AuthError::PermissionDenied));
    assert_eq!(judged(by("bob", now), &kind), Err(AuthError::PermissionDenied));
    assert_eq!(judged(None, &disable()), Err(AuthError::UserEmpty));
    assert_eq!(judged(by("nobody", now), &disable()), Err(AuthError::UserNotFound));
    // Members speak for themselves.
    assert_eq!(judged(None, &Kind::HashMark(HashMark::default())), Ok(()));
    // While nobody asks, everybody may.
    let mut off = state.clone();
    act(&mut off, &disable()).expect("off");
    assert_eq!(off.check(None, &kind, &LeaseTable::default()), Ok(()));
}

#[test]
fn names_are_no_longer_than_a_key_of_a_snapshot() {
    let mut state = AuthState::default();
    let (longest, longer) = ("n".repeat(NAME_BYTES_MAX), "n".repeat(NAME_BYTES_MAX + 1));
    assert_eq!(act(&mut state, &user_add(&longer)), Err(AuthError::NameTooLong));
    assert_eq!(act(&mut state, &role_add(&longer)), Err(AuthError::NameTooLong));
    assert_eq!(act(&mut state, &user_add(&longest)), Ok(true));
    assert_eq!(act(&mut state, &role_add(&longest)), Ok(true));
    assert_eq!(act(&mut state, &grant_role(&longest, &longest)), Ok(true));
    // Nor does a whole state or an import bring them.
    let record = |name: &str| AuthRecord::user(&User { name: name.to_owned().into(), ..User::default() });
    assert!(record(&longest).is_well_formed() && !record(&longer).is_well_formed());
}

/// A number as a text of so many bytes.
fn padded(number: usize, bytes: usize) -> String {
    let digits = number.to_string();
    "0".repeat(bytes - digits.len()) + &digits
}

/// A role with so many permissions, each of two keys of so many bytes.
fn role_of(name: &str, permissions: usize, key_bytes: usize) -> AuthRecord {
    let range = |number| permission(Type::Read, &padded(number, key_bytes), &padded(number + 1, key_bytes));
    AuthRecord::role(&Role { name: name.to_owned().into(), key_permission: (0..permissions).map(range).collect() })
}

#[test]
fn a_role_may_have_ten_thousand_permissions_and_no_more_bytes_than_a_record() {
    let mut state = state_after(&[user_add("ann")]);
    state.install(&role_of("r", 9_999, 200));
    assert_eq!(act(&mut state, &grant_role("ann", "r")), Ok(true));
    let [x, y, z] = ["x", "y", "z"].map(|letter| letter.repeat(200));
    assert_eq!(act(&mut state, &grant("r", Type::Write, &x, &y)), Ok(true));
    assert_eq!(state.role("r").expect("it is there").key_permission.len(), 10_000);
    let rest = RECORD_BYTES_MAX - state.role_bytes("r");
    assert_eq!(act(&mut state, &grant("r", Type::Write, &"z".repeat(rest), "")), Err(AuthError::RecordTooLong));
    assert_eq!(act(&mut state, &grant("r", Type::Write, &"z".repeat(rest - 20), "")), Ok(true));
    assert_eq!(act(&mut state, &grant("r", Type::Write, &y, &z)), Err(AuthError::RecordTooLong));
    // What makes it no longer is no reason to refuse, also of one that came from elsewhere.
    assert_eq!(act(&mut state, &grant("r", Type::Read, &x, &y)), Ok(true));
    state.install(&role_of("r", 30_000, 200));
    assert_eq!(act(&mut state, &grant("r", Type::Read, &padded(1, 200), &padded(2, 200))), Ok(true));
    assert_eq!(act(&mut state, &grant("r", Type::Write, "a", "")), Err(AuthError::RecordTooLong));
    assert_eq!(act(&mut state, &revoke("r", &padded(1, 200), &padded(2, 200))), Ok(true));
}

#[test]
fn a_user_has_no_more_bytes_than_a_record() {
    let mut state = state_after(&[role_add("r")]);
    let roles = (0..RECORD_BYTES_MAX / 30_010).map(|number| padded(number, 30_000)).collect();
    state.install(&AuthRecord::user(&User { name: Bytes::from_static(b"ann"), roles, ..User::default() }));
    let rest = RECORD_BYTES_MAX - state.user_bytes("ann");
    // A client may bring a hash of its own, of any length.
    let hash = |bytes: usize| {
        let hashed_password = STANDARD.encode(vec![7u8; bytes]);
        let request = AuthUserChangePasswordRequest { name: "ann".to_owned(), hashed_password, ..Default::default() };
        Kind::UserChangePassword(request)
    };
    assert_eq!(act(&mut state, &hash(rest)), Err(AuthError::RecordTooLong));
    assert_eq!(act(&mut state, &hash(rest - 6)), Ok(true));
    assert_eq!(act(&mut state, &grant_role("ann", "r")), Err(AuthError::RecordTooLong));
    assert_eq!(act(&mut state, &hash(1)), Ok(true));
    assert_eq!(act(&mut state, &grant_role("ann", "r")), Ok(true));
    assert_eq!(act(&mut state, &revoke_role("ann", &padded(0, 30_000))), Ok(true));
}

#[test]
fn all_users_and_roles_have_a_bound_together() {
    let mut state = AuthState::default();
    for number in 0..ALL_BYTES_MAX / RECORD_BYTES_MAX {
        state.install(&role_of(&format!("role {number}"), 1, RECORD_BYTES_MAX / 2 - 40));
    }
    let mut refused = Ok(true);
    while refused.is_ok() {
        let name = format!("user {}", state.user_names().len());
        refused = act(&mut state, &user_add(&name));
    }
    assert_eq!(refused, Err(AuthError::TooManyBytes));
    assert!((ALL_BYTES_MAX - 100..=ALL_BYTES_MAX).contains(&state.bytes()), "{}", state.bytes());
    let one_too_many = "a name that is much longer than those before";
    assert_eq!(act(&mut state, &role_add(one_too_many)), Err(AuthError::TooManyBytes));
    assert_eq!(act(&mut state, &role_delete("role 0")), Ok(true));
    assert_eq!(act(&mut state, &role_add(one_too_many)), Ok(true));
}

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

#[test]
fn a_kind_of_permission_that_nobody_knows_permits_nothing() {
    let role = Role {
        key_permission: vec![Permission { perm_type: 7, ..permission(Type::Read, "a", "\0") }],
        ..Role::default()
    };
    let permissions = Permissions::of([&role].into_iter());
    assert!(!permissions.allow(Access::Read, b"a", b"") && !permissions.allow(Access::Write, b"a", b""));
}

/// Keys of few letters, so that ranges meet.
fn key() -> impl Strategy<Value = Vec<u8>> {
    vec(0u8..3, 1..3)
}

fn range_end() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![Just(Vec::new()), Just(vec![0]), key()]
}

/// Every key of up to three letters of the model's alphabet and one beyond, in order.
fn all_keys() -> Vec<Vec<u8>> {
    let letters = 0u8..4;
    let one: Vec<Vec<u8>> = letters.clone().map(|letter| vec![letter]).collect();
    let longer = |keys: &[Vec<u8>]| -> Vec<Vec<u8>> {
        keys.iter().flat_map(|key| letters.clone().map(move |letter| [&key[..], &[letter]].concat())).collect()
    };
    let two = longer(&one);
    let three = longer(&two);
    [one, two, three].concat()
}

fn names(key: &[u8], start: &[u8], range_end: &[u8]) -> bool {
    match range_end {
        [] => key == start,
        [0] => key >= start,
        end => key >= start && key < end,
    }
}

proptest! {
    /// A range is allowed exactly if each of its keys is, as far as keys of the model tell; one without keys is not judged.
    #[test]
    fn a_range_is_allowed_as_its_keys_are(
        granted in vec((key(), range_end(), 0i32..3), 0..8),
        (start, end) in (key(), range_end()),
    ) {
        let key_permission = granted.iter().map(|(key, end, kind)| {
            Permission { perm_type: *kind, key: key.clone().into(), range_end: end.clone().into() }
        });
        let role = Role { key_permission: key_permission.collect(), ..Role::default() };
        let permissions = Permissions::of([&role].into_iter());
        let keys: Vec<Vec<u8>> = all_keys().into_iter().filter(|key| names(key, &start, &end)).collect();
        for (access, other) in [(Access::Read, Type::Write), (Access::Write, Type::Read)] {
            let may = |key: &[u8]| granted.iter().any(|(first, last, kind)| {
                *kind != other as i32 && names(key, first, last)
            });
            // Between two keys of the model there are others: a range is wholly covered only if its ends are reached too.
            let expected = keys.iter().all(|key| may(key));
            if permissions.allow(access, &start, &end) {
                prop_assert!(expected);
            } else if end.is_empty() {
                prop_assert!(!expected);
            }
        }
    }

    /// However users and roles come and go, they are what a start would find: who may do what, and how many bytes there are.
    #[test]
    fn changes_come_to_what_a_start_finds(requests in vec((0usize..8, 0usize..3, 0usize..3, 0u8..3), 0..60)) {
        let (mut state, mut stored) = (AuthState::default(), std::collections::BTreeMap::new());
        for (kind, user, role, key) in requests {
            let (user, role) = (["ann", "bob", "root"][user], ["r", "root", "s"][role]);
            let kind = match kind {
                0 => user_add(user),
                1 => user_delete(user),
                2 => role_add(role),
                3 => role_delete(role),
                4 | 5 => grant_role(user, role),
                6 => grant(role, Type::Readwrite, &format!("k{key}"), ""),
                _ => revoke_role(user, role),
            };
            let Ok(records) = state.evaluate(&kind).expect("of users and roles") else { continue };
            state.install_all(&records);
            for AuthRecord { table, key, value } in records {
                let place = [&[table as u8], &key[..]].concat();
                match value {
                    Some(value) => drop(stored.insert(place, value)),
                    None => drop(stored.remove(&place)),
                }
            }
        }
        let mut system = System::default();
        for (place, value) in stored {
            prop_assert!(system.restore(&place, value));
        }
        prop_assert_eq!(AuthState::load(&system), Ok(state));
    }

    /// Ranges that touch count as one.
    #[test]
    fn ranges_that_touch_are_one(a in key(), b in key(), c in key()) {
        let mut ends = [a, b, c];
        ends.sort();
        let [a, b, c] = ends;
        prop_assume!(a < b && b < c);
        let of = |key: &[u8], end: &[u8]| Permission {
            perm_type: Type::Read as i32,
            key: Bytes::copy_from_slice(key),
            range_end: Bytes::copy_from_slice(end),
        };
        let role = |key_permission| Role { key_permission, ..Role::default() };
        let (first, second) = (role(vec![of(&a, &b)]), role(vec![of(&b, &c)]));
        let both = Permissions::of([&second, &first].into_iter());
        prop_assert!(both.allow(Access::Read, &a, &c));
        prop_assert!(!both.allow(Access::Read, &a, &[0]));
        prop_assert!(!Permissions::of([&first].into_iter()).allow(Access::Read, &a, &c));
    }
}
