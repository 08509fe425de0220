//! Watches end with the permission to read, in whatever order the room hears of it.

use std::sync::Arc;
use std::time::Duration;

use basalt_proto::authpb::{Permission, Role, User, permission};
use basalt_proto::etcdserverpb::{WatchCreateRequest, WatchResponse};
use basalt_storage::mvcc::system::Table;
use bytes::Bytes;
use prost::Message;

use super::super::{Input, Output, StreamId, Watches};
use super::limits::config;
use super::store::Store;
use crate::apply::auth::state::{AuthNow, AuthRecord, AuthState};

const STREAM: StreamId = StreamId(1);

fn room() -> Watches {
    let store = Store::default();
    let mut room = Watches::new(config(), store.map.clone(), store.revision, store.compact_revision);
    room.handle(Input::Open(STREAM), Duration::ZERO, &mut Vec::new());
    room
}

/// Authentication is on, and ann may read these keys.
fn auth(number: u64, keys: &[&str]) -> Arc<AuthNow> {
    let named = |name: &str| Bytes::copy_from_slice(name.as_bytes());
    let permission =
        |key: &&str| Permission { perm_type: permission::Type::Read as i32, key: named(key), range_end: Bytes::new() };
    let role = Role { name: named("r"), key_permission: keys.iter().map(permission).collect() };
    let user = User { name: named("ann"), roles: vec!["r".to_owned()], ..User::default() };
    let mut state = AuthState::default();
    for (table, key, value) in [
        (Table::Auth, "authEnabled", vec![1]),
        (Table::AuthUser, "ann", user.encode_to_vec()),
        (Table::AuthRole, "r", role.encode_to_vec()),
    ] {
        state.install(&AuthRecord { table, key: named(key), value: Some(value.into()) });
    }
    Arc::new(AuthNow { number, state: Arc::new(state) })
}

/// What the stream is told: ids of watches that began, and that ended with a reason.
fn told(room: &mut Watches, input: Input) -> Vec<(i64, bool, String)> {
    let mut out = Vec::new();
    room.handle(input, Duration::ZERO, &mut out);
    let sent = out.into_iter().filter_map(|output| match output {
        Output::Send { message, .. } => Some(WatchResponse::decode(&*message.concat()).expect("a response")),
        _ => None,
    });
    sent.map(|response| (response.watch_id, response.canceled, response.cancel_reason)).collect()
}

fn ask(room: &mut Watches, auth: &Arc<AuthNow>) -> Vec<(i64, bool, String)> {
    told(room, Input::Asker { stream: STREAM, user: Some("ann".into()), auth: auth.clone() })
}

fn create(room: &mut Watches, key: &'static str) -> Vec<(i64, bool, String)> {
    let request = WatchCreateRequest { key: key.into(), ..WatchCreateRequest::default() };
    told(room, Input::Create { stream: STREAM, request })
}

fn denied(watch_id: i64) -> Vec<(i64, bool, String)> {
    vec![(watch_id, true, "rpc error: code = PermissionDenied desc = etcdserver: permission denied".to_owned())]
}

fn begun(watch_id: i64) -> Vec<(i64, bool, String)> {
    vec![(watch_id, false, String::new())]
}

#[test]
fn a_watch_that_was_let_through_by_older_users_and_roles_is_judged_by_the_newest() {
    let mut room = room();
    assert_eq!(ask(&mut room, &auth(1, &["a"])), []);
    assert_eq!(told(&mut room, Input::Permissions(auth(2, &["b"]))), []);
    assert_eq!(create(&mut room, "a"), denied(-1));
    assert_eq!(create(&mut room, "b"), begun(0));
    // Nobody was asked when it was let through, and somebody is by now.
    let mut room = self::room();
    assert_eq!(told(&mut room, Input::Permissions(auth(1, &["a"]))), []);
    let refused = create(&mut room, "a");
    assert_eq!(refused[0].2, "rpc error: code = InvalidArgument desc = etcdserver: user name is empty");
}

#[test]
fn a_newer_watch_of_a_stream_shields_no_older_one() {
    let mut room = room();
    assert_eq!(ask(&mut room, &auth(1, &["a", "b"])), []);
    assert_eq!(create(&mut room, "a"), begun(0));
    // The API knows of the change before the room does.
    assert_eq!(ask(&mut room, &auth(2, &["b"])), denied(0));
    assert_eq!(create(&mut room, "b"), begun(1));
    assert_eq!(told(&mut room, Input::Permissions(auth(2, &["b"]))), []);
    // What comes late says nothing any more.
    assert_eq!(told(&mut room, Input::Permissions(auth(1, &[]))), []);
    assert_eq!(told(&mut room, Input::Permissions(auth(3, &[]))), denied(1));
}
