//! Where a host is.

use std::net::IpAddr;

/// A resolver.
pub trait Hosts {
    /// The address of a host that would be tried first. In words why there is none.
    fn address(&self, host: &str) -> impl Future<Output = Result<IpAddr, String>> + Send;
}

/// As the system resolves them.
#[derive(Clone, Copy, Debug)]
pub struct SystemHosts;

impl Hosts for SystemHosts {
    async fn address(&self, host: &str) -> Result<IpAddr, String> {
        let found = tokio::net::lookup_host((host, 0)).await.map_err(|error| format!("lookup {host}: {error}"))?;
        let first = found.map(|address| address.ip()).next();
        first.ok_or_else(|| format!("lookup {host}: no address"))
    }
}
