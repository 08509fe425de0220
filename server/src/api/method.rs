//! The methods that etcd 3.7 serves, by the path of their calls. A new one does not compile without saying here
//! whether it is served.

/// A gRPC method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the names are etcd's
pub enum Method {
    Range,
    RangeStream,
    Put,
    DeleteRange,
    Txn,
    Compact,
    Watch,
    LeaseGrant,
    LeaseRevoke,
    LeaseKeepAlive,
    LeaseTimeToLive,
    LeaseLeases,
    MemberList,
    MemberAdd,
    MemberRemove,
    MemberUpdate,
    MemberPromote,
    Alarm,
    Status,
    Defragment,
    Hash,
    HashKv,
    MoveLeader,
    Downgrade,
    Snapshot,
    Lock,
    Unlock,
    Campaign,
    Proclaim,
    Leader,
    Observe,
    Resign,
    AuthStatus,
    AuthEnable,
    AuthDisable,
    Authenticate,
    UserAdd,
    UserGet,
    UserList,
    UserDelete,
    UserChangePassword,
    UserGrantRole,
    UserRevokeRole,
    RoleAdd,
    RoleGet,
    RoleList,
    RoleDelete,
    RoleGrantPermission,
    RoleRevokePermission,
    HealthCheck,
    HealthWatch,
    /// Ours: what etcd's Status does not tell.
    Describe,
}

impl Method {
    /// Whether a call is ordered in the log, as a rule: a transaction may only read, and alarms may only be asked for.
    pub(super) fn is_ordered(self) -> bool {
        matches!(
            self,
            Method::Put
                | Method::DeleteRange
                | Method::Txn
                | Method::Compact
                | Method::LeaseGrant
                | Method::LeaseRevoke
                | Method::Alarm
                | Method::AuthEnable
                | Method::AuthDisable
                | Method::Authenticate
                | Method::UserAdd
                | Method::UserDelete
                | Method::UserChangePassword
                | Method::UserGrantRole
                | Method::UserRevokeRole
                | Method::RoleAdd
                | Method::RoleDelete
                | Method::RoleGrantPermission
                | Method::RoleRevokePermission
        )
    }
}

impl Method {
    /// The method of a call's path.
    pub fn of_path(path: &str) -> Option<Self> {
        let (service, method) = path.strip_prefix('/')?.split_once('/')?;
        Some(match (service, method) {
            ("etcdserverpb.KV", "Range") => Method::Range,
            ("etcdserverpb.KV", "RangeStream") => Method::RangeStream,
            ("etcdserverpb.KV", "Put") => Method::Put,
            ("etcdserverpb.KV", "DeleteRange") => Method::DeleteRange,
            ("etcdserverpb.KV", "Txn") => Method::Txn,
            ("etcdserverpb.KV", "Compact") => Method::Compact,
            ("etcdserverpb.Watch", "Watch") => Method::Watch,
            ("etcdserverpb.Lease", "LeaseGrant") => Method::LeaseGrant,
            ("etcdserverpb.Lease", "LeaseRevoke") => Method::LeaseRevoke,
            ("etcdserverpb.Lease", "LeaseKeepAlive") => Method::LeaseKeepAlive,
            ("etcdserverpb.Lease", "LeaseTimeToLive") => Method::LeaseTimeToLive,
            ("etcdserverpb.Lease", "LeaseLeases") => Method::LeaseLeases,
            ("etcdserverpb.Cluster", "MemberList") => Method::MemberList,
            ("etcdserverpb.Cluster", "MemberAdd") => Method::MemberAdd,
            ("etcdserverpb.Cluster", "MemberPromote") => Method::MemberPromote,
            ("etcdserverpb.Cluster", "MemberRemove") => Method::MemberRemove,
            ("etcdserverpb.Cluster", "MemberUpdate") => Method::MemberUpdate,
            ("etcdserverpb.Maintenance", "Alarm") => Method::Alarm,
            ("etcdserverpb.Maintenance", "Status") => Method::Status,
            ("etcdserverpb.Maintenance", "Defragment") => Method::Defragment,
            ("etcdserverpb.Maintenance", "Hash") => Method::Hash,
            ("etcdserverpb.Maintenance", "HashKV") => Method::HashKv,
            ("etcdserverpb.Maintenance", "Snapshot") => Method::Snapshot,
            ("etcdserverpb.Maintenance", "MoveLeader") => Method::MoveLeader,
            ("etcdserverpb.Maintenance", "Downgrade") => Method::Downgrade,
            ("etcdserverpb.Auth", "AuthStatus") => Method::AuthStatus,
            ("etcdserverpb.Auth", "AuthEnable") => Method::AuthEnable,
            ("etcdserverpb.Auth", "AuthDisable") => Method::AuthDisable,
            ("etcdserverpb.Auth", "Authenticate") => Method::Authenticate,
            ("etcdserverpb.Auth", "UserAdd") => Method::UserAdd,
            ("etcdserverpb.Auth", "UserGet") => Method::UserGet,
            ("etcdserverpb.Auth", "UserList") => Method::UserList,
            ("etcdserverpb.Auth", "UserDelete") => Method::UserDelete,
            ("etcdserverpb.Auth", "UserChangePassword") => Method::UserChangePassword,
            ("etcdserverpb.Auth", "UserGrantRole") => Method::UserGrantRole,
            ("etcdserverpb.Auth", "UserRevokeRole") => Method::UserRevokeRole,
            ("etcdserverpb.Auth", "RoleAdd") => Method::RoleAdd,
            ("etcdserverpb.Auth", "RoleGet") => Method::RoleGet,
            ("etcdserverpb.Auth", "RoleList") => Method::RoleList,
            ("etcdserverpb.Auth", "RoleDelete") => Method::RoleDelete,
            ("etcdserverpb.Auth", "RoleGrantPermission") => Method::RoleGrantPermission,
            ("etcdserverpb.Auth", "RoleRevokePermission") => Method::RoleRevokePermission,
            ("v3lockpb.Lock", "Lock") => Method::Lock,
            ("v3lockpb.Lock", "Unlock") => Method::Unlock,
            ("v3electionpb.Election", "Campaign") => Method::Campaign,
            ("v3electionpb.Election", "Proclaim") => Method::Proclaim,
            ("v3electionpb.Election", "Leader") => Method::Leader,
            ("v3electionpb.Election", "Observe") => Method::Observe,
            ("v3electionpb.Election", "Resign") => Method::Resign,
            ("grpc.health.v1.Health", "Check") => Method::HealthCheck,
            ("grpc.health.v1.Health", "Watch") => Method::HealthWatch,
            ("basalt.node.v1.Node", "Describe") => Method::Describe,
            _ => return None,
        })
    }
}

/// Services that etcd serves, whatever is available here, and ours.
const SERVICES: [&str; 10] = [
    "basalt.node.v1.Node",
    "etcdserverpb.KV",
    "etcdserverpb.Watch",
    "etcdserverpb.Lease",
    "etcdserverpb.Cluster",
    "etcdserverpb.Maintenance",
    "etcdserverpb.Auth",
    "v3lockpb.Lock",
    "v3electionpb.Election",
    "grpc.health.v1.Health",
];

/// What grpc-go says of a path that names no method.
pub fn unknown(path: &str) -> String {
    match path.strip_prefix('/').unwrap_or(path).rsplit_once('/') {
        None => format!("malformed method name: {path:?}"),
        Some((service, method)) if SERVICES.contains(&service) => {
            format!("unknown method {method} for service {service}")
        }
        Some((service, _)) => format!("unknown service {service}"),
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use prost_types::FileDescriptorSet;

    use super::*;

    #[test]
    fn every_method_of_the_wire_is_decided_here() {
        let described = FileDescriptorSet::decode(basalt_proto::FILE_DESCRIPTOR_SET).expect("our own descriptors");
        let mut methods = 0;
        for file in &described.file {
            for service in &file.service {
                for method in &service.method {
                    let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                    let served = Method::of_path(&path).is_some();
                    // Members have a port of their own, and collectors of traces are called.
                    let elsewhere =
                        ["/basalt.peer.v1.Peer/", "/opentelemetry."].iter().any(|own| path.starts_with(own));
                    assert!(served || elsewhere || path.starts_with("/grpc.health.v1.Health/List"), "{path}");
                    methods += 1;
                }
            }
        }
        assert!(methods >= 51, "42 of etcd, 7 of lock and election, 2 of health; found {methods}");
        assert_eq!(Method::of_path("/etcdserverpb.KV/Nope"), None);
        assert_eq!(Method::of_path("etcdserverpb.KV/Put"), None);
    }

    #[test]
    fn what_names_no_method_is_refused_in_grpc_gos_words() {
        assert_eq!(unknown("/etcdserverpb.KV/Nope"), "unknown method Nope for service etcdserverpb.KV");
        assert_eq!(unknown("/a.b/Nope"), "unknown service a.b");
        assert_eq!(unknown("/Nope"), "malformed method name: \"/Nope\"");
    }
}
