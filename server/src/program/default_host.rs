//! The address by which this machine reaches others.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// Addresses that documents have for themselves (RFC 5737, RFC 3849), so that the default route leads to them.
const ELSEWHERE: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))];
const DISCARD_PORT: u16 = 9;

/// The address of this machine towards its default route, of IPv4 if there is one (etcd `netutil.GetDefaultHost`). Sends nothing.
///
/// # Errors
/// No default route, in etcd's words.
pub(super) fn default_host() -> io::Result<IpAddr> {
    let mut hosts = ELSEWHERE.into_iter().filter_map(|elsewhere| source_towards(elsewhere).ok());
    hosts.find(is_of_use).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "could not find default route"))
}

/// The address that packets would have. A datagram socket that is connected chooses its route, and is silent.
fn source_towards(elsewhere: IpAddr) -> io::Result<IpAddr> {
    let any: IpAddr = match elsewhere {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
    socket.connect(SocketAddr::new(elsewhere, DISCARD_PORT))?;
    Ok(socket.local_addr()?.ip())
}

/// Whether others can use it: a link's own address means nothing without its link.
fn is_of_use(host: &IpAddr) -> bool {
    let is_of_a_link = matches!(host, IpAddr::V6(host) if host.is_unicast_link_local());
    !host.is_unspecified() && !host.is_loopback() && !is_of_a_link
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_has_its_address() {
        let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
        assert_eq!(source_towards(here).expect("a loopback"), here);
    }

    #[test]
    fn what_others_cannot_use_is_not_found() {
        for host in ["127.0.0.1", "::1", "0.0.0.0", "::", "fe80::1"] {
            assert!(!is_of_use(&host.parse().expect("an address")), "{host}");
        }
        for host in ["10.0.0.1", "2001:db8::1", "fd00::1"] {
            assert!(is_of_use(&host.parse().expect("an address")), "{host}");
        }
        match default_host() {
            Ok(host) => assert!(is_of_use(&host), "{host}"),
            Err(error) => assert_eq!(error.to_string(), "could not find default route"),
        }
    }
}
