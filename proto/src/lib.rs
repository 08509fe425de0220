//! The wire: the services of etcd 3.7 with its names and numbers, and our own versioned formats of log and effects.
//! Generated code, but for the decoding of what nests deep ([`nesting`]); the `.proto` files beside this folder are the
//! source and say what each field means.
//!
//! - Clients are generated, servers are not: the server binds its handlers itself.
//! - Every `bytes` field is a [`bytes::Bytes`], so decoding from `Bytes` slices the buffer instead of copying it. Whoever
//!   keeps such a field beyond the request keeps the whole buffer alive. Those of [`v3lockpb`] and [`v3electionpb`] are vectors,
//!   since their calls wait long.
//! - Generated decoding drops what it does not know: a `oneof` of a newer release reads as `None`, which readers of
//!   [`log`] and [`effects`] must refuse, and an enum field is a plain number.

pub mod nesting;

pub use basalt::effects::v1 as effects;
pub use basalt::log::v1 as log;
pub use basalt::members::v1 as members;
pub use basalt::node::v1 as node;
pub use basalt::peer::v1 as peer;
pub use basalt::snapshot::v1 as snapshot;
pub use grpc::health::v1 as health;
pub use nesting::TXN_NESTING_MAX;

/// All `.proto` files of this crate as an encoded `google.protobuf.FileDescriptorSet`: names, numbers, services.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The same with the comments of the files, for whoever writes documents of them.
pub const COMMENTED_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/commented.bin"));

// Generated code refers to other packages by relative path, so the modules nest as the packages do.
macro_rules! packages {
    ($($(#[$attribute:meta])* $module:ident = $package:literal;)*) => {
        $($(#[$attribute])*
        #[allow(missing_docs)]
        pub mod $module {
            include!(concat!(env!("OUT_DIR"), "/", $package, ".rs"));
        })*
    };
}

packages! {
    /// The services KV, Watch, Lease, Cluster, Maintenance and Auth.
    etcdserverpb = "etcdserverpb";
    /// Keys and events.
    mvccpb = "mvccpb";
    /// Users, roles and permissions as stored.
    authpb = "authpb";
    /// Leases as a snapshot holds them.
    leasepb = "leasepb";
    /// Members as stored.
    membershippb = "membershippb";
    /// The service Lock.
    v3lockpb = "v3lockpb";
    /// The service Election.
    v3electionpb = "v3electionpb";
    /// Traces for a collector.
    otlp = "opentelemetry.proto.collector.trace.v1";
}

mod basalt {
    pub mod log {
        packages! {
            /// What stands in the Raft log.
            v1 = "basalt.log.v1";
        }
    }
    pub mod effects {
        packages! {
            /// What apply changed.
            v1 = "basalt.effects.v1";
        }
    }
    pub mod members {
        packages! {
            /// Who belongs to a cluster.
            v1 = "basalt.members.v1";
        }
    }
    pub mod node {
        packages! {
            /// What a member tells of itself beside etcd's Status.
            v1 = "basalt.node.v1";
        }
    }
    pub mod peer {
        packages! {
            /// What members say to each other.
            v1 = "basalt.peer.v1";
        }
    }
    pub mod snapshot {
        packages! {
            /// The whole state of a member, for another.
            v1 = "basalt.snapshot.v1";
        }
    }
}

mod grpc {
    pub mod health {
        packages! {
            /// The standard health service.
            v1 = "grpc.health.v1";
        }
    }
}
