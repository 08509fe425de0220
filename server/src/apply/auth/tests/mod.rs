//! Management as etcd does it, and requests of every kind.

mod bounds;
mod costs;
mod models;

use basalt_proto::authpb::{Permission, UserAddOptions, permission::Type};
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
use bytes::Bytes;

use super::check::cluster_principal;
use super::error::AuthError;
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
