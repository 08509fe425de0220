//! Whether a member comes from where its certificate says (etcd `client/pkg/transport/listener_tls.go`, `checkCertSAN`): a
//! certificate that names addresses or hosts is good for those alone, so that a stolen one is of no use elsewhere.

use std::net::IpAddr;

use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::RData;
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// What is asked of DNS.
pub(super) trait Names {
    /// Addresses of a host; none if it is not known.
    fn addresses(&self, host: &str) -> impl Future<Output = Vec<IpAddr>> + Send;
    /// Names of an address, without a dot at the end; none if it is not known.
    fn names(&self, address: IpAddr) -> impl Future<Output = Vec<String>> + Send;
}

/// As the system resolves them.
pub(super) struct SystemNames;

impl Names for SystemNames {
    async fn addresses(&self, host: &str) -> Vec<IpAddr> {
        let found = tokio::net::lookup_host((host, 0)).await;
        found.map_or_else(|_| Vec::new(), |found| found.map(|address| address.ip()).collect())
    }

    async fn names(&self, address: IpAddr) -> Vec<String> {
        // The files of the system are read anew: they may have changed, and members connect seldom.
        let Ok(resolver) = TokioResolver::builder_tokio().and_then(|builder| builder.build()) else {
            return Vec::new();
        };
        let Ok(found) = resolver.reverse_lookup(address).await else { return Vec::new() };
        let names = found.answers().iter().filter_map(|record| match &record.data {
            RData::PTR(name) => Some(name.0.to_ascii().trim_end_matches('.').to_owned()),
            _ => None,
        });
        names.collect()
    }
}

/// Whether the certificate, which verifies, may be shown from `remote`.
///
/// # Errors
/// In words for the log.
pub(super) async fn check(certificate: &CertificateDer<'_>, remote: IpAddr, system: &impl Names) -> Result<(), String> {
    let (_, certificate) = X509Certificate::from_der(certificate).map_err(|error| error.to_string())?;
    let names = certificate.subject_alternative_name().map_err(|error| error.to_string())?;
    let (mut addresses, mut hosts) = (Vec::new(), Vec::new());
    for name in names.iter().flat_map(|names| &names.value.general_names) {
        match name {
            GeneralName::IPAddress(bytes) => addresses.extend(address_of(bytes)),
            GeneralName::DNSName(host) => hosts.push(*host),
            _ => {}
        }
    }
    // A socket of both families gives addresses of IPv4 within those of IPv6.
    let remote = remote.to_canonical();
    if (addresses.is_empty() && hosts.is_empty()) || addresses.contains(&remote) {
        return Ok(());
    }
    if is_one_of(remote, &hosts, system).await {
        return Ok(());
    }
    Err(format!("tls: {remote} does not match any of addresses {addresses:?} and DNSNames {hosts:?}"))
}

fn address_of(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(|octets| IpAddr::from(octets).to_canonical()),
        _ => None,
    }
}

async fn is_one_of(remote: IpAddr, hosts: &[&str], system: &impl Names) -> bool {
    if hosts.is_empty() {
        return false;
    }
    let own = system.names(remote).await;
    let is_named = |host: &&str| match host.strip_prefix('*') {
        // What follows the star begins with a dot.
        Some(suffix) if suffix.starts_with('.') => own.iter().any(|name| name.ends_with(suffix)),
        _ => own.iter().any(|name| name == host),
    };
    if hosts.iter().any(is_named) {
        return true;
    }
    for host in hosts.iter().filter(|host| !host.starts_with("*.")) {
        if system.addresses(host).await.iter().any(|address| address.to_canonical() == remote) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    /// Knows `m1.example.org` at 10.0.0.1, both ways, and `m2.example.org` at 10.0.0.2 one way.
    struct Known;

    impl Names for Known {
        async fn addresses(&self, host: &str) -> Vec<IpAddr> {
            match host {
                "m1.example.org" => vec![IpAddr::from([10, 0, 0, 1])],
                "m2.example.org" => vec![IpAddr::from([10, 0, 0, 9]), IpAddr::from([10, 0, 0, 2])],
                _ => Vec::new(),
            }
        }

        async fn names(&self, address: IpAddr) -> Vec<String> {
            if address == IpAddr::from([10, 0, 0, 1]) { vec!["m1.example.org".to_owned()] } else { Vec::new() }
        }
    }

    async fn is_let_in(hosts: &[&str], remote: &str) -> bool {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let key = KeyPair::generate().expect("a key");
        let made = CertificateParams::new(hosts).expect("names").self_signed(&key).expect("a certificate");
        check(made.der(), remote.parse().expect("an address"), &Known).await.is_ok()
    }

    #[tokio::test]
    async fn a_certificate_is_good_for_its_addresses() {
        assert!(is_let_in(&[], "10.0.0.7").await, "it names none");
        assert!(is_let_in(&["10.0.0.7", "10.0.0.8"], "10.0.0.8").await);
        assert!(is_let_in(&["10.0.0.7"], "::ffff:10.0.0.7").await);
        assert!(is_let_in(&["fd00::1"], "fd00::1").await);
        assert!(!is_let_in(&["10.0.0.7"], "10.0.0.8").await);
    }

    #[tokio::test]
    async fn a_certificate_is_good_for_its_hosts() {
        assert!(is_let_in(&["m1.example.org"], "10.0.0.1").await);
        assert!(is_let_in(&["m2.example.org"], "10.0.0.2").await, "known by its name alone");
        assert!(is_let_in(&["*.example.org"], "10.0.0.1").await);
        assert!(is_let_in(&["10.0.0.7", "m2.example.org"], "10.0.0.2").await, "another address is no hindrance");
        assert!(!is_let_in(&["*.example.org"], "10.0.0.2").await, "nobody says its name");
        assert!(!is_let_in(&["*.other.org", "m2.example.org", "nobody.example.org"], "10.0.0.1").await);
    }

    #[tokio::test]
    async fn what_is_no_certificate_is_refused() {
        assert!(check(&CertificateDer::from(vec![1, 2]), IpAddr::from([10, 0, 0, 1]), &Known).await.is_err());
    }
}
