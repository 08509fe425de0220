//! The methods of the API as `grpc_server_*` labels them.

/// How many messages go each way in a call; the label `grpc_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallKind {
    /// One request, one answer.
    Unary,
    /// One request, many answers.
    ServerStream,
    /// Many of both.
    BidiStream,
}

impl CallKind {
    /// The label's value.
    pub fn label(self) -> &'static str {
        match self {
            CallKind::Unary => "unary",
            CallKind::ServerStream => "server_stream",
            CallKind::BidiStream => "bidi_stream",
        }
    }
}

macro_rules! methods {
    ($($method:ident = $service:literal / $name:literal, $kind:ident;)*) => {
        /// A method of the API; its number is its place in the tables of [`GrpcCalls`](super::GrpcCalls).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        #[allow(missing_docs)] // the names are the methods'
        pub enum GrpcMethod { $($method),* }

        impl GrpcMethod {
            /// Every method, by number.
            pub const ALL: &[GrpcMethod] = &[$(GrpcMethod::$method),*];

            /// The service, with its package.
            pub fn service(self) -> &'static str {
                match self { $(GrpcMethod::$method => $service),* }
            }

            /// The name within the service.
            pub fn name(self) -> &'static str {
                match self { $(GrpcMethod::$method => $name),* }
            }

            /// How many messages go each way.
            pub fn kind(self) -> CallKind {
                match self { $(GrpcMethod::$method => CallKind::$kind),* }
            }

            /// The method that a request path such as `/etcdserverpb.KV/Range` names.
            pub fn from_path(path: &str) -> Option<Self> {
                match path { $(concat!("/", $service, "/", $name) => Some(GrpcMethod::$method),)* _ => None }
            }
        }
    };
}

methods! {
    Range = "etcdserverpb.KV" / "Range", Unary;
    Txn = "etcdserverpb.KV" / "Txn", Unary;
    Put = "etcdserverpb.KV" / "Put", Unary;
    DeleteRange = "etcdserverpb.KV" / "DeleteRange", Unary;
    RangeStream = "etcdserverpb.KV" / "RangeStream", ServerStream;
    Compact = "etcdserverpb.KV" / "Compact", Unary;
    Watch = "etcdserverpb.Watch" / "Watch", BidiStream;
    LeaseGrant = "etcdserverpb.Lease" / "LeaseGrant", Unary;
    LeaseRevoke = "etcdserverpb.Lease" / "LeaseRevoke", Unary;
    LeaseKeepAlive = "etcdserverpb.Lease" / "LeaseKeepAlive", BidiStream;
    LeaseTimeToLive = "etcdserverpb.Lease" / "LeaseTimeToLive", Unary;
    LeaseLeases = "etcdserverpb.Lease" / "LeaseLeases", Unary;
    MemberAdd = "etcdserverpb.Cluster" / "MemberAdd", Unary;
    MemberRemove = "etcdserverpb.Cluster" / "MemberRemove", Unary;
    MemberUpdate = "etcdserverpb.Cluster" / "MemberUpdate", Unary;
    MemberList = "etcdserverpb.Cluster" / "MemberList", Unary;
    MemberPromote = "etcdserverpb.Cluster" / "MemberPromote", Unary;
    Alarm = "etcdserverpb.Maintenance" / "Alarm", Unary;
    Status = "etcdserverpb.Maintenance" / "Status", Unary;
    Defragment = "etcdserverpb.Maintenance" / "Defragment", Unary;
    Hash = "etcdserverpb.Maintenance" / "Hash", Unary;
    HashKv = "etcdserverpb.Maintenance" / "HashKV", Unary;
    Snapshot = "etcdserverpb.Maintenance" / "Snapshot", ServerStream;
    MoveLeader = "etcdserverpb.Maintenance" / "MoveLeader", Unary;
    Downgrade = "etcdserverpb.Maintenance" / "Downgrade", Unary;
    AuthEnable = "etcdserverpb.Auth" / "AuthEnable", Unary;
    AuthDisable = "etcdserverpb.Auth" / "AuthDisable", Unary;
    AuthStatus = "etcdserverpb.Auth" / "AuthStatus", Unary;
    Authenticate = "etcdserverpb.Auth" / "Authenticate", Unary;
    UserAdd = "etcdserverpb.Auth" / "UserAdd", Unary;
    UserGet = "etcdserverpb.Auth" / "UserGet", Unary;
    UserList = "etcdserverpb.Auth" / "UserList", Unary;
    UserDelete = "etcdserverpb.Auth" / "UserDelete", Unary;
    UserChangePassword = "etcdserverpb.Auth" / "UserChangePassword", Unary;
    UserGrantRole = "etcdserverpb.Auth" / "UserGrantRole", Unary;
    UserRevokeRole = "etcdserverpb.Auth" / "UserRevokeRole", Unary;
    RoleAdd = "etcdserverpb.Auth" / "RoleAdd", Unary;
    RoleGet = "etcdserverpb.Auth" / "RoleGet", Unary;
    RoleList = "etcdserverpb.Auth" / "RoleList", Unary;
    RoleDelete = "etcdserverpb.Auth" / "RoleDelete", Unary;
    RoleGrantPermission = "etcdserverpb.Auth" / "RoleGrantPermission", Unary;
    RoleRevokePermission = "etcdserverpb.Auth" / "RoleRevokePermission", Unary;
    HealthCheck = "grpc.health.v1.Health" / "Check", Unary;
    HealthList = "grpc.health.v1.Health" / "List", Unary;
    HealthWatch = "grpc.health.v1.Health" / "Watch", ServerStream;
    Lock = "v3lockpb.Lock" / "Lock", Unary;
    Unlock = "v3lockpb.Lock" / "Unlock", Unary;
    Campaign = "v3electionpb.Election" / "Campaign", Unary;
    Proclaim = "v3electionpb.Election" / "Proclaim", Unary;
    Leader = "v3electionpb.Election" / "Leader", Unary;
    Observe = "v3electionpb.Election" / "Observe", ServerStream;
    Resign = "v3electionpb.Election" / "Resign", Unary;
}

impl GrpcMethod {
    /// Whether etcd shows the method before its first call: it registers Lock and Election after its metrics.
    pub(super) fn shown_from_the_start(self) -> bool {
        (self as u8) < GrpcMethod::Lock as u8
    }
}
