use basalt_proto::authpb::{Permission, permission};
use basalt_proto::etcdserverpb::{
    AuthDisableRequest, AuthEnableRequest, AuthRoleAddRequest, AuthRoleGrantPermissionRequest, AuthUserAddRequest,
    AuthUserGrantRoleRequest,
};
use basalt_proto::log::{Authentication, Principal};
use basalt_server::apply::auth::error::AuthError;

use super::*;
use crate::model::Access;
use crate::simulation::invariants::watch::Wanted;
use crate::simulation::invariants::watch::permitted::{self, Listener};

fn add(name: &str) -> Kind {
    let (name, hashed_password) = (name.to_owned(), "cHc=".to_owned());
    Kind::UserAdd(AuthUserAddRequest { name, hashed_password, ..Default::default() })
}

fn role(user: &str, role: &str) -> Kind {
    Kind::UserGrantRole(AuthUserGrantRoleRequest { user: user.to_owned(), role: role.to_owned() })
}

fn grant(key: &str, end: &str) -> Kind {
    let perm_type = permission::Type::Read as i32;
    let perm = Permission { perm_type, key: key.as_bytes().to_vec().into(), range_end: end.as_bytes().to_vec().into() };
    Kind::RoleGrantPermission(AuthRoleGrantPermissionRequest { name: "r".to_owned(), perm: Some(perm) })
}

fn log_in(auth_revision: u64) -> Kind {
    let secret_digest = Sha256::digest("secret").to_vec().into();
    Kind::Authentication(Authentication { user: "ann".to_owned(), secret_digest, auth_revision })
}

/// One entry for each request, from 1 on: ann has a role without permissions, and authentication is on after entry 6.
fn begun() -> (Model, AuthHistory) {
    let made = Kind::RoleAdd(AuthRoleAddRequest { name: "r".to_owned() });
    let kinds = [add("root"), role("root", "root"), made, add("ann"), role("ann", "r")];
    let mut all = (Model::default(), AuthHistory::default());
    kinds.into_iter().for_each(|kind| _ = append(&mut all, kind));
    append(&mut all, Kind::AuthEnable(AuthEnableRequest {})).expect("root is there");
    all
}

fn append((model, history): &mut (Model, AuthHistory), kind: Kind) -> Result<i64, Refused> {
    let principal = Some(Principal { user: "root".to_owned(), auth_revision: u64::MAX });
    let index = 1 + history.last;
    let request = Request { id: index, principal, kind: Some(kind) };
    let answer = model.apply(&request);
    history.appended(index, [&request].into_iter(), &[(index, answer)], model);
    answer
}

#[test]
fn ranges_are_covered_by_several_and_by_nothing_less() {
    let mut all = begun();
    let may = |all: &(Model, AuthHistory), key: &str, end: &str| {
        all.0.auth.may(Some("ann"), Access::Read, key.as_bytes(), end.as_bytes()).is_ok()
    };
    assert!(!may(&all, "a", ""));
    append(&mut all, grant("a", "c")).expect("a role");
    append(&mut all, grant("c", "f")).expect("a role");
    append(&mut all, grant("g", "\0")).expect("a role");
    assert!(may(&all, "a", "f") && may(&all, "b", "e") && may(&all, "e", "") && may(&all, "h", "\0"));
    assert!(!may(&all, "a", "g") && !may(&all, "f", "") && !may(&all, "A", "b") && !may(&all, "e", "\0"));
    assert!(!may(&all, "e", "h"));
    assert_eq!(all.0.auth.may(None, Access::Read, b"a", b""), Err(AuthError::UserEmpty));
    assert_eq!(all.0.auth.may(Some("ann"), Access::Write, b"a", b""), Err(AuthError::PermissionDenied));
}

#[test]
fn a_token_is_good_from_its_entry_to_the_one_that_ends_it() {
    let mut all = begun();
    let revision = all.0.auth.revision;
    assert_eq!(append(&mut all, log_in(revision - 1)), Err(Refused::Auth(AuthError::OldRevision)));
    append(&mut all, log_in(revision)).expect("ann is there");
    let given = all.1.last;
    append(&mut all, Kind::AuthDisable(AuthDisableRequest {})).expect("root asks");
    let user_of = |token: &str, applied| all.1.user_of(token, applied).map(str::to_owned);
    assert_eq!(user_of("secret.9", given), Some("ann".to_owned()));
    assert_eq!(user_of("secret.9", given - 1), None);
    assert_eq!(user_of("secret.9", given + 1), None);
    assert_eq!(user_of("other.9", given), None);
}

fn told(permitted_after: bool) {
    let mut all = begun();
    append(&mut all, grant("a", "")).expect("a role");
    let from = all.1.last;
    all.1.entries.insert(2, from + 1);
    let wanted = Wanted { key: b"a".to_vec(), ..Wanted::default() };
    let listener = Listener { user: Some(if permitted_after { "ann" } else { "bob" }), begun: 0, applied: from + 2 };
    permitted::told(&listener, &wanted, 2, &all.1);
}

#[test]
fn who_may_read_is_told() {
    told(true);
}

#[test]
#[should_panic(expected = "I23")]
fn an_event_for_whom_it_is_not_is_seen() {
    told(false);
}

#[test]
#[should_panic(expected = "I23")]
fn a_watch_that_ends_without_a_reason_is_seen() {
    let mut all = begun();
    append(&mut all, grant("a", "")).expect("a role");
    let applied = all.1.last;
    let wanted = Wanted { key: b"a".to_vec(), ..Wanted::default() };
    let listener = Listener { user: Some("ann"), begun: applied, applied };
    permitted::denied(&listener, &[&wanted], "permission denied", &all.1);
}
