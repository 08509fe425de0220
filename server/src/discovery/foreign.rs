//! What this room makes of the words of strangers in DNS and in a discovery service, for whoever tries it with bytes of all kinds
//! (`tests/fuzz`).

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::names::{Names, SrvRecord};
use super::registry::{Registry, parse_size};
use super::{keys, srv};
use crate::config::{SrvDiscovery, Url};

/// A zone of DNS in memory.
#[derive(Debug, Default)]
pub struct Zone {
    services: BTreeMap<String, Vec<SrvRecord>>,
    addresses: BTreeMap<String, IpAddr>,
}

impl Zone {
    /// Adds a SRV record: priority, weight, port and target of a name such as `_etcd-server._tcp.example.org`.
    pub fn record(&mut self, name: &str, numbers: [u16; 3], target: &str) {
        let [priority, weight, port] = numbers;
        let record = SrvRecord { priority, weight, target: target.to_owned(), port };
        self.services.entry(name.to_owned()).or_default().push(record);
    }

    /// Adds the address of a host.
    pub fn host(&mut self, host: &str, address: IpAddr) {
        self.addresses.insert(host.to_owned(), address);
    }
}

impl Names for Zone {
    async fn services(&self, name: &str) -> Result<Vec<SrvRecord>, String> {
        self.services.get(name).cloned().ok_or_else(|| format!("lookup {name}: no such host"))
    }

    async fn address(&self, host: &str) -> Result<IpAddr, String> {
        let found = self.addresses.get(host.strip_suffix('.').unwrap_or(host)).copied();
        found.or_else(|| host.parse().ok()).ok_or_else(|| format!("lookup {host}: no such host"))
    }
}

/// The first members by the records of a zone.
///
/// # Errors
/// Why there are none, in words.
pub async fn listed(
    zone: &Zone,
    name: &str,
    srv: &SrvDiscovery,
    advertised: &[Url],
) -> Result<Vec<(String, Vec<Url>)>, String> {
    srv::find(zone, name, srv, advertised).await.map_err(|error| error.to_string())
}

/// The first members by what stands in a discovery service under a token: the size of the cluster, and registrations in the order
/// in which they are read, with the revisions at which they were made.
///
/// # Errors
/// Why there are none, in words.
pub fn registered(
    token: &str,
    size: &[u8],
    registrations: &[(&[u8], &[u8], i64)],
) -> Result<Vec<(String, Vec<Url>)>, String> {
    let size = parse_size(&keys::size_key(token), size).map_err(|error| error.to_string())?;
    let mut registry = Registry::new(token, size);
    for (key, value, create_revision) in registrations {
        // What does not count is passed over.
        _ = registry.add(key, value, *create_revision);
    }
    assert!(registry.len() <= size, "a cluster of {size} has {} members", registry.len());
    registry.cluster().map_err(|error| error.to_string())
}

/// Under which key member `id` registers.
pub fn member_key(token: &str, id: u64) -> String {
    keys::member_key(token, id)
}
