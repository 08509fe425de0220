//! Who clients are, and what a node lets them do before the log: what apply thread and API do, on one thread.

use std::sync::Arc;
use std::time::Duration;

use basalt_proto::etcdserverpb::WatchCreateRequest;
use basalt_proto::log::request::Kind;
use basalt_proto::log::{Authentication, LogEntry, Principal};
use basalt_server::api::method::Method;
use basalt_server::api::policy::Policy;
use basalt_server::api::watch_permission::{Asked, may_watch};
use basalt_server::apply::answer::{Answer, Refusal};
use basalt_server::apply::auth::error::AuthError;
use basalt_server::apply::auth::permissions::Access;
use basalt_server::apply::auth::state::{AuthNow, AuthState};
use basalt_server::apply::effects::{Effect, Effects};
use basalt_server::apply::machine::Machine;
use basalt_server::auth::{Auth, Caller, Credentials, Identified, TokenKind};

use super::node::SimulatedNode;

/// As long as etcd's.
const TOKEN_LIFE: Duration = Duration::from_secs(300);

/// What the requests of an entry were answered, by their ids.
type Answers = [(u64, Result<Answer, Refusal>)];

/// What a node knows of its clients.
pub(super) struct AuthSide {
    auth: Auth,
}

impl AuthSide {
    pub(super) fn new(machine: &Machine) -> Self {
        Self { auth: Auth::new(machine.auth().clone(), TokenKind::Simple { life: TOKEN_LIFE }.into()) }
    }

    /// An entry was applied that is `age` old; gives users and roles that watches are to hear of.
    pub(super) fn applied(
        &self,
        machine: &Machine,
        entry: &LogEntry,
        (answers, effects): (&Answers, &Effects),
        (age, now): (Duration, Duration),
    ) -> Option<Arc<AuthNow>> {
        for login in logins(entry, answers).filter(|login| login.auth_revision == machine.auth().revision()) {
            self.auth.logged_in(login, machine.auth(), age, now);
        }
        if effects.effects.iter().any(|effect| matches!(effect, Effect::AuthChanged(_))) {
            self.auth.follow(machine.auth());
        }
        self.show(machine)
    }

    /// Another member's state took the place of the one before.
    pub(super) fn replaced(&self, machine: &Machine) -> Option<Arc<AuthNow>> {
        self.auth.replaced();
        self.show(machine)
    }

    /// Users and roles that watches are to hear of, if others are shown by now.
    fn show(&self, machine: &Machine) -> Option<Arc<AuthNow>> {
        self.auth.show(machine.auth())
    }
}

fn logins<'a>(entry: &'a LogEntry, answers: &'a Answers) -> impl Iterator<Item = &'a Authentication> {
    entry.requests.iter().zip(answers).filter_map(|(request, (_, answer))| match &request.kind {
        Some(Kind::Authentication(login)) if answer.is_ok() => Some(login),
        _ => None,
    })
}

/// The call that such a request comes from.
fn method_of(kind: &Kind) -> Method {
    match kind {
        Kind::Put(_) => Method::Put,
        Kind::DeleteRange(_) => Method::DeleteRange,
        Kind::Txn(_) => Method::Txn,
        Kind::LeaseGrant(_) => Method::LeaseGrant,
        Kind::LeaseRevoke(_) => Method::LeaseRevoke,
        Kind::Alarm(_) => Method::Alarm,
        Kind::Compaction(_) => Method::Compact,
        Kind::MemberChange(_) => Method::MemberAdd,
        Kind::AuthEnable(_) => Method::AuthEnable,
        Kind::AuthDisable(_) => Method::AuthDisable,
        Kind::UserAdd(_) => Method::UserAdd,
        Kind::UserDelete(_) => Method::UserDelete,
        Kind::UserChangePassword(_) => Method::UserChangePassword,
        Kind::UserGrantRole(_) => Method::UserGrantRole,
        Kind::UserRevokeRole(_) => Method::UserRevokeRole,
        Kind::RoleAdd(_) => Method::RoleAdd,
        Kind::RoleDelete(_) => Method::RoleDelete,
        Kind::RoleGrantPermission(_) => Method::RoleGrantPermission,
        Kind::RoleRevokePermission(_) => Method::RoleRevokePermission,
        other => panic!("no client makes {other:?}"),
    }
}

impl SimulatedNode {
    fn auth(&self) -> &Auth {
        &self.apply.auth.auth
    }

    /// The users and roles that clients are judged by.
    pub fn shown_auth(&self) -> Arc<AuthState> {
        self.auth().now().state.clone()
    }

    /// Who shows a token, or none.
    pub fn identify(&self, token: Option<&str>) -> Identified {
        let credentials = Credentials { token: token.map(Arc::from), common_name: None };
        let (applied, now) = (self.machine().store().applied.index, self.clock.monotonic(self.now));
        self.auth().identify(&credentials, applied, now)
    }

    /// On whose behalf a caller's request is ordered, if it may be as far as is known before.
    ///
    /// # Errors
    /// [`AuthError`].
    pub fn principal(&self, caller: &Caller, kind: &Kind) -> Result<Option<Principal>, AuthError> {
        match method_of(kind).policy() {
            Policy::Root => self.auth().ask(caller, |asking| asking.is_root())?,
            Policy::User => self.auth().ask(caller, |asking| asking.is_somebody())?,
            Policy::Open | Policy::NoStranger | Policy::Contents => {}
        }
        self.auth().principal(caller)
    }

    /// Whether a caller may see the keys of a range in the newest View.
    ///
    /// # Errors
    /// [`AuthError`].
    pub fn may_read(&self, caller: &Caller, key: &[u8], range_end: &[u8]) -> Result<(), AuthError> {
        self.auth().ask(caller, |asking| asking.may(Access::Read, key, range_end))
    }

    /// Whether a caller may begin a watch.
    ///
    /// # Errors
    /// What it is told instead.
    pub fn may_watch(&self, caller: &Caller, request: &WatchCreateRequest) -> Result<Asked, &'static str> {
        may_watch(self.auth(), caller, request)
    }
}
