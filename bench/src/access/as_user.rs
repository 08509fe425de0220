//! Users, a role and a token on a server that has none yet.

use anyhow::{Context, Result};
use basalt_proto::authpb::{Permission, permission};
use basalt_proto::etcdserverpb::auth_client::AuthClient;
use basalt_proto::etcdserverpb::{
    AuthEnableRequest, AuthRoleAddRequest, AuthRoleGrantPermissionRequest, AuthUserAddRequest,
    AuthUserGrantRoleRequest, AuthenticateRequest,
};
use bytes::Bytes;
use tonic::transport::Channel;

use super::Credentials;

const ROOT: &str = "root";
const USER: &str = "caller";
const ROLE: &str = "all-keys";
const PASSWORD: &str = "bench";

/// Turns authentication on and comes back as a user who is not root: root is asked for no permission.
///
/// # Errors
/// The server refuses a step.
pub async fn secure(channel: Channel) -> Result<Credentials> {
    let mut auth = AuthClient::new(channel);
    auth.role_add(AuthRoleAddRequest { name: ROOT.to_owned() }).await.context("add the role root")?;
    auth.role_add(AuthRoleAddRequest { name: ROLE.to_owned() }).await.context("add a role")?;
    // From the first key on: all of them.
    let range = Bytes::from_static(b"\0");
    let perm = Permission { perm_type: permission::Type::Readwrite.into(), key: range.clone(), range_end: range };
    let grant = AuthRoleGrantPermissionRequest { name: ROLE.to_owned(), perm: Some(perm) };
    auth.role_grant_permission(grant).await.context("grant a permission")?;
    for (user, role) in [(ROOT, ROOT), (USER, ROLE)] {
        let add = AuthUserAddRequest {
            name: user.to_owned(),
            password: PASSWORD.to_owned(),
            ..AuthUserAddRequest::default()
        };
        auth.user_add(add).await.with_context(|| format!("add the user {user}"))?;
        let grant = AuthUserGrantRoleRequest { user: user.to_owned(), role: role.to_owned() };
        auth.user_grant_role(grant).await.with_context(|| format!("grant a role to {user}"))?;
    }
    auth.auth_enable(AuthEnableRequest {}).await.context("turn authentication on")?;
    let who = AuthenticateRequest { name: USER.to_owned(), password: PASSWORD.to_owned() };
    let answer = auth.authenticate(who).await.context("get a token")?;
    Credentials::of(&answer.get_ref().token)
}
