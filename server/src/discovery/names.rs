//! What DNS is asked: services of a domain, and addresses of hosts.

use std::future::Future;
use std::net::IpAddr;

use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::RData;

use super::error::DiscoveryError;

/// One SRV record: a member's host and port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SrvRecord {
    /// Lower ones come first.
    pub(super) priority: u16,
    /// Of those of one priority, heavier ones come first.
    pub(super) weight: u16,
    /// The host, with a dot at its end as DNS writes it.
    pub(super) target: String,
    /// The peer port.
    pub(super) port: u16,
}

/// A resolver.
pub(super) trait Names {
    /// The SRV records of a name such as `_etcd-server._tcp.example.org`. In words why there are none.
    fn services(&self, name: &str) -> impl Future<Output = Result<Vec<SrvRecord>, String>> + Send;
    /// One address of a host, of IPv4 if it has any (Go's `net.ResolveTCPAddr`); that of an address is itself.
    fn address(&self, host: &str) -> impl Future<Output = Result<IpAddr, String>> + Send;
}

/// The resolver that `/etc/resolv.conf` and `/etc/hosts` describe; it speaks DNS itself, as etcd's does.
pub(super) struct SystemNames(TokioResolver);

impl SystemNames {
    /// Reads the system's settings.
    ///
    /// # Errors
    /// [`DiscoveryError::NoResolver`].
    pub(super) fn new() -> Result<Self, DiscoveryError> {
        let unusable = |error: &dyn std::fmt::Display| DiscoveryError::NoResolver(error.to_string());
        let builder = TokioResolver::builder_tokio().map_err(|error| unusable(&error))?;
        Ok(Self(builder.build().map_err(|error| unusable(&error))?))
    }
}

impl Names for SystemNames {
    async fn services(&self, name: &str) -> Result<Vec<SrvRecord>, String> {
        let found = self.0.srv_lookup(name).await.map_err(|error| format!("lookup {name}: {error}"))?;
        let records = found.answers().iter().filter_map(|record| match &record.data {
            RData::SRV(srv) => Some(SrvRecord {
                priority: srv.priority,
                weight: srv.weight,
                target: srv.target.to_ascii(),
                port: srv.port,
            }),
            _ => None,
        });
        Ok(records.collect())
    }

    async fn address(&self, host: &str) -> Result<IpAddr, String> {
        if let Ok(address) = host.parse() {
            return Ok(address);
        }
        let found = self.0.lookup_ip(host).await.map_err(|error| format!("lookup {host}: {error}"))?;
        let first = found.iter().find(IpAddr::is_ipv4).or_else(|| found.iter().next());
        first.ok_or_else(|| format!("lookup {host}: no address"))
    }
}
