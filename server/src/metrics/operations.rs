//! Durations by operation and outcome, or by outcome alone.

use std::sync::OnceLock;
use std::time::Duration;

use basalt_proto::log::request::Kind;
use prometheus::{Histogram, HistogramVec};

macro_rules! operations {
    ($($operation:ident)*) => {
        /// What a request asked for, in etcd's words (`server/etcdserver/apply/uber_applier.go`, `v3_server.go`).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        #[allow(missing_docs)] // the names are the operations'
        pub enum Operation { $($operation),* }

        impl Operation {
            /// Every operation, by number.
            pub const ALL: &[Operation] = &[$(Operation::$operation),*];

            /// The label's value.
            pub fn label(self) -> &'static str {
                match self { $(Operation::$operation => stringify!($operation)),* }
            }
        }
    };
}

operations! {
    Range ReadonlyTxn Put DeleteRange Txn Compaction LeaseGrant LeaseRevoke LeaseCheckpoint Alarm Authenticate
    AuthEnable AuthDisable AuthUserAdd AuthUserDelete AuthUserChangePassword AuthUserGrantRole AuthUserGet
    AuthUserRevokeRole AuthRoleAdd AuthRoleGrantPermission AuthRoleGet AuthRoleRevokePermission AuthRoleDelete
    AuthUserList AuthRoleList ClusterVersionSet ClusterMemberAttrSet DowngradeInfoSet
}

impl Operation {
    /// What etcd calls a request of the log; none for what etcd does not order, or orders as a change of Raft's own.
    pub fn of_request(kind: &Kind) -> Option<Self> {
        Some(match kind {
            Kind::Put(_) => Operation::Put,
            Kind::DeleteRange(_) => Operation::DeleteRange,
            Kind::Txn(_) => Operation::Txn,
            Kind::Compaction(_) => Operation::Compaction,
            Kind::LeaseGrant(_) => Operation::LeaseGrant,
            Kind::LeaseRevoke(_) => Operation::LeaseRevoke,
            Kind::LeaseCheckpoint(_) => Operation::LeaseCheckpoint,
            Kind::Alarm(_) => Operation::Alarm,
            Kind::Authentication(_) => Operation::Authenticate,
            Kind::AuthEnable(_) => Operation::AuthEnable,
            Kind::AuthDisable(_) => Operation::AuthDisable,
            Kind::UserAdd(_) => Operation::AuthUserAdd,
            Kind::UserDelete(_) => Operation::AuthUserDelete,
            Kind::UserChangePassword(_) => Operation::AuthUserChangePassword,
            Kind::UserGrantRole(_) => Operation::AuthUserGrantRole,
            Kind::UserRevokeRole(_) => Operation::AuthUserRevokeRole,
            Kind::RoleAdd(_) => Operation::AuthRoleAdd,
            Kind::RoleDelete(_) => Operation::AuthRoleDelete,
            Kind::RoleGrantPermission(_) => Operation::AuthRoleGrantPermission,
            Kind::RoleRevokePermission(_) => Operation::AuthRoleRevokePermission,
            Kind::ClusterVersionSet(_) => Operation::ClusterVersionSet,
            Kind::DowngradeInfoSet(_) => Operation::DowngradeInfoSet,
            Kind::MemberDescription(_) | Kind::MemberAttributesSet(_) => Operation::ClusterMemberAttrSet,
            Kind::HashMark(_) | Kind::ApplyVersionSet(_) | Kind::MemberChange(_) => return None,
        })
    }
}

/// A histogram for each operation and outcome.
///
/// A series begins with its first observation, as in etcd: all of them from the start would be a thousand lines that
/// say nothing.
pub struct OperationSeconds {
    /// Labels that stand before operation and outcome.
    before: &'static [&'static str],
    family: HistogramVec,
    series: Vec<[OnceLock<Histogram>; 2]>,
}

impl OperationSeconds {
    /// Series of `family`, whose labels are one for each of `before`, then the operation, then the success.
    pub(super) fn new(family: HistogramVec, before: &'static [&'static str]) -> Self {
        Self { before, family, series: Operation::ALL.iter().map(|_| Default::default()).collect() }
    }

    /// One operation took `elapsed`.
    pub fn observe(&self, operation: Operation, success: bool, elapsed: Duration) {
        let series = self.series[operation as usize][usize::from(success)].get_or_init(|| {
            let outcome = if success { "true" } else { "false" };
            let labels: Vec<&str> = self.before.iter().copied().chain([operation.label(), outcome]).collect();
            self.family.with_label_values(&labels)
        });
        series.observe(elapsed.as_secs_f64());
    }
}

/// A histogram for each outcome.
pub struct OutcomeSeconds {
    success: Histogram,
    failure: Histogram,
}

impl OutcomeSeconds {
    /// The series of `family`, whose only label is the success.
    pub(super) fn new(family: &HistogramVec) -> Self {
        Self { success: family.with_label_values(&["true"]), failure: family.with_label_values(&["false"]) }
    }

    /// It took `elapsed`.
    pub fn observe(&self, success: bool, elapsed: Duration) {
        let series = if success { &self.success } else { &self.failure };
        series.observe(elapsed.as_secs_f64());
    }
}
