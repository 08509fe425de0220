//! Whether a request may do what it asks for, on behalf of whom it is asked.

use std::collections::BTreeSet;

use basalt_proto::etcdserverpb::request_op::Request as Operation;
use basalt_proto::etcdserverpb::{DeleteRangeRequest, PutRequest, RequestOp, TxnRequest};
use basalt_proto::log::Principal;
use basalt_proto::log::request::Kind;
use basalt_storage::planted::{Bug, is_planted};

use super::error::AuthError;
use super::permissions::Access;
use super::state::{AuthState, ROOT};
use crate::apply::lease_table::LeaseTable;

/// On whose behalf the cluster itself asks: root, by whatever users and roles there are.
pub fn cluster_principal() -> Principal {
    Principal { user: ROOT.to_owned(), auth_revision: u64::MAX }
}

/// The leases that one request may name. The keys of each are looked at once, however often it is named: a transaction of thousands
/// of puts on a lease of thousands of keys would hold up every member for minutes.
struct NamedLeases<'a> {
    table: &'a LeaseTable,
    /// Those whose keys may all be written.
    writable: BTreeSet<i64>,
}

/// Somebody, before a state of users and roles.
#[derive(Clone, Copy, Debug)]
pub struct Asking<'a> {
    state: &'a AuthState,
    principal: Option<&'a Principal>,
}

impl AuthState {
    /// Somebody who asks for something.
    pub fn asked_by<'a>(&'a self, principal: Option<&'a Principal>) -> Asking<'a> {
        Asking { state: self, principal }
    }

    /// Whether a request may be applied. Each kind has a rule here.
    ///
    /// # Errors
    /// [`AuthError`]; none while authentication is off.
    pub fn check(&self, principal: Option<&Principal>, kind: &Kind, leases: &LeaseTable) -> Result<(), AuthError> {
        if !self.is_enabled() {
            return Ok(());
        }
        let asking = self.asked_by(principal);
        match kind {
            Kind::Put(put) => asking.may_put(put, &mut NamedLeases::of(leases)),
            Kind::DeleteRange(delete) => asking.may_delete(delete),
            Kind::Txn(txn) => asking.may_txn(txn, leases),
            Kind::LeaseGrant(grant) => asking.may_grant(grant.id, leases),
            Kind::LeaseRevoke(revoke) => asking.may_write_all_of(revoke.id, leases),
            // Their proposer asked who the client is by the newest users and roles that it knew; so does who applies them.
            Kind::Compaction(_)
            | Kind::Alarm(_)
            | Kind::MemberChange(_)
            | Kind::ClusterVersionSet(_)
            | Kind::DowngradeInfoSet(_)
            | Kind::AuthEnable(_)
            | Kind::AuthDisable(_)
            | Kind::UserAdd(_)
            | Kind::UserDelete(_)
            | Kind::UserChangePassword(_)
            | Kind::UserGrantRole(_)
            | Kind::UserRevokeRole(_)
            | Kind::RoleAdd(_)
            | Kind::RoleDelete(_)
            | Kind::RoleGrantPermission(_)
            | Kind::RoleRevokePermission(_) => {
                if is_planted(Bug::JudgedBeforeLogOnly) {
                    Ok(())
                } else {
                    asking.is_root()
                }
            }
            // Members speak for themselves: no call of a client comes to these. A login stands on its password.
            Kind::LeaseCheckpoint(_)
            | Kind::HashMark(_)
            | Kind::ApplyVersionSet(_)
            | Kind::MemberAttributesSet(_)
            | Kind::MemberDescription(_)
            | Kind::Authentication(_) => Ok(()),
        }
    }
}

impl<'a> NamedLeases<'a> {
    fn of(table: &'a LeaseTable) -> Self {
        Self { table, writable: BTreeSet::new() }
    }
}

impl Asking<'_> {
    /// A user, whatever it may do.
    ///
    /// # Errors
    /// [`AuthError`].
    pub fn is_somebody(&self) -> Result<(), AuthError> {
        if !self.state.is_enabled() {
            return Ok(());
        }
        self.name().map(drop)
    }

    /// A user with the role root.
    ///
    /// # Errors
    /// [`AuthError`].
    pub fn is_root(&self) -> Result<(), AuthError> {
        if self.is_cluster() {
            return Ok(());
        }
        self.state.check_root(self.principal.map(|principal| &principal.user[..]))
    }

    /// The cluster itself, whatever users there are: no token says so.
    fn is_cluster(&self) -> bool {
        self.principal.is_some_and(|principal| principal.user == ROOT && principal.auth_revision == u64::MAX)
    }

    fn name(&self) -> Result<&str, AuthError> {
        let principal = self.principal.filter(|principal| !principal.user.is_empty());
        principal.map(|principal| &principal.user[..]).ok_or(AuthError::UserEmpty)
    }

    /// May use all keys of a range so, by users and roles that did not change since it was let in.
    ///
    /// # Errors
    /// [`AuthError`].
    pub fn may(&self, access: Access, key: &[u8], range_end: &[u8]) -> Result<(), AuthError> {
        if !self.state.is_enabled() || self.is_cluster() {
            return Ok(());
        }
        let name = self.name()?;
        let is_old = self.principal.is_some_and(|principal| principal.auth_revision < self.state.revision());
        if is_old && !is_planted(Bug::OldPermissionsTaken) {
            return Err(AuthError::OldRevision);
        }
        self.state.check_range(name, access, key, range_end)
    }

    /// May put, and see what it asks back for. A lease that holds a key it may not write it cannot end, and may not use.
    fn may_put(&self, put: &PutRequest, leases: &mut NamedLeases<'_>) -> Result<(), AuthError> {
        self.may(Access::Write, &put.key, &[])?;
        if !leases.writable.contains(&put.lease) {
            self.may_write_all_of(put.lease, leases.table)?;
            leases.writable.insert(put.lease);
        }
        if put.prev_kv { self.may(Access::Read, &put.key, &[]) } else { Ok(()) }
    }

    fn may_delete(&self, delete: &DeleteRangeRequest) -> Result<(), AuthError> {
        self.may(Access::Write, &delete.key, &delete.range_end)?;
        if delete.prev_kv { self.may(Access::Read, &delete.key, &delete.range_end) } else { Ok(()) }
    }

    /// May do all that stands in a transaction, whichever branch is taken.
    ///
    /// # Errors
    /// [`AuthError`].
    pub fn may_txn(&self, txn: &TxnRequest, leases: &LeaseTable) -> Result<(), AuthError> {
        self.may_all_in(txn, &mut NamedLeases::of(leases))
    }

    fn may_all_in(&self, txn: &TxnRequest, leases: &mut NamedLeases<'_>) -> Result<(), AuthError> {
        for compare in &txn.compare {
            self.may(Access::Read, &compare.key, &compare.range_end)?;
        }
        txn.success.iter().chain(&txn.failure).try_for_each(|operation| self.may_operation(operation, leases))
    }

    fn may_operation(&self, operation: &RequestOp, leases: &mut NamedLeases<'_>) -> Result<(), AuthError> {
        match &operation.request {
            Some(Operation::RequestRange(range)) => self.may(Access::Read, &range.key, &range.range_end),
            Some(Operation::RequestPut(put)) => self.may_put(put, leases),
            Some(Operation::RequestDeleteRange(delete)) => self.may_delete(delete),
            Some(Operation::RequestTxn(txn)) => self.may_all_in(txn, leases),
            None => Ok(()),
        }
    }

    /// May grant a lease. Keys that name it already, as an import may bring them, go with it when it ends.
    fn may_grant(&self, lease: i64, leases: &LeaseTable) -> Result<(), AuthError> {
        self.is_somebody()?;
        if self.is_root().is_ok() {
            return Ok(());
        }
        leases.waiting_for(lease).try_for_each(|key| self.may(Access::Write, key, &[]))
    }

    /// May write all keys of a lease. Of one that is not there nothing is said.
    ///
    /// # Errors
    /// [`AuthError`].
    pub fn may_write_all_of(&self, lease: i64, leases: &LeaseTable) -> Result<(), AuthError> {
        self.may_all_of(Access::Write, lease, leases)
    }

    /// May use all keys of a lease so.
    ///
    /// # Errors
    /// [`AuthError`].
    pub fn may_all_of(&self, access: Access, lease: i64, leases: &LeaseTable) -> Result<(), AuthError> {
        self.is_somebody()?;
        if self.is_root().is_ok() {
            return Ok(());
        }
        let Some(record) = leases.get(lease) else { return Ok(()) };
        record.keys.iter().try_for_each(|key| self.may(access, key, &[]))
    }
}
