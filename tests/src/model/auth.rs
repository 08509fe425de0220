//! Users and roles, and what they may, as simply as it can be said: a range is allowed if each place in it at which any
//! permission begins or ends is.

use std::collections::{BTreeMap, BTreeSet};

use basalt_proto::authpb::{Permission, permission};
use basalt_proto::etcdserverpb::request_op::Request as Op;
use basalt_proto::etcdserverpb::{PutRequest, TxnRequest};
use basalt_proto::log::request::Kind;
use basalt_proto::log::{Authentication, Principal};
use basalt_server::apply::auth::error::AuthError;
use basalt_server::apply::auth::state::AuthState;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

const ROOT: &str = "root";

/// What is done with keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// They are looked at.
    Read,
    /// They are set or deleted.
    Write,
}

/// What a role may: the kind of permission by its first key and its end.
pub type Grants = BTreeMap<(Vec<u8>, Vec<u8>), i32>;

/// One user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelUser {
    /// As it is stored.
    pub password: Vec<u8>,
    /// By name.
    pub roles: BTreeSet<String>,
}

/// The state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelAuth {
    /// Whether anybody asks.
    pub enabled: bool,
    /// One more with each change.
    pub revision: u64,
    /// By name.
    pub users: BTreeMap<String, ModelUser>,
    /// By name.
    pub roles: BTreeMap<String, Grants>,
}

impl Default for ModelAuth {
    fn default() -> Self {
        Self { enabled: false, revision: 1, users: BTreeMap::new(), roles: BTreeMap::new() }
    }
}

impl ModelAuth {
    /// What a member holds.
    pub fn of(state: &AuthState) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("names are text");
        let user = |name: String| {
            let user = state.user(&name).expect("it is listed");
            assert_eq!(text(&user.name), name);
            let user = ModelUser { password: user.password.to_vec(), roles: user.roles.iter().cloned().collect() };
            (name, user)
        };
        let role = |name: String| {
            let role = state.role(&name).expect("it is listed");
            assert_eq!(text(&role.name), name);
            let grant = |has: &Permission| ((has.key.to_vec(), has.range_end.to_vec()), has.perm_type);
            let grants: Grants = role.key_permission.iter().map(grant).collect();
            assert_eq!(grants.len(), role.key_permission.len(), "a role has a range twice");
            (name, grants)
        };
        Self {
            enabled: state.is_enabled(),
            revision: state.revision(),
            users: state.user_names().into_iter().map(user).collect(),
            roles: state.role_names().into_iter().map(role).collect(),
        }
    }

    /// Whether a user has a role.
    pub fn has_role(&self, user: &str, role: &str) -> bool {
        self.users.get(user).is_some_and(|user| user.roles.contains(role))
    }

    /// Whether a user may use all keys of a range so.
    ///
    /// # Errors
    /// Why not.
    pub fn may(&self, user: Option<&str>, access: Access, key: &[u8], range_end: &[u8]) -> Result<(), AuthError> {
        if !self.enabled {
            return Ok(());
        }
        let user = user.ok_or(AuthError::UserEmpty)?;
        if self.has_role(user, ROOT) || self.is_covered(user, access, key, range_end) {
            return Ok(());
        }
        Err(AuthError::PermissionDenied)
    }

    fn is_covered(&self, user: &str, access: Access, key: &[u8], range_end: &[u8]) -> bool {
        let (asked, asked_end) = bounds(key, range_end);
        let wanted = if access == Access::Read { permission::Type::Read } else { permission::Type::Write } as i32;
        let roles = self.users.get(user).into_iter().flat_map(|user| &user.roles);
        let grants = roles.filter_map(|role| self.roles.get(role)).flatten();
        let fits = |kind: i32| kind == wanted || kind == permission::Type::Readwrite as i32;
        let ranges: Vec<_> = grants.filter(|(_, kind)| fits(**kind)).map(|((key, end), _)| bounds(key, end)).collect();
        let edges = ranges.iter().flat_map(|(start, end)| [Some(start), end.as_ref()]).flatten();
        let within = |place: &&Vec<u8>| **place > asked && asked_end.as_ref().is_none_or(|end| *place < end);
        let is_in_one = |place: &Vec<u8>| {
            ranges.iter().any(|(start, end)| start <= place && end.as_ref().is_none_or(|end| place < end))
        };
        is_in_one(&asked) && edges.filter(within).all(is_in_one)
    }

    /// Whether a request may be applied; `keys_of` gives the keys of a lease.
    ///
    /// # Errors
    /// Why not.
    ///
    /// # Panics
    /// For a request that no workload makes.
    pub fn judge(
        &self,
        principal: Option<&Principal>,
        kind: &Kind,
        keys_of: impl Fn(i64) -> Vec<Vec<u8>>,
    ) -> Result<(), AuthError> {
        let is_cluster = principal.is_some_and(|asks| asks.user == ROOT && asks.auth_revision == u64::MAX);
        if !self.enabled || is_cluster {
            return Ok(());
        }
        let mut wanted = Wanted::new();
        match kind {
            Kind::LeaseCheckpoint(_) | Kind::MemberDescription(_) | Kind::Authentication(_) => return Ok(()),
            Kind::LeaseGrant(_) => {}
            // Root's is judged by no key.
            Kind::LeaseRevoke(revoke) if principal.is_none_or(|asks| !self.has_role(&asks.user, ROOT)) => {
                wanted.extend(keys_of(revoke.id).into_iter().map(|key| (Access::Write, key, Vec::new())));
            }
            Kind::LeaseRevoke(_) => {}
            Kind::Put(put) => wants_put(&mut wanted, put, &keys_of),
            Kind::DeleteRange(delete) => {
                wanted.push((Access::Write, delete.key.to_vec(), delete.range_end.to_vec()));
            }
            Kind::Txn(txn) => wants_txn(&mut wanted, txn, &keys_of),
            _ => {
                let user = principal.ok_or(AuthError::UserEmpty)?;
                let user = self.users.get(&user.user).ok_or(AuthError::UserNotFound)?;
                return if user.roles.contains(ROOT) { Ok(()) } else { Err(AuthError::PermissionDenied) };
            }
        }
        let principal = principal.ok_or(AuthError::UserEmpty)?;
        if !wanted.is_empty() && principal.auth_revision < self.revision {
            return Err(AuthError::OldRevision);
        }
        wanted.iter().try_for_each(|(access, key, end)| self.may(Some(&principal.user), *access, key, end))
    }

    /// What a request about users and roles comes to; `None` for all others.
    pub fn change(&mut self, kind: &Kind) -> Option<Result<(), AuthError>> {
        let counts = match kind {
            Kind::Authentication(login) => return Some(self.may_log_in(login)),
            Kind::AuthEnable(_) => self.enable().map(|()| false),
            Kind::AuthDisable(_) => Ok(std::mem::take(&mut self.enabled)),
            Kind::UserAdd(user) => self.add_user(&user.name, &user.hashed_password),
            Kind::UserDelete(user) => self.delete_user(&user.name),
            Kind::UserChangePassword(user) => self.change_password(&user.name, &user.hashed_password),
            Kind::UserGrantRole(grant) => self.grant_role(&grant.user, &grant.role),
            Kind::UserRevokeRole(revoke) => self.revoke_role(&revoke.name, &revoke.role),
            Kind::RoleAdd(role) => self.add_role(&role.name),
            Kind::RoleDelete(role) => self.delete_role(&role.role),
            Kind::RoleGrantPermission(grant) => {
                let permission = grant.perm.as_ref().expect("a workload leaves none empty");
                self.grant_permission(&grant.name, permission)
            }
            Kind::RoleRevokePermission(revoke) => {
                self.revoke_permission(&revoke.role, (revoke.key.to_vec(), revoke.range_end.to_vec()))
            }
            _ => return None,
        };
        Some(counts.map(|counts| self.revision += u64::from(counts)))
    }

    fn may_log_in(&self, login: &Authentication) -> Result<(), AuthError> {
        if !self.enabled {
            return Err(AuthError::NotEnabled);
        }
        if self.revision != login.auth_revision {
            return Err(AuthError::OldRevision);
        }
        self.users.get(&login.user).map(drop).ok_or(AuthError::AuthenticationFailed)
    }

    fn enable(&mut self) -> Result<(), AuthError> {
        let root = self.users.get(ROOT).ok_or(AuthError::RootUserMissing)?;
        self.enabled |= root.roles.contains(ROOT);
        if self.enabled { Ok(()) } else { Err(AuthError::RootRoleMissing) }
    }

    fn add_user(&mut self, name: &str, hashed: &str) -> Result<bool, AuthError> {
        if self.users.contains_key(name) {
            return Err(AuthError::UserExists);
        }
        let user = ModelUser { password: stored(hashed), roles: BTreeSet::new() };
        self.users.insert(name.to_owned(), user);
        Ok(true)
    }

    fn delete_user(&mut self, name: &str) -> Result<bool, AuthError> {
        if self.enabled && name == ROOT {
            return Err(AuthError::InvalidManagement);
        }
        self.users.remove(name).map(|_| true).ok_or(AuthError::UserNotFound)
    }

    fn change_password(&mut self, name: &str, hashed: &str) -> Result<bool, AuthError> {
        self.users.get_mut(name).ok_or(AuthError::UserNotFound)?.password = stored(hashed);
        Ok(true)
    }

    fn grant_role(&mut self, name: &str, role: &str) -> Result<bool, AuthError> {
        let is_role = role == ROOT || self.roles.contains_key(role);
        let user = self.users.get_mut(name).ok_or(AuthError::UserNotFound)?;
        if is_role { Ok(user.roles.insert(role.to_owned())) } else { Err(AuthError::RoleNotFound) }
    }

    fn revoke_role(&mut self, name: &str, role: &str) -> Result<bool, AuthError> {
        if self.enabled && name == ROOT && role == ROOT {
            return Err(AuthError::InvalidManagement);
        }
        let user = self.users.get_mut(name).ok_or(AuthError::UserNotFound)?;
        if user.roles.remove(role) { Ok(true) } else { Err(AuthError::RoleNotGranted) }
    }

    fn add_role(&mut self, name: &str) -> Result<bool, AuthError> {
        if self.roles.contains_key(name) {
            return Err(AuthError::RoleExists);
        }
        self.roles.insert(name.to_owned(), Grants::new());
        Ok(true)
    }

    fn delete_role(&mut self, name: &str) -> Result<bool, AuthError> {
        if self.enabled && name == ROOT {
            return Err(AuthError::InvalidManagement);
        }
        self.roles.remove(name).ok_or(AuthError::RoleNotFound)?;
        self.users.values_mut().for_each(|user| _ = user.roles.remove(name));
        Ok(true)
    }

    fn grant_permission(&mut self, role: &str, permission: &Permission) -> Result<bool, AuthError> {
        let grants = self.roles.get_mut(role).ok_or(AuthError::RoleNotFound)?;
        grants.insert((permission.key.to_vec(), permission.range_end.to_vec()), permission.perm_type);
        Ok(true)
    }

    fn revoke_permission(&mut self, role: &str, range: (Vec<u8>, Vec<u8>)) -> Result<bool, AuthError> {
        let grants = self.roles.get_mut(role).ok_or(AuthError::RoleNotFound)?;
        grants.remove(&range).map(|_| true).ok_or(AuthError::PermissionNotGranted)
    }
}

/// Ranges that a request uses.
type Wanted = Vec<(Access, Vec<u8>, Vec<u8>)>;

fn wants_put(wanted: &mut Wanted, put: &PutRequest, keys_of: &impl Fn(i64) -> Vec<Vec<u8>>) {
    wanted.push((Access::Write, put.key.to_vec(), Vec::new()));
    if put.lease != 0 {
        wanted.extend(keys_of(put.lease).into_iter().map(|key| (Access::Write, key, Vec::new())));
    }
}

fn wants_txn(wanted: &mut Wanted, txn: &TxnRequest, keys_of: &impl Fn(i64) -> Vec<Vec<u8>>) {
    let compared = txn.compare.iter().map(|compare| (compare.key.to_vec(), compare.range_end.to_vec()));
    wanted.extend(compared.map(|(key, end)| (Access::Read, key, end)));
    for operation in txn.success.iter().chain(&txn.failure) {
        match operation.request.as_ref().expect("a workload leaves none empty") {
            Op::RequestRange(range) => wanted.push((Access::Read, range.key.to_vec(), range.range_end.to_vec())),
            Op::RequestPut(put) => wants_put(wanted, put, keys_of),
            Op::RequestDeleteRange(delete) => {
                wanted.push((Access::Write, delete.key.to_vec(), delete.range_end.to_vec()));
            }
            Op::RequestTxn(_) => panic!("no workload nests"),
        }
    }
}

/// A range as the wire names it: its first key, and its end if it has one.
fn bounds(key: &[u8], range_end: &[u8]) -> (Vec<u8>, Option<Vec<u8>>) {
    match range_end {
        [] => (key.to_vec(), Some([key, &[0]].concat())),
        [0] => (key.to_vec(), None),
        end => (key.to_vec(), Some(end.to_vec())),
    }
}

fn stored(hashed: &str) -> Vec<u8> {
    STANDARD.decode(hashed).expect("a workload hashes passwords")
}
