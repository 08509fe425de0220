//! What ends a discovery, in etcd's words and ours.

use thiserror::Error;

use super::registry::{CLUSTER_SIZE_MAX, REGISTRATION_BYTES_MAX};

/// Why the first members are not found.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DiscoveryError {
    /// The names of `/etc/resolv.conf` cannot be asked.
    #[error("error setting up initial cluster: cannot use the system's DNS settings: {0}; correct /etc/resolv.conf")]
    NoResolver(String),
    /// Where this member is reached leads nowhere.
    #[error(
        "error setting up initial cluster: {0}; correct --initial-advertise-peer-urls, or what DNS says of its host"
    )]
    NoOwnAddress(String),
    /// Neither service has usable records.
    #[error("error setting up initial cluster: {0}; correct the SRV records, or --discovery-srv")]
    NoRecords(String),
    /// The records are there, and this member is not among them.
    #[error(
        "error setting up initial cluster: cannot find local etcd member {name:?} in SRV records; one of them must lead to \
         the address and port of {advertised} (--initial-advertise-peer-urls)"
    )]
    NotInRecords {
        /// This member.
        name: String,
        /// Where it says that it is reached.
        advertised: String,
    },
    /// A running cluster says itself who belongs to it.
    #[error(
        "discovery URL should not be set when joining existing initial cluster; name the members with --initial-cluster, \
         or set --initial-cluster-state new"
    )]
    JoinsExisting,
    /// Nobody said how many members there are to be.
    #[error(
        "failed to join discovery cluster (discovery: size key not found); write the number of members to {key} first"
    )]
    SizeNotFound {
        /// Where it is looked for.
        key: String,
    },
    /// It is not a number of members.
    #[error(
        "failed to join discovery cluster (discovery: size key is bad); {key} must hold a number from 1 to {CLUSTER_SIZE_MAX}"
    )]
    BadSizeKey {
        /// Where it stands.
        key: String,
    },
    /// All places are taken.
    #[error(
        "failed to join discovery cluster (discovery: cluster is full); all {size} members of this token are registered: \
         join them with --initial-cluster-state existing, or take a new token"
    )]
    FullCluster {
        /// How many there are.
        size: usize,
    },
    /// A registration that counts is unusable.
    #[error(
        "failed to join discovery cluster (discovery: invalid peer URL); {key} holds {value:?}: {why}; take a new token"
    )]
    InvalidUrl {
        /// Of the registration.
        key: String,
        /// What is there.
        value: String,
        /// In one clause.
        why: String,
    },
    /// Two registrations that count have a URL in common.
    #[error("discovery cluster {cluster} has duplicate url; give each member URLs of its own, and take a new token")]
    DuplicateUrl {
        /// As `--initial-cluster` would have it.
        cluster: String,
    },
    /// Another member registered with the name of this one.
    #[error(
        "failed to join discovery cluster: the name {name:?} is taken in {cluster}; give each member a --name of its own, and take a new token"
    )]
    NameTaken {
        /// This member's.
        name: String,
        /// As `--initial-cluster` would have it.
        cluster: String,
    },
    /// This member's own registration would not be taken.
    #[error(
        "failed to join discovery cluster: a registration may have {REGISTRATION_BYTES_MAX} bytes; advertise fewer peer URLs"
    )]
    RegistrationTooLong,
    /// The service does not know the user.
    #[error("failed to join discovery cluster ({0}); correct --discovery-user and --discovery-password")]
    Unauthenticated(String),
}
