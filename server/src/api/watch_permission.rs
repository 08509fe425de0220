//! Whether a client may begin a watch. The watch room asks again, whenever users or roles change.

use std::sync::Arc;

use basalt_proto::etcdserverpb::WatchCreateRequest;

use crate::apply::auth::error::AuthError;
use crate::apply::auth::permissions::Access;
use crate::apply::auth::state::AuthNow;
use crate::auth::{Auth, Caller};

/// On whose behalf a watch was let through.
pub enum Asked {
    /// Nobody asked.
    Nobody,
    /// Of this user, by these users and roles.
    By {
        /// `None` for nobody.
        user: Option<Arc<str>>,
        /// What the watch room is to know before it hears of the watch.
        auth: Arc<AuthNow>,
    },
}

/// Whether a client may watch. One that begins before all time is refused for that (etcd-contract 24).
///
/// # Errors
/// What it is told instead (etcd-contract 26).
pub fn may_watch(auth: &Auth, caller: &Caller, request: &WatchCreateRequest) -> Result<Asked, &'static str> {
    let auth = auth.now();
    if request.start_revision < 0 || !auth.state.is_enabled() {
        return Ok(Asked::Nobody);
    }
    let key: &[u8] = if request.key.is_empty() { &[0] } else { &request.key };
    let allowed = caller
        .principal(&auth.state)
        .and_then(|principal| auth.state.asked_by(principal.as_ref()).may(Access::Read, key, &request.range_end));
    match allowed {
        Ok(()) => Ok(Asked::By { user: caller.name().cloned(), auth: auth.clone() }),
        Err(AuthError::InvalidToken) => Err("rpc error: code = Unauthenticated desc = etcdserver: invalid auth token"),
        Err(AuthError::OldRevision) => {
            Err("rpc error: code = InvalidArgument desc = etcdserver: revision of auth store is old")
        }
        Err(AuthError::UserEmpty) => Err("rpc error: code = InvalidArgument desc = etcdserver: user name is empty"),
        Err(_) => Err("rpc error: code = PermissionDenied desc = etcdserver: permission denied"),
    }
}
