//! How long what is known of users and roles may be.

use basalt_proto::authpb::{Role, User};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::*;
use crate::apply::auth::bounds::{ALL_BYTES_MAX, NAME_BYTES_MAX, RECORD_BYTES_MAX};

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
