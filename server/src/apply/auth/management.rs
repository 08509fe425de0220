//! Requests that change users, roles or whether anybody asks for them (etcd `server/auth/store.go`).

use basalt_proto::authpb::{Permission, Role, User};
use basalt_proto::etcdserverpb::{
    AuthRoleGrantPermissionRequest, AuthRoleRevokePermissionRequest, AuthUserAddRequest, AuthUserChangePasswordRequest,
    AuthUserGrantRoleRequest, AuthUserRevokeRoleRequest,
};
use basalt_proto::log::request::Kind;
use basalt_storage::mvcc::system::Table;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use super::bounds::{check_growth, check_name};
use super::error::AuthError;
use super::permissions::is_range;
use super::state::{AuthRecord, AuthState, ROOT, has_role};

impl AuthState {
    /// What a request about users and roles changes; `None` for all other requests.
    ///
    /// # Errors
    /// [`AuthError`].
    pub fn evaluate(&self, kind: &Kind) -> Option<Result<Vec<AuthRecord>, AuthError>> {
        Some(match kind {
            Kind::AuthEnable(_) => self.enable(),
            Kind::AuthDisable(_) => Ok(self.disable()),
            Kind::UserAdd(request) => self.add_user(request),
            Kind::UserDelete(request) => self.delete_user(&request.name),
            Kind::UserChangePassword(request) => self.change_password(request),
            Kind::UserGrantRole(request) => self.grant_role(request),
            Kind::UserRevokeRole(request) => self.revoke_role(request),
            Kind::RoleAdd(request) => self.add_role(&request.name),
            Kind::RoleDelete(request) => self.delete_role(&request.role),
            Kind::RoleGrantPermission(request) => self.grant_permission(request),
            Kind::RoleRevokePermission(request) => self.revoke_permission(request),
            _ => return None,
        })
    }

    /// Does not count as a change: tokens and requests of before stay good.
    fn enable(&self) -> Result<Vec<AuthRecord>, AuthError> {
        if self.is_enabled() {
            return Ok(Vec::new());
        }
        let root = self.users.get(ROOT).ok_or(AuthError::RootUserMissing)?;
        if has_role(root, ROOT) { Ok(vec![Self::enabling(true)]) } else { Err(AuthError::RootRoleMissing) }
    }

    fn disable(&self) -> Vec<AuthRecord> {
        if self.is_enabled() { self.counted(vec![Self::enabling(false)]) } else { Vec::new() }
    }

    fn add_user(&self, request: &AuthUserAddRequest) -> Result<Vec<AuthRecord>, AuthError> {
        if request.name.is_empty() {
            return Err(AuthError::UserEmpty);
        }
        check_name(&request.name)?;
        if self.users.contains_key(&request.name) {
            return Err(AuthError::UserExists);
        }
        let options = request.options.unwrap_or_default();
        let password = if options.no_password { Bytes::new() } else { hash_in(&request.hashed_password)? };
        let name = Bytes::copy_from_slice(request.name.as_bytes());
        let user = User { name, password, roles: Vec::new(), options: Some(options) };
        self.grown(AuthRecord::user(&user), 0)
    }

    /// As long as anybody asks, there is somebody who may do everything.
    fn delete_user(&self, name: &str) -> Result<Vec<AuthRecord>, AuthError> {
        if self.is_enabled() && name == ROOT {
            return Err(AuthError::InvalidManagement);
        }
        self.user_or_none(name)?;
        Ok(self.counted(vec![AuthRecord::deleted(Table::AuthUser, name)]))
    }

    fn change_password(&self, request: &AuthUserChangePasswordRequest) -> Result<Vec<AuthRecord>, AuthError> {
        let user = self.user_or_none(&request.name)?;
        let has_none = user.options.is_some_and(|options| options.no_password);
        let password = if has_none { Bytes::new() } else { hash_in(&request.hashed_password)? };
        self.grown(AuthRecord::user(&User { password, ..user.clone() }), self.user_bytes(&request.name))
    }

    /// A role that the user has already is no change.
    fn grant_role(&self, request: &AuthUserGrantRoleRequest) -> Result<Vec<AuthRecord>, AuthError> {
        let mut user = self.user_or_none(&request.user)?.clone();
        if request.role != ROOT && !self.roles.contains_key(&request.role) {
            return Err(AuthError::RoleNotFound);
        }
        let Err(place) = user.roles.binary_search(&request.role) else { return Ok(Vec::new()) };
        user.roles.insert(place, request.role.clone());
        self.grown(AuthRecord::user(&user), self.user_bytes(&request.user))
    }

    fn revoke_role(&self, request: &AuthUserRevokeRoleRequest) -> Result<Vec<AuthRecord>, AuthError> {
        if self.is_enabled() && request.name == ROOT && request.role == ROOT {
            return Err(AuthError::InvalidManagement);
        }
        let user = self.user_or_none(&request.name)?;
        let user = without_role(user, &request.role).ok_or(AuthError::RoleNotGranted)?;
        Ok(self.counted(vec![AuthRecord::user(&user)]))
    }

    fn add_role(&self, name: &str) -> Result<Vec<AuthRecord>, AuthError> {
        if name.is_empty() {
            return Err(AuthError::RoleEmpty);
        }
        check_name(name)?;
        if self.roles.contains_key(name) {
            return Err(AuthError::RoleExists);
        }
        let role = Role { name: Bytes::copy_from_slice(name.as_bytes()), key_permission: Vec::new() };
        self.grown(AuthRecord::role(&role), 0)
    }

    /// It is taken from all who have it.
    fn delete_role(&self, name: &str) -> Result<Vec<AuthRecord>, AuthError> {
        if self.is_enabled() && name == ROOT {
            return Err(AuthError::InvalidManagement);
        }
        self.role_or_none(name)?;
        let users = self.users.values().filter_map(|user| without_role(user, name));
        let mut records = vec![AuthRecord::deleted(Table::AuthRole, name)];
        records.extend(users.map(|user| AuthRecord::user(&user)));
        Ok(self.counted(records))
    }

    /// Of a range that the role has already, the kind is replaced. etcd looks at one permission of that key only and
    /// leaves the other kind standing beside it: a permission that was narrowed would stay wide.
    fn grant_permission(&self, request: &AuthRoleGrantPermissionRequest) -> Result<Vec<AuthRecord>, AuthError> {
        let permission = request.perm.as_ref().ok_or(AuthError::PermissionMissing)?;
        if !is_range(&permission.key, &permission.range_end) {
            return Err(AuthError::InvalidManagement);
        }
        let mut role = self.role_or_none(&request.name)?.clone();
        let granted = &mut role.key_permission;
        match granted.iter_mut().find(|has| is_of(has, &permission.key, &permission.range_end)) {
            Some(has) => has.perm_type = permission.perm_type,
            None => {
                let place = granted.partition_point(|has| has.key <= permission.key);
                granted.insert(place, permission.clone());
            }
        }
        self.grown(AuthRecord::role(&role), self.role_bytes(&request.name))
    }

    fn revoke_permission(&self, request: &AuthRoleRevokePermissionRequest) -> Result<Vec<AuthRecord>, AuthError> {
        let mut role = self.role_or_none(&request.role)?.clone();
        let had = role.key_permission.len();
        role.key_permission.retain(|has| !is_of(has, &request.key, &request.range_end));
        if role.key_permission.len() == had {
            return Err(AuthError::PermissionNotGranted);
        }
        Ok(self.counted(vec![AuthRecord::role(&role)]))
    }

    fn user_or_none(&self, name: &str) -> Result<&User, AuthError> {
        self.users.get(name).ok_or(AuthError::UserNotFound)
    }

    fn role_or_none(&self, name: &str) -> Result<&Role, AuthError> {
        self.roles.get(name).ok_or(AuthError::RoleNotFound)
    }

    /// A change to a record that had `before` bytes, if there is room for it.
    fn grown(&self, record: AuthRecord, before: usize) -> Result<Vec<AuthRecord>, AuthError> {
        check_growth(before, record.bytes(), self.bytes())?;
        Ok(self.counted(vec![record]))
    }

    /// A change counts.
    fn counted(&self, mut records: Vec<AuthRecord>) -> Vec<AuthRecord> {
        records.push(self.next_revision());
        records
    }
}

fn is_of(permission: &Permission, key: &[u8], range_end: &[u8]) -> bool {
    permission.key == key && permission.range_end == range_end
}

/// The user without a role; `None` if it has not got it.
fn without_role(user: &User, role: &str) -> Option<User> {
    if !has_role(user, role) {
        return None;
    }
    let mut user = user.clone();
    user.roles.retain(|has| has != role);
    Some(user)
}

/// The hash of a password as requests carry it.
fn hash_in(hashed: &str) -> Result<Bytes, AuthError> {
    STANDARD.decode(hashed).map(Bytes::from).map_err(|_| AuthError::NoPassword)
}
