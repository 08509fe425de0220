//! What this member tells others of where it is reached.

use std::io;
use std::net::{IpAddr, SocketAddr};

use super::flag::Flag;
use super::settings::Settings;
use super::url::{Url, UrlAddress};

/// Finds the address by which this machine reaches others.
pub(super) type FindHost<'a> = &'a dyn Fn() -> io::Result<IpAddr>;

/// The URLs that others learn.
pub(super) struct Advertised {
    pub(super) peer_urls: Vec<Url>,
    pub(super) client_urls: Vec<Url>,
    /// What took the place of `localhost` in them.
    pub(super) default_host: Option<IpAddr>,
}

/// The URLs of the flags, but for a default beside a first listener on all addresses: `localhost` would lead others to
/// themselves, so that the machine's address takes its place, with the listener's port (etcd `UpdateDefaultClusterFromName`).
/// Without such an address the default stays, with a warning.
pub(super) fn advertised(settings: &mut Settings, find_host: FindHost<'_>) -> Advertised {
    const PEER: &str = "initial-advertise-peer-urls";
    const CLIENT: &str = "advertise-client-urls";
    let peer_port = port_on_all_addresses(settings, "listen-peer-urls", PEER);
    let client_port = port_on_all_addresses(settings, "listen-client-urls", CLIENT);
    let default_host = peer_port.or(client_port).and_then(|_| match find_host() {
        Ok(host) => Some(host),
        Err(error) => {
            settings.warnings.push(format!("failed to detect default host, localhost is advertised: {error}"));
            None
        }
    });
    let urls = |flag, port: Option<u16>| match default_host.zip(port) {
        Some((host, port)) => vec![url(host, port)],
        None => settings.urls(flag),
    };
    Advertised { peer_urls: urls(PEER, peer_port), client_urls: urls(CLIENT, client_port), default_host }
}

/// The port of the first listener if it is on all addresses, of IPv4 as in etcd, and the default is advertised for it, whoever
/// set it.
fn port_on_all_addresses(settings: &Settings, listen: &str, advertise: &str) -> Option<u16> {
    let default = Flag::find(advertise).expect("the table has it").default;
    if !matches!(&*settings.urls(advertise), [only] if only.as_str() == default) {
        return None;
    }
    match settings.urls(listen).first()?.address() {
        UrlAddress::Tcp { host, port } if host == "0.0.0.0" => Some(*port),
        _ => None,
    }
}

/// In the default's scheme. etcd forgets the brackets of IPv6, and refuses what it made.
fn url(host: IpAddr, port: u16) -> Url {
    Url::parse(&format!("http://{}", SocketAddr::new(host, port))).expect("an address and a port")
}
