//! The service Auth. What changes users and roles is ordered by the log; what shows them reads what is applied.

use std::sync::Arc;

use basalt_proto::authpb::{Permission, permission};
use basalt_proto::etcdserverpb::{
    AuthRoleGetRequest, AuthRoleGetResponse, AuthRoleListResponse, AuthStatusResponse, AuthUserAddRequest,
    AuthUserChangePasswordRequest, AuthUserGetRequest, AuthUserGetResponse, AuthUserListResponse, AuthenticateRequest,
    AuthenticateResponse, ResponseHeader,
};
use basalt_proto::log::Authentication;
use basalt_proto::log::request::Kind;
use bytes::Bytes;
use prost::Message;
use tracing::warn;

use super::chunks::Chunks;
use super::policy::Policy;
use super::service::{Reply, Service};
use super::status::{self, Code, Status};
use crate::apply::auth::error::AuthError;
use crate::apply::auth::state::{AuthState, ROOT};
use crate::auth::{Caller, HashingError, RotatingKeys, Secret, ShownPassword, TokenProvider};
use crate::logging::{ForeignText, Reminder};

/// How often a password is checked anew because somebody changed users or roles meanwhile.
const LOGIN_ATTEMPTS: usize = 8;

/// Anybody may try to log in, by any name.
static WRONG_LOGINS: Reminder = Reminder::new(10);

impl Service {
    pub(super) fn auth_status(self: &Arc<Self>) -> Reply {
        self.of_users_and_roles(0, |header, state| {
            let (enabled, auth_revision) = (state.is_enabled(), state.revision());
            Ok(Chunks::of(&AuthStatusResponse { header, enabled, auth_revision }))
        })
    }

    /// The password is hashed before anything else sees it.
    pub(super) fn user_add(self: &Arc<Self>, mut request: AuthUserAddRequest, caller: Caller) -> Reply {
        let service = self.clone();
        Reply::keeping(request.encoded_len(), async move {
            let password = std::mem::take(&mut request.password);
            if !request.options.is_some_and(|options| options.no_password) {
                request.hashed_password = service.passwords.hash(password).await?;
            }
            service.propose(Kind::UserAdd(request), &caller).settled().await
        })
    }

    /// Without a password a client may give its hash, as in etcd.
    pub(super) fn user_change_password(
        self: &Arc<Self>,
        mut request: AuthUserChangePasswordRequest,
        caller: Caller,
    ) -> Reply {
        let service = self.clone();
        Reply::keeping(request.encoded_len(), async move {
            let password = std::mem::take(&mut request.password);
            if !password.is_empty() {
                request.hashed_password = service.passwords.hash(password).await?;
            }
            service.propose(Kind::UserChangePassword(request), &caller).settled().await
        })
    }

    /// Everybody may look at itself.
    pub(super) fn user_get(self: &Arc<Self>, request: AuthUserGetRequest, caller: Caller) -> Reply {
        let service = self.clone();
        self.of_users_and_roles(request.name.len(), move |header, state| {
            let is_itself = match &caller {
                Caller::User { name, .. } => **name == request.name,
                // As in etcd: whoever says nothing of itself has the empty name, and hears that there is no such user.
                Caller::Nobody => request.name.is_empty(),
                Caller::Stranger => false,
            };
            service.authorize(if is_itself { Policy::NoStranger } else { Policy::Root }, &caller)?;
            let user = state.user(&request.name).ok_or(AuthError::UserNotFound)?;
            Ok(Chunks::of(&AuthUserGetResponse { header, roles: user.roles.clone() }))
        })
    }

    pub(super) fn user_list(self: &Arc<Self>, caller: Caller) -> Reply {
        let service = self.clone();
        self.of_users_and_roles(0, move |header, state| {
            service.authorize(Policy::Root, &caller)?;
            Ok(Chunks::of(&AuthUserListResponse { header, users: state.user_names() }))
        })
    }

    /// Everybody may look at its roles. The role root may everything, whatever it was granted.
    pub(super) fn role_get(self: &Arc<Self>, request: AuthRoleGetRequest, caller: Caller) -> Reply {
        let service = self.clone();
        self.of_users_and_roles(request.role.len(), move |header, state| {
            let is_its_own = caller.name().is_some_and(|name| state.has_role(name, &request.role));
            service.authorize(if is_its_own { Policy::NoStranger } else { Policy::Root }, &caller)?;
            let role = state.role(&request.role).ok_or(AuthError::RoleNotFound)?;
            let perm = if request.role == ROOT { vec![everything()] } else { role.key_permission.clone() };
            Ok(Chunks::of(&AuthRoleGetResponse { header, perm }))
        })
    }

    pub(super) fn role_list(self: &Arc<Self>, caller: Caller) -> Reply {
        let service = self.clone();
        self.of_users_and_roles(0, move |header, state| {
            service.authorize(Policy::Root, &caller)?;
            Ok(Chunks::of(&AuthRoleListResponse { header, roles: state.role_names() }))
        })
    }

    /// Answers from users and roles that hold all that was acknowledged before. Who asks is judged by them, too: those of
    /// before may let somebody in who was put out since. So much of the request is kept until then.
    fn of_users_and_roles(
        self: &Arc<Self>,
        kept_bytes: usize,
        answer: impl FnOnce(Option<ResponseHeader>, &AuthState) -> Result<Chunks, Status> + Send + 'static,
    ) -> Reply {
        let service = self.clone();
        Reply::keeping(kept_bytes, async move {
            let view = service.view_as_if_ordered().await?;
            let state = service.node.auth.now().state.clone();
            answer(Some(service.header().at(view.revision)), &state)
        })
    }

    /// Name and password against a token. A wrong password, a user without one and nobody of that name are told alike, and
    /// take the same time.
    pub(super) fn authenticate(self: &Arc<Self>, request: AuthenticateRequest) -> Reply {
        let service = self.clone();
        let (name, password) = (request.name, ShownPassword::of(&request.password));
        Reply::keeping(name.len(), async move {
            service.linearizable_view().await?;
            for _ in 0..LOGIN_ATTEMPTS {
                let state = service.node.auth.now().state.clone();
                if !state.is_enabled() {
                    return Err(AuthError::NotEnabled.into());
                }
                service.check_password(&name, &password, &state).await?;
                let login = match service.node.auth.provider() {
                    TokenProvider::Simple(_) => service.log_in(&name, state.revision()).await,
                    TokenProvider::Jwt(keys) => service.signed(keys, &name, state.revision()),
                    TokenProvider::None => Err(AuthError::AuthenticationFailed.into()),
                };
                // Somebody changed users or roles meanwhile: the password is checked against the newest.
                if login.as_ref().is_err_and(|status| *status == status::old_auth_revision()) {
                    continue;
                }
                return login;
            }
            Err(AuthError::OldRevision.into())
        })
    }

    async fn check_password(&self, name: &str, password: &ShownPassword, state: &AuthState) -> Result<(), Status> {
        let user = state.user(name);
        let has_password = |user: &&_| !user_without_password(user);
        let hash: Option<Bytes> = user.filter(has_password).map(|user| user.password.clone());
        if self.passwords.is_right(password.clone(), hash).await? {
            return Ok(());
        }
        if let Some(times) = WRONG_LOGINS.due() {
            warn!(user = %ForeignText(name), times, "invalid authentication was requested");
        }
        Err(match user {
            // etcd's words for whoever has none.
            Some(user) if user_without_password(user) => AuthError::NoPassword.into(),
            _ => AuthError::AuthenticationFailed.into(),
        })
    }

    /// A token that needs nobody to know it.
    fn signed(&self, keys: &RotatingKeys, user: &str, revision: u64) -> Result<Chunks, Status> {
        // etcd's map misses what can go wrong here.
        let token = keys.sign(user, revision).map_err(|error| Status::new(Code::Unknown, error.to_string()))?;
        let header = Some(self.header().at(self.node.view().revision));
        Ok(Chunks::of(&AuthenticateResponse { header, token }))
    }

    /// Has all members know a new token. The log has its digest only.
    async fn log_in(self: &Arc<Self>, user: &str, auth_revision: u64) -> Result<Chunks, Status> {
        let secret = Secret::draw();
        let login = Authentication { user: user.to_owned(), secret_digest: secret.digest(), auth_revision };
        let completed = self.order(Kind::Authentication(login), None)?.await?;
        let header = Some(self.header().at(completed.view.revision));
        let token = secret.token(completed.view.applied.index);
        Ok(Chunks::of(&AuthenticateResponse { header, token }))
    }
}

fn user_without_password(user: &basalt_proto::authpb::User) -> bool {
    user.options.is_some_and(|options| options.no_password)
}

/// What the role root may.
fn everything() -> Permission {
    let range_end = Bytes::from_static(&[0]);
    Permission { perm_type: permission::Type::Readwrite as i32, key: Bytes::new(), range_end }
}

impl From<HashingError> for Status {
    fn from(error: HashingError) -> Self {
        match error {
            // Go's own words reach clients of etcd like that.
            HashingError::TooLong => Status::new(Code::Unknown, error.to_string()),
            HashingError::TooMany => status::too_many_requests(),
            HashingError::GivenUp => status::stopped(),
            HashingError::NoRandomness => Status::new(Code::Internal, format!("basalt: {error}")),
        }
    }
}
