//! How a member without data finds the first members of its cluster, as etcd 3.7 does: by DNS, or in another cluster.
//!
//! ```text
//!   --discovery-srv        names (DNS) ─► srv ─────────────────────────┐
//!                                                                      ├─► members ─► ids as from --initial-cluster
//!   --discovery-token      service (gRPC) ─► join ─► registry (keys) ──┘
//! ```
//!
//! Owns the questions, what the answers mean, and etcd's words for what is wrong with them. It never looks at a data
//! directory, and is asked only where there is none: once there is data, that says who belongs to the cluster.
//!
//! Invariants:
//! * What others wrote into DNS or the service is text from strangers: bounded, checked, and named when it is refused.
//! * The ids that follow are etcd's. They hang on URLs and token alone, so that it does not matter that in DNS only a
//!   member's own name is known, and the others are numbered.
//! * A member has a place in the service if its registration is among the first as many as the cluster's size, by the
//!   revision at which each was made: whoever looks sees the same ones.
//! * What passes (nobody reached, no leader there) is tried again for as long as it takes; what does not ends the start.

mod error;
#[doc(hidden)]
pub mod foreign;
mod join;
mod keys;
mod names;
mod registry;
mod service;
mod srv;

pub use error::DiscoveryError;

use self::names::SystemNames;
use self::service::ServiceClient;
use crate::config::{Config, Discovery, Url, member_id};

/// Asks whoever `config` names, and waits until all members are there; the flags' own list where nobody is named. Gives the first
/// members with their peer URLs, as `--initial-cluster` would list them.
///
/// May take for ever: a discovery service is waited for. To be dropped when it shall end. Takes a tokio runtime.
///
/// # Errors
/// [`DiscoveryError`]: what trying again does not mend.
pub async fn find_members(config: &Config) -> Result<Vec<(String, Vec<Url>)>, DiscoveryError> {
    let (peer, own_urls) = (&config.peer, &config.peer.advertise_urls);
    match &peer.discovery {
        None => Ok(peer.initial_cluster.clone()),
        Some(Discovery::Srv(srv)) => srv::find(&SystemNames::new()?, &config.name, srv, own_urls).await,
        Some(Discovery::Service(_)) if peer.join_existing => Err(DiscoveryError::JoinsExisting),
        Some(Discovery::Service(service)) => {
            // As it would be without the others: under this id the member registers (etcd `bootstrapNewClusterNoWAL`).
            let id = member_id(own_urls.iter().map(Url::as_str), &peer.initial_cluster_token, None);
            let mut client = ServiceClient::new(service);
            join::join(&mut client, &service.token, id, &config.name, own_urls).await
        }
    }
}
