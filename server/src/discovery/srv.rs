//! The first members, as SRV records of a domain list them (etcd `embed.Config.GetDNSClusterNames`, `client/pkg/srv`).

use std::net::SocketAddr;

use tracing::{info, warn};

use super::error::DiscoveryError;
use super::names::{Names, SrvRecord};
use super::registry::CLUSTER_SIZE_MAX;
use crate::config::{SrvDiscovery, Url, UrlAddress, url_text};

/// Services that are asked for, and the scheme of the URLs that they list.
const SERVICES: [(&str, &str); 2] = [("etcd-server-ssl", "https"), ("etcd-server", "http")];

/// Asks for both services, and finds the member `name` among their records by the addresses that it advertises.
///
/// # Errors
/// Nobody is listed, or not this member.
pub(super) async fn find(
    names: &impl Names,
    name: &str,
    srv: &SrvDiscovery,
    advertised: &[Url],
) -> Result<Vec<(String, Vec<Url>)>, DiscoveryError> {
    let mut own = Vec::new();
    for url in advertised {
        own.push((address_of(names, url).await.map_err(DiscoveryError::NoOwnAddress)?, url));
    }
    let mut members: Vec<(String, Vec<Url>)> = Vec::new();
    let mut failed = Vec::new();
    for (service, scheme) in SERVICES {
        let service =
            if srv.service_name.is_empty() { service.to_owned() } else { format!("{service}-{}", srv.service_name) };
        match listed_by(names, &service, scheme, name, &srv.domain, &own).await {
            Ok(listed) => {
                let cluster = listed.iter().map(|(name, url)| format!("{name}={url}")).collect::<Vec<_>>().join(",");
                info!(service_name = service, discovery_srv = srv.domain, cluster, "got bootstrap from DNS");
                listed.into_iter().for_each(|(name, url)| add(&mut members, name, url));
            }
            Err(why) => failed.push(format!("error querying DNS SRV records for _{service} {why}")),
        }
    }
    if members.is_empty() {
        return Err(DiscoveryError::NoRecords(failed.join("; ")));
    }
    for why in failed {
        // One of the two services is enough.
        warn!(why, "failed to resolve during SRV discovery");
    }
    members.sort();
    members.iter_mut().for_each(|(_, urls)| urls.sort());
    if !members.iter().any(|(known, _)| known == name) {
        return Err(DiscoveryError::NotInRecords { name: name.to_owned(), advertised: url_text(advertised) });
    }
    Ok(members)
}

/// Members that one service lists, with a URL each. The own one, at one of the addresses `own`, has its name; the others, whose
/// names DNS does not know, are numbered until they say them, and names are no part of any id.
async fn listed_by(
    names: &impl Names,
    service: &str,
    scheme: &str,
    name: &str,
    domain: &str,
    own: &[(SocketAddr, &Url)],
) -> Result<Vec<(String, Url)>, String> {
    let mut records = names.services(&format!("_{service}._tcp.{domain}")).await?;
    if records.len() > CLUSTER_SIZE_MAX {
        return Err(format!("has {} records, more than the {CLUSTER_SIZE_MAX} that a cluster may have", records.len()));
    }
    // Go shuffles those of one priority by their weights; the order shows in nothing but the numbers.
    records.sort_by_key(|record| (record.priority, u16::MAX - record.weight, record.target.clone(), record.port));
    let mut numbers = 0..;
    let mut listed = Vec::new();
    let mut unusable = None;
    for record in &records {
        let url = url_of(record, scheme)?;
        // With the dot at its end: the domains of `search` in /etc/resolv.conf are not for it.
        let address = match names.address(&record.target).await {
            Ok(address) => SocketAddr::new(address, record.port),
            Err(why) => {
                warn!(target = record.target, why, "a SRV record is passed over: its host has no address");
                unusable = Some(why);
                continue;
            }
        };
        let is_own = own.iter().rev().find(|(known, _)| *known == address).map(|(_, url)| *url);
        if let Some(expected) = is_own.filter(|expected| !expected.as_str().starts_with(&format!("{scheme}:"))) {
            unusable = Some(format!(
                "bootstrap at {url} from DNS for {service} has scheme mismatch with expected peer {expected}"
            ));
            continue;
        }
        let listed_name = match is_own {
            Some(_) => name.to_owned(),
            None => numbers.next().unwrap_or(0_u32).to_string(),
        };
        listed.push((listed_name, url));
    }
    match unusable {
        Some(why) if listed.is_empty() => Err(why),
        _ => Ok(listed),
    }
}

/// The URL that a record stands for.
fn url_of(record: &SrvRecord, scheme: &str) -> Result<Url, String> {
    let host = record.target.strip_suffix('.').unwrap_or(&record.target);
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if !host.bytes().all(is_name) {
        return Err(format!("has the record {:?}, which is no host name", record.target));
    }
    Url::parse(&format!("{scheme}://{host}:{}", record.port))
}

async fn address_of(names: &impl Names, url: &Url) -> Result<SocketAddr, String> {
    match url.address() {
        UrlAddress::Tcp { host, port } if !host.is_empty() => Ok(SocketAddr::new(names.address(host).await?, *port)),
        _ => Err(format!("{url} has no host to look for in DNS")),
    }
}

/// A name that comes twice has both URLs, as in `--initial-cluster`.
fn add(members: &mut Vec<(String, Vec<Url>)>, name: String, url: Url) {
    match members.iter_mut().find(|(known, _)| *known == name) {
        Some((_, urls)) => urls.push(url),
        None => members.push((name, vec![url])),
    }
}

#[cfg(test)]
#[path = "srv_tests.rs"]
mod tests;
