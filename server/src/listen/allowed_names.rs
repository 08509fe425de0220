//! Which certificates are let in, of those that verify: by common name, or by a host name that they are good for
//! (`--peer-cert-allowed-cn`, `--client-cert-allowed-hostname` and their kin).

use rustls::Error;
use rustls::client::verify_server_name;
use rustls::server::ParsedCertificate;
use rustls_pki_types::{CertificateDer, ServerName};

use super::common_name::common_name;
use crate::config::AllowedNames;

/// Whether a certificate that verifies has an allowed name.
///
/// # Errors
/// It has none.
pub(super) fn check(allowed: &AllowedNames, certificate: &CertificateDer<'_>) -> Result<(), Error> {
    let is_allowed = match allowed {
        AllowedNames::All => true,
        AllowedNames::CommonNames(names) => common_name(certificate).is_some_and(|name| names.contains(&name)),
        AllowedNames::Hostnames(names) => {
            let certificate = ParsedCertificate::try_from(certificate)?;
            let hosts = names.iter().filter_map(|name| ServerName::try_from(name.as_str()).ok());
            hosts.into_iter().any(|host| verify_server_name(&certificate, &host).is_ok())
        }
    };
    if is_allowed { Ok(()) } else { Err(Error::General("client certificate authentication failed".to_owned())) }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    fn certificate(common_name: &str, hosts: &[&str]) -> CertificateDer<'static> {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut params = CertificateParams::new(hosts).expect("names");
        params.distinguished_name.push(DnType::CommonName, common_name);
        let key = KeyPair::generate().expect("a key");
        params.self_signed(&key).expect("a certificate").der().clone()
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_certificate_needs_one_of_the_names() {
        let shown = certificate("m1", &["m1.example.org", "10.0.0.1", "*.sub.example.org"]);
        let allows = |allowed: AllowedNames| check(&allowed, &shown).is_ok();
        assert!(allows(AllowedNames::All));
        assert!(allows(AllowedNames::CommonNames(names(&["m0", "m1"]))));
        assert!(!allows(AllowedNames::CommonNames(names(&["m", "m1.example.org"]))));
        for host in ["m1.example.org", "10.0.0.1", "a.sub.example.org"] {
            assert!(allows(AllowedNames::Hostnames(names(&[host]))), "{host}");
        }
        for host in ["m1", "m2.example.org", "10.0.0.2", "sub.example.org", "no host"] {
            assert!(!allows(AllowedNames::Hostnames(names(&[host]))), "{host}");
        }
        assert!(check(&AllowedNames::CommonNames(names(&["m1"])), &CertificateDer::from(vec![1, 2, 3])).is_err());
    }

    #[test]
    fn of_several_common_names_the_last_one_is_asked() {
        let mut params = CertificateParams::new(Vec::new()).expect("names");
        params.distinguished_name.push(DnType::CommonName, "m1");
        // The same type by its number.
        params.distinguished_name.push(DnType::CustomDnType(vec![2, 5, 4, 3]), "m2");
        let shown = params.self_signed(&KeyPair::generate().expect("a key")).expect("a certificate").der().clone();
        assert!(check(&AllowedNames::CommonNames(names(&["m2"])), &shown).is_ok());
        assert!(check(&AllowedNames::CommonNames(names(&["m1"])), &shown).is_err());
    }
}
