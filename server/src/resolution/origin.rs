//! Where a URL leads, in a form that can be compared.

use std::fmt;
use std::net::IpAddr;

use crate::config::{Url, UrlAddress};

/// A URL whose host, if that is an IP address, is written in the one way that Go prints it (etcd `normalizeHost`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Origin {
    is_tls: bool,
    address: UrlAddress,
}

impl Origin {
    pub(super) fn of(url: &Url) -> Self {
        let mut origin = Self { is_tls: url.is_tls(), address: url.address().clone() };
        if let UrlAddress::Tcp { host, .. } = &mut origin.address
            && let Ok(address) = host.parse()
        {
            *host = text_of(address);
        }
        origin
    }

    /// The name that is to be looked up, if any.
    pub(super) fn name(&self) -> Option<&str> {
        match &self.address {
            UrlAddress::Tcp { host, .. } if host != "localhost" && host.parse::<IpAddr>().is_err() => Some(host),
            _ => None,
        }
    }

    /// The same at the address where its name leads.
    pub(super) fn at(mut self, found: IpAddr) -> Self {
        if let UrlAddress::Tcp { host, .. } = &mut self.address {
            *host = text_of(found);
        }
        self
    }
}

fn text_of(address: IpAddr) -> String {
    address.to_canonical().to_string()
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secure = if self.is_tls { "s" } else { "" };
        match &self.address {
            UrlAddress::Tcp { host, port } if host.contains(':') => write!(formatter, "http{secure}://[{host}]:{port}"),
            UrlAddress::Tcp { host, port } => write!(formatter, "http{secure}://{host}:{port}"),
            UrlAddress::Unix { path } => write!(formatter, "unix{secure}://{path}"),
        }
    }
}
