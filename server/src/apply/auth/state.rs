//! Users, roles, and whether anybody asks for them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use basalt_proto::authpb::{Role, User};
use basalt_storage::mvcc::system::{System, Table};
use bytes::Bytes;
use prost::Message;
use thiserror::Error;

use super::bounds::NAME_BYTES_MAX;
use super::error::AuthError;
use super::permissions::{Access, Permissions};

/// The user and the role that may do everything.
pub const ROOT: &str = "root";

/// Settings by the names of etcd's bucket `auth`.
const ENABLED: &[u8] = b"authEnabled";
const REVISION: &[u8] = b"authRevision";

/// What etcd begins with.
const FIRST_REVISION: u64 = 1;

/// A record that cannot be read: nobody may be let in by what is left.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("record {key:?} of table {table:?} is no record of users or roles")]
pub struct MalformedAuthRecord {
    /// Where it stands.
    pub table: Table,
    /// Its key.
    pub key: Bytes,
}

/// A record of the system store that changes, as an effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthRecord {
    /// [`Table::Auth`], [`Table::AuthUser`] or [`Table::AuthRole`].
    pub table: Table,
    /// The setting, user or role.
    pub key: Bytes,
    /// `None` deletes it.
    pub value: Option<Bytes>,
}

/// The state. Cheap to ask; changed only by [`Self::install`] and [`Self::install_all`].
#[derive(Clone, Debug, PartialEq)]
pub struct AuthState {
    enabled: bool,
    revision: u64,
    pub(super) users: BTreeMap<String, User>,
    pub(super) roles: BTreeMap<String, Role>,
    permissions: BTreeMap<String, Permissions>,
    /// Of the records of all users and roles.
    bytes: usize,
}

/// A state, and the how manieth of this process it is: of two, the greater is the newer.
#[derive(Debug)]
pub struct AuthNow {
    /// Counts from the start of the process.
    pub number: u64,
    /// The state. It is shown before the View of the entry that made it.
    pub state: Arc<AuthState>,
}

impl Default for AuthState {
    fn default() -> Self {
        Self {
            enabled: false,
            revision: FIRST_REVISION,
            users: BTreeMap::new(),
            roles: BTreeMap::new(),
            permissions: BTreeMap::new(),
            bytes: 0,
        }
    }
}

impl AuthState {
    /// The state of a system store.
    ///
    /// # Errors
    /// [`MalformedAuthRecord`].
    pub fn load(system: &System) -> Result<Self, MalformedAuthRecord> {
        let mut state = Self::default();
        for table in [Table::Auth, Table::AuthUser, Table::AuthRole] {
            for (key, value) in system.table(table) {
                let malformed = || MalformedAuthRecord { table, key: key.clone() };
                state.take(table, key, Some(value)).ok_or_else(malformed)?;
            }
        }
        let everybody = state.users.keys().cloned().collect();
        state.join_permissions(everybody);
        Ok(state)
    }

    /// Takes over a record that changed.
    ///
    /// # Panics
    /// As [`Self::install_all`].
    pub fn install(&mut self, record: &AuthRecord) {
        self.install_all([record]);
    }

    /// Takes over the records that one request changed. Costs what those users have whom it concerns, once each, and a look at
    /// all others.
    ///
    /// # Panics
    /// When one is malformed: [`super::management`] made them, and effects of others are checked before.
    pub fn install_all<'r>(&mut self, records: impl IntoIterator<Item = &'r AuthRecord>) {
        let (mut users, mut roles) = (BTreeSet::new(), BTreeSet::new());
        for AuthRecord { table, key, value } in records {
            self.take(*table, key, value.as_ref()).expect("a record that was checked");
            match table {
                Table::AuthUser => _ = users.insert(&key[..]),
                Table::AuthRole => _ = roles.insert(&key[..]),
                _ => {}
            }
        }
        self.permissions.retain(|name, _| self.users.contains_key(name));
        let is_concerned = |(name, user): &(&String, &User)| {
            users.contains(name.as_bytes())
                || (!roles.is_empty() && user.roles.iter().any(|role| roles.contains(role.as_bytes())))
        };
        let concerned = self.users.iter().filter(is_concerned).map(|(name, _)| name.clone()).collect();
        self.join_permissions(concerned);
    }

    /// Gives `None` for what cannot be read.
    fn take(&mut self, table: Table, key: &Bytes, value: Option<&Bytes>) -> Option<()> {
        match (table, &key[..]) {
            (Table::Auth, ENABLED) => {
                self.enabled = match value.map(|value| &value[..]) {
                    None | Some([0]) => false,
                    Some([1]) => true,
                    Some(_) => return None,
                }
            }
            (Table::Auth, REVISION) => {
                self.revision = u64::from_be_bytes(value?[..].try_into().ok()?);
            }
            (Table::AuthUser, _) => {
                let (name, mut user) = named::<User>(key, value)?;
                if user.as_ref().is_some_and(|user| user.name != key) {
                    return None;
                }
                // They are searched by halves; what came from elsewhere may be in another order.
                if let Some(user) = &mut user {
                    user.roles.sort();
                }
                self.bytes -= self.user_bytes(&name);
                set(&mut self.users, &name, user);
                self.bytes += self.user_bytes(&name);
            }
            (Table::AuthRole, _) => {
                let (name, role) = named::<Role>(key, value)?;
                if role.as_ref().is_some_and(|role| role.name != key) {
                    return None;
                }
                self.bytes -= self.role_bytes(&name);
                set(&mut self.roles, &name, role);
                self.bytes += self.role_bytes(&name);
            }
            _ => return None,
        }
        Some(())
    }

    /// Joins anew what these users may do; all of them are there.
    fn join_permissions(&mut self, users: Vec<String>) {
        for name in users {
            let roles = self.users[&name].roles.iter().filter_map(|role| self.roles.get(role));
            let permissions = Permissions::of(roles);
            self.permissions.insert(name, permissions);
        }
    }

    /// Bytes of all users and roles.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of a user's record, 0 if there is none.
    pub(super) fn user_bytes(&self, name: &str) -> usize {
        self.users.get(name).map_or(0, |user| name.len() + user.encoded_len())
    }

    /// Bytes of a role's record, 0 if there is none.
    pub(super) fn role_bytes(&self, name: &str) -> usize {
        self.roles.get(name).map_or(0, |role| name.len() + role.encoded_len())
    }

    /// Whether requests are checked.
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Grows with each change of users and roles.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// One user.
    pub fn user(&self, name: &str) -> Option<&User> {
        self.users.get(name)
    }

    /// One role.
    pub fn role(&self, name: &str) -> Option<&Role> {
        self.roles.get(name)
    }

    /// The names of all users, in order.
    pub fn user_names(&self) -> Vec<String> {
        self.users.keys().cloned().collect()
    }

    /// The names of all roles, in order.
    pub fn role_names(&self) -> Vec<String> {
        self.roles.keys().cloned().collect()
    }

    /// Whether a user has a role; nobody has it who is not there.
    pub fn has_role(&self, user: &str, role: &str) -> bool {
        self.users.get(user).is_some_and(|user| has_role(user, role))
    }

    /// Whether a user of that name may do everything.
    ///
    /// # Errors
    /// [`AuthError`] unless it may, or authentication is off.
    pub fn check_root(&self, user: Option<&str>) -> Result<(), AuthError> {
        if !self.enabled {
            return Ok(());
        }
        let name = user.filter(|name| !name.is_empty()).ok_or(AuthError::UserEmpty)?;
        let user = self.users.get(name).ok_or(AuthError::UserNotFound)?;
        if has_role(user, ROOT) { Ok(()) } else { Err(AuthError::PermissionDenied) }
    }

    /// Whether a user may use all keys of a range so.
    ///
    /// # Errors
    /// [`AuthError::PermissionDenied`]; not while authentication is off.
    pub(super) fn check_range(
        &self,
        user: &str,
        access: Access,
        key: &[u8],
        range_end: &[u8],
    ) -> Result<(), AuthError> {
        if !self.enabled || self.has_role(user, ROOT) {
            return Ok(());
        }
        let permissions = self.permissions.get(user);
        let is_allowed = permissions.is_some_and(|permissions| permissions.allow(access, key, range_end));
        if is_allowed { Ok(()) } else { Err(AuthError::PermissionDenied) }
    }

    /// Records that turn checking on or off.
    pub(super) fn enabling(enabled: bool) -> AuthRecord {
        let value = Bytes::copy_from_slice(&[u8::from(enabled)]);
        AuthRecord { table: Table::Auth, key: Bytes::from_static(ENABLED), value: Some(value) }
    }

    /// The record of the next revision.
    pub(super) fn next_revision(&self) -> AuthRecord {
        let value = Bytes::copy_from_slice(&(self.revision + 1).to_be_bytes());
        AuthRecord { table: Table::Auth, key: Bytes::from_static(REVISION), value: Some(value) }
    }
}

impl AuthRecord {
    /// A user's new record.
    pub(in crate::apply) fn user(user: &User) -> Self {
        Self { table: Table::AuthUser, key: user.name.clone(), value: Some(user.encode_to_vec().into()) }
    }

    /// A role's new record.
    pub(in crate::apply) fn role(role: &Role) -> Self {
        Self { table: Table::AuthRole, key: role.name.clone(), value: Some(role.encode_to_vec().into()) }
    }

    /// The end of a record.
    pub(super) fn deleted(table: Table, name: &str) -> Self {
        Self { table, key: Bytes::copy_from_slice(name.as_bytes()), value: None }
    }

    /// Bytes of key and value.
    pub fn bytes(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, Bytes::len)
    }

    /// Whether [`AuthState::install`] takes it, and a snapshot can hold it.
    pub fn is_well_formed(&self) -> bool {
        let is_short = self.key.len() <= NAME_BYTES_MAX;
        is_short && AuthState::default().take(self.table, &self.key, self.value.as_ref()).is_some()
    }
}

pub(super) fn has_role(user: &User, role: &str) -> bool {
    user.roles.binary_search_by(|has| has[..].cmp(role)).is_ok()
}

/// A record by its name.
fn named<M: Message + Default>(key: &Bytes, value: Option<&Bytes>) -> Option<(String, Option<M>)> {
    let name = String::from_utf8(key.to_vec()).ok()?;
    let record = value.map(|value| M::decode(value.clone())).transpose().ok()?;
    Some((name, record))
}

fn set<T>(records: &mut BTreeMap<String, T>, name: &str, record: Option<T>) {
    match record {
        Some(record) => drop(records.insert(name.to_owned(), record)),
        None => drop(records.remove(name)),
    }
}
