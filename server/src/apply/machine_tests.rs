//! What the machine refuses so that its state can be written down, and what it does once for a request.

use std::sync::Arc;

use basalt_proto::authpb::{Role, User};
use basalt_proto::etcdserverpb::AuthRoleDeleteRequest;
use basalt_proto::log::member_change::Kind as Change;
use basalt_proto::log::request::Kind;
use basalt_proto::log::{LogEntry, MemberChange, MemberDescription, MemberUrls, Request};
use basalt_storage::checkpoint::Salt;
use basalt_storage::checkpoint::manifest::MEMBERSHIP_BYTES_MAX;
use basalt_storage::checkpoint::recovery::{self, Birth};
use basalt_storage::disk::SimulatedDisk;
use basalt_storage::mvcc::shard_map::ShardMap;
use basalt_storage::mvcc::view::LogPosition;
use basalt_storage::pages::PageCache;
use bytes::Bytes;

use super::answer::{Answer, Refusal};
use super::auth::permissions::counts;
use super::auth::state::AuthRecord;
use super::effects::{Effect, Effects};
use super::machine::Machine;
use super::member_bounds::MemberBound;
use super::members::Members;
use super::values::Prefetched;

fn machine() -> Machine {
    let conf_state = Members::single_voter(7).encode().to_vec();
    let birth = Birth { cluster_id: 1, member_id: 7, incarnation: 3, conf_state, shard_map: ShardMap::default() };
    let (disk, cache) = (SimulatedDisk::new(1), Arc::new(PageCache::new(1 << 20)));
    Machine::new(recovery::create(&disk, &cache, Salt::new(1), birth).expect("a healthy disk").store)
}

fn apply(machine: &mut Machine, kind: Kind) -> Result<Answer, Refusal> {
    let index = machine.store().applied.index + 1;
    let requests = vec![Request { id: 1, principal: None, kind: Some(kind) }];
    let entry = LogEntry { requests, ..LogEntry::default() };
    let applied = machine.apply(LogPosition { index, term: 1 }, &entry, &mut Prefetched::default());
    applied.answers.into_iter().next().expect("one answer").1
}

#[test]
fn what_no_manifest_holds_is_not_said_of_members() {
    let mut machine = machine();
    let urls = MemberUrls { id: 7, peer_urls: vec![format!("http://{}", "h".repeat(70_000))] };
    let update = Kind::MemberChange(MemberChange { kind: Some(Change::Update(urls)) });
    let refused = Refusal::MemberBound(MemberBound::Member);
    assert_eq!(apply(&mut machine, update).expect_err("too long"), refused);
    let describe = |name: &str| {
        let name = name.to_owned();
        Kind::MemberDescription(MemberDescription { id: 7, name, ..MemberDescription::default() })
    };
    assert_eq!(apply(&mut machine, describe(&"n".repeat(70_000))).expect_err("too long"), refused);
    apply(&mut machine, describe("m")).expect("a name");
    assert_eq!(machine.members().get(7).map(|member| &*member.name), Some("m"));
    assert!(machine.store().conf_state.len() <= MEMBERSHIP_BYTES_MAX);
}

/// Not once for each of them: all that come after it wait.
#[test]
fn a_role_is_taken_from_its_users_by_one_look_at_each() {
    const USERS: usize = 300;
    let mut machine = machine();
    let role = AuthRecord::role(&Role { name: Bytes::from_static(b"r"), ..Role::default() });
    let user = |number: usize| {
        let name = Bytes::from(format!("user {number}"));
        AuthRecord::user(&User { name, roles: vec!["r".to_owned()], ..User::default() })
    };
    let effects = std::iter::once(role).chain((0..USERS).map(user)).map(Effect::AuthChanged).collect();
    let log = LogPosition { index: 1, term: 1 };
    machine.install(&Effects { log, revision: machine.store().revision(), effects, ..Effects::default() });
    let before = counts::JOINED.get();
    apply(&mut machine, Kind::RoleDelete(AuthRoleDeleteRequest { role: "r".to_owned() })).expect("it is there");
    assert_eq!(counts::JOINED.get() - before, USERS);
    assert!(machine.auth().role("r").is_none() && !machine.auth().has_role("user 7", "r"));
}
