//! Who may call what: the one gate in front of every method (deny by default). A method without a policy does not compile,
//! and what reads keys takes a [`Permitted`] that only this file makes. What a request changes is judged once more where it
//! is applied (`crate::apply::auth::check`), by the users and roles of that moment.

use std::sync::atomic::Ordering;

use basalt_proto::log::Principal;

use super::method::Method;
use super::service::Service;
use super::status::{self, Status};
use crate::apply::auth::check::Asking;
use crate::apply::auth::error::AuthError;
use crate::apply::auth::permissions::Access;
use crate::auth::{Caller, Credentials, Identified};

/// What a method asks of its caller while authentication is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Nothing: health, and who comes to be known.
    Open,
    /// Not to show a token that is none.
    NoStranger,
    /// To be a user.
    User,
    /// To have the role root.
    Root,
    /// Whatever the request names: its handler asks, or who applies it.
    Contents,
}

impl Method {
    /// Its policy, which is etcd's (etcd-contract 49).
    pub fn policy(self) -> Policy {
        match self {
            Method::Authenticate | Method::HealthCheck | Method::HealthWatch => Policy::Open,
            Method::AuthStatus => Policy::NoStranger,
            Method::LeaseGrant
            | Method::LeaseRevoke
            | Method::LeaseTimeToLive
            | Method::MemberList
            | Method::Alarm
            | Method::Status
            | Method::Describe => Policy::User,
            Method::Compact
            | Method::MemberAdd
            | Method::MemberRemove
            | Method::MemberUpdate
            | Method::MemberPromote
            | Method::Defragment
            | Method::Hash
            | Method::HashKv
            | Method::MoveLeader
            | Method::Downgrade
            | Method::Snapshot
            | Method::AuthEnable
            | Method::AuthDisable
            | Method::UserAdd
            | Method::UserList
            | Method::UserDelete
            | Method::UserChangePassword
            | Method::UserGrantRole
            | Method::UserRevokeRole
            | Method::RoleAdd
            | Method::RoleList
            | Method::RoleDelete
            | Method::RoleGrantPermission
            | Method::RoleRevokePermission => Policy::Root,
            Method::Range
            | Method::RangeStream
            | Method::Put
            | Method::DeleteRange
            | Method::Txn
            | Method::Watch
            | Method::LeaseKeepAlive
            | Method::LeaseLeases
            | Method::UserGet
            | Method::RoleGet
            // They call others of these on behalf of their caller.
            | Method::Lock
            | Method::Unlock
            | Method::Campaign
            | Method::Proclaim
            | Method::Leader
            | Method::Observe
            | Method::Resign => Policy::Contents,
        }
    }
}

/// That a caller may read what it asks for.
pub struct Permitted(());

impl Service {
    /// Who shows these credentials. A token that another member gave a moment ago is waited for.
    pub async fn identify(&self, credentials: &Credentials) -> Caller {
        let look = || {
            let applied = self.node.gauges.applied_index.load(Ordering::Relaxed);
            self.node.auth.identify(credentials, applied, self.node.now())
        };
        if let Identified::Caller(caller) = look() {
            return caller;
        }
        // What is acknowledged anywhere is applied here then: the token too, if it is one.
        let caught_up = self.linearizable_view().await;
        match look() {
            Identified::Caller(caller) if caught_up.is_ok() => caller,
            _ => Caller::Stranger,
        }
    }

    /// Whether a caller may call a method at all.
    ///
    /// # Errors
    /// etcd's.
    pub fn authorize(&self, policy: Policy, caller: &Caller) -> Result<(), Status> {
        match policy {
            Policy::Open | Policy::Contents => Ok(()),
            Policy::NoStranger => self.ask(caller, |_| Ok(())).map(drop),
            Policy::User => self.ask(caller, |asking| asking.is_somebody()).map(drop),
            Policy::Root => self.ask(caller, |asking| asking.is_root()).map(drop),
        }
    }

    /// Whether a caller may read what `asks` names, by the newest users and roles: ask after the View is taken.
    ///
    /// # Errors
    /// etcd's.
    pub(super) fn ask(
        &self,
        caller: &Caller,
        asks: impl FnOnce(&Asking<'_>) -> Result<(), AuthError>,
    ) -> Result<Permitted, Status> {
        self.node.auth.ask(caller, asks)?;
        Ok(Permitted(()))
    }

    /// Whether a caller may read a range.
    ///
    /// # Errors
    /// etcd's.
    pub(super) fn may_read(&self, caller: &Caller, key: &[u8], range_end: &[u8]) -> Result<Permitted, Status> {
        self.ask(caller, |asking| asking.may(Access::Read, key, range_end))
    }

    /// On whose behalf a caller's request is ordered.
    ///
    /// # Errors
    /// Of a token that is none.
    pub(super) fn principal(&self, caller: &Caller) -> Result<Option<Principal>, Status> {
        Ok(self.node.auth.principal(caller)?)
    }

    /// Whether a caller may use all keys of a lease so. Only who applies knows them.
    ///
    /// # Errors
    /// etcd's; the node's.
    pub(super) async fn may_use_lease(&self, caller: &Caller, access: Access, lease: i64) -> Result<(), Status> {
        if !self.node.auth.is_enabled() {
            return Ok(());
        }
        // Root needs no look at the keys.
        if self.ask(caller, |asking| asking.is_root()).is_ok() {
            return Ok(());
        }
        let principal = self.principal(caller)?;
        let allowed = self.node.ask(move |machine| {
            machine.auth().asked_by(principal.as_ref()).may_all_of(access, lease, machine.leases())
        });
        Ok(self.within(allowed).await??)
    }

    /// Whether a caller may know of all leases: of one that holds a key it may not read it may not (etcd-contract 49).
    ///
    /// # Errors
    /// etcd's; the node's.
    pub(super) async fn may_list_leases(&self, caller: &Caller) -> Result<(), Status> {
        if !self.node.auth.is_enabled() || self.ask(caller, |asking| asking.is_root()).is_ok() {
            return Ok(());
        }
        let principal = self.principal(caller)?;
        let allowed = self.node.ask(move |machine| {
            let asking = machine.auth().asked_by(principal.as_ref());
            let leases = machine.leases();
            asking.is_somebody()?;
            leases.iter().try_for_each(|(id, _)| asking.may_all_of(Access::Read, id, leases))
        });
        Ok(self.within(allowed).await??)
    }
}

impl From<AuthError> for Status {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::RootUserMissing => status::root_user_missing(),
            AuthError::RootRoleMissing => status::root_role_missing(),
            AuthError::UserExists => status::user_exists(),
            AuthError::UserEmpty => status::user_empty(),
            AuthError::UserNotFound => status::user_not_found(),
            AuthError::RoleExists => status::role_exists(),
            AuthError::RoleNotFound => status::role_not_found(),
            AuthError::RoleEmpty => status::role_empty(),
            AuthError::NameTooLong => status::name_too_long(),
            AuthError::RecordTooLong => status::auth_record_too_long(),
            AuthError::TooManyBytes => status::auth_too_large(),
            AuthError::PermissionMissing => status::permission_missing(),
            AuthError::AuthenticationFailed => status::authentication_failed(),
            AuthError::NoPassword => status::no_password(),
            AuthError::PermissionDenied => status::permission_denied(),
            AuthError::RoleNotGranted => status::role_not_granted(),
            AuthError::PermissionNotGranted => status::permission_not_granted(),
            AuthError::NotEnabled => status::auth_not_enabled(),
            AuthError::OldRevision => status::old_auth_revision(),
            AuthError::InvalidToken => status::invalid_token(),
            AuthError::InvalidManagement => status::invalid_auth_management(),
        }
    }
}
