//! A member registers at a discovery service and waits for the others (etcd `v3discovery.JoinCluster`).
//!
//! What is said and in which order; [`Service`] says it. Tests put a service of their own in its place.

use std::future::Future;
use std::time::Duration;

use tracing::{info, warn};

use super::error::DiscoveryError;
use super::keys::{member_key, members_prefix, size_key};
use super::registry::{REGISTRATION_BYTES_MAX, Registry, parse_size};
use crate::config::{Url, cluster_text};

/// Doublings of the pause between two tries: from 2 s to 256 s, as etcd's.
const BACKOFF_DOUBLINGS_MAX: u32 = 8;

/// Why the service does not do what it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// It may do so later: in words.
    Passing(String),
    /// It never will.
    Lasting(DiscoveryError),
}

/// A key of the service, as it was last written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: Vec<u8>,
    pub(super) value: Vec<u8>,
    pub(super) create_revision: i64,
}

/// A discovery service: what of etcd's API is asked of it.
pub(super) trait Service {
    /// Changes that are told as they are made.
    type Changes: Changes;

    /// The value of a key.
    fn get(&mut self, key: &str) -> impl Future<Output = Result<Option<Vec<u8>>, Trouble>> + Send;
    /// All keys with a prefix, and the revision at which they stood so.
    fn list(&mut self, prefix: &str) -> impl Future<Output = Result<(Vec<Entry>, i64), Trouble>> + Send;
    /// Writes a key.
    fn put(&mut self, key: &str, value: &str) -> impl Future<Output = Result<(), Trouble>> + Send;
    /// Keys with a prefix that are written at `revision` or later.
    fn watch(&mut self, prefix: &str, revision: i64) -> impl Future<Output = Result<Self::Changes, Trouble>> + Send;
    /// Waits between two tries.
    fn pause(&mut self, pause: Duration) -> impl Future<Output = ()> + Send;
}

/// A watch on the service.
pub(super) trait Changes {
    /// The next keys that were written; waits for them. In words why there will be none.
    fn next(&mut self) -> impl Future<Output = Result<Vec<Entry>, String>> + Send;
}

/// Registers member `id` with its URLs and gives all members once they are there.
///
/// # Errors
/// What trying again does not mend.
pub(super) async fn join<S: Service>(
    service: &mut S,
    token: &str,
    id: u64,
    name: &str,
    own_urls: &[Url],
) -> Result<Vec<(String, Vec<Url>)>, DiscoveryError> {
    info!(token, member_id = format_args!("{id:x}"), "Bootstrapping cluster using v3 discovery.");
    let mut own_urls = own_urls.to_vec();
    own_urls.sort();
    let own = cluster_text(&[(name.to_owned(), own_urls.clone())]);
    if own.len() > REGISTRATION_BYTES_MAX {
        return Err(DiscoveryError::RegistrationTooLong);
    }
    let mut member = Joining { service, token, id, tries: 0 };
    member.look().await?;
    member.register(&own).await?;
    let cluster = loop {
        let (mut registry, revision) = member.look().await?;
        match member.wait_for_others(&mut registry, revision).await {
            Ok(()) => break registry.cluster()?,
            Err(trouble) => member.again("wait for peers", trouble).await?,
        }
    };
    // A second member of that name, and the URLs of both would be one member's.
    if !cluster.iter().any(|(known, urls)| known == name && *urls == own_urls) {
        return Err(DiscoveryError::NameTaken { name: name.to_owned(), cluster: cluster_text(&cluster) });
    }
    info!(cluster = cluster_text(&cluster), "discovery joined cluster successfully");
    Ok(cluster)
}

/// A member on its way in.
struct Joining<'a, S> {
    service: &'a mut S,
    token: &'a str,
    id: u64,
    /// In a row that came to nothing.
    tries: u32,
}

impl<S: Service> Joining<'_, S> {
    /// Who is registered, and at which revision that is so; this member has a place, or there is one for it.
    async fn look(&mut self) -> Result<(Registry, i64), DiscoveryError> {
        loop {
            match self.try_to_look().await {
                Ok((registry, revision)) => {
                    self.tries = 0;
                    registry.check_place(self.id)?;
                    return Ok((registry, revision));
                }
                Err(trouble) => self.again("cluster status check", trouble).await?,
            }
        }
    }

    async fn try_to_look(&mut self) -> Result<(Registry, i64), Trouble> {
        let key = size_key(self.token);
        let size = self.service.get(&key).await.inspect_err(|error| {
            warn!(cluster_size_key = key, ?error, "failed to get cluster size from discovery service");
        })?;
        let size = size.ok_or_else(|| Trouble::Lasting(DiscoveryError::SizeNotFound { key: key.clone() }))?;
        let size = parse_size(&key, &size).map_err(Trouble::Lasting)?;
        let prefix = members_prefix(self.token);
        let (entries, revision) = self.service.list(&prefix).await.inspect_err(|error| {
            warn!(members_key_prefix = prefix, ?error, "failed to get cluster members from discovery service");
        })?;
        let mut registry = Registry::new(self.token, size);
        take_in(&mut registry, &entries);
        Ok((registry, revision))
    }

    async fn register(&mut self, own: &str) -> Result<(), DiscoveryError> {
        let key = member_key(self.token, self.id);
        loop {
            match self.service.put(&key, own).await {
                Ok(()) => {
                    self.tries = 0;
                    info!(member_key = key, member_info = own, "register member itself successfully");
                    return Ok(());
                }
                Err(trouble) => {
                    warn!(member_key = key, "failed to register members itself to the discovery service");
                    self.again("register member itself", trouble).await?;
                }
            }
        }
    }

    /// Waits until all places are taken.
    async fn wait_for_others(&mut self, registry: &mut Registry, revision: i64) -> Result<(), Trouble> {
        if registry.is_complete() {
            return Ok(());
        }
        info!(found_peers = registry.len(), "waiting for peers from discovery service");
        let mut changes = self.service.watch(&members_prefix(self.token), revision + 1).await?;
        while !registry.is_complete() {
            let entries = changes.next().await.map_err(Trouble::Passing)?;
            self.tries = 0;
            take_in(registry, &entries);
        }
        info!(found_peers = registry.len(), "found all needed peers from discovery service");
        Ok(())
    }

    /// Waits before the next try, longer each time.
    async fn again(&mut self, reason: &str, trouble: Trouble) -> Result<(), DiscoveryError> {
        let error = match trouble {
            Trouble::Passing(error) => error,
            Trouble::Lasting(error) => return Err(error),
        };
        self.tries = self.tries.saturating_add(1);
        let pause = Duration::from_secs(1 << self.tries.min(BACKOFF_DOUBLINGS_MAX));
        warn!(reason, error, backoff_seconds = pause.as_secs(), "retry connecting to discovery service");
        self.service.pause(pause).await;
        Ok(())
    }
}

fn take_in(registry: &mut Registry, entries: &[Entry]) {
    for Entry { key, value, create_revision } in entries {
        match registry.add(key, value, *create_revision) {
            Ok(member) => {
                let (member_key, member_info) = (&*member.key, &*member.value);
                info!(member_key, member_info, "found peer from discovery service");
            }
            // What it holds is of a stranger, and may be anything of any length.
            Err(why) => warn!(member_key = %key.escape_ascii(), "{why}"),
        }
    }
}

#[cfg(test)]
#[path = "join_tests.rs"]
mod tests;
