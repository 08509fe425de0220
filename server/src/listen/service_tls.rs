//! TLS towards a server that is no member: a discovery service.

use std::io;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls_pki_types::CertificateDer;

use super::any_certificate::AnyCertificate;
use super::dial::{ClientTls, client_config};
use super::server_certificates::ServerCertificates;
use super::tls::{provider, read, versions};
use crate::config::{self, AllowedNames, DiscoveryTls, RevokedSerials, TlsVersion};

/// The certificates that the operator, or else the system, says.
#[derive(Debug)]
pub struct ServiceTls {
    config: DiscoveryTls,
}

impl ServiceTls {
    /// The files are read at every connection.
    pub fn new(config: DiscoveryTls) -> Self {
        Self { config }
    }

    fn trusted(&self) -> io::Result<Vec<CertificateDer<'static>>> {
        match &self.config.trusted_ca_file {
            Some(path) => read(path, config::certificates).map_err(io::Error::other),
            // A file that cannot be read beside one that can is no reason to give up; none at all shows below.
            None => Ok(rustls_native_certs::load_native_certs().certs),
        }
    }

    fn verifier(&self, provider: Arc<CryptoProvider>) -> io::Result<Arc<dyn ServerCertVerifier>> {
        if self.config.skip_verify {
            return Ok(Arc::new(AnyCertificate(provider)));
        }
        let trusted = self.trusted()?;
        if trusted.is_empty() {
            return Err(io::Error::other("the system trusts no certificates: set --discovery-cacert"));
        }
        let (revoked, allowed) = (RevokedSerials::default(), AllowedNames::All);
        Ok(Arc::new(ServerCertificates::new(trusted, revoked, allowed, provider)?))
    }
}

impl ClientTls for ServiceTls {
    fn client_config(&self) -> io::Result<Arc<ClientConfig>> {
        let provider = Arc::new(provider(&[]));
        let (versions, verifier) = (versions(TlsVersion::Tls12..=TlsVersion::Tls13), self.verifier(provider.clone())?);
        client_config(provider, &versions, verifier, self.config.identity.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;

    fn written(directory: &Path, name: &str, text: &str) -> PathBuf {
        let path = directory.join(name);
        std::fs::write(&path, text).expect("a file of the test's");
        path
    }

    #[test]
    fn files_are_read_at_every_connection_and_named_when_they_are_bad() {
        let directory = tempfile::tempdir().expect("a directory");
        let generated = rcgen::generate_simple_self_signed(["d".to_owned()]).expect("a certificate");
        let cert = written(directory.path(), "cert", &generated.cert.pem());
        let key = written(directory.path(), "key", &generated.signing_key.serialize_pem());
        let tls = |trusted: Option<PathBuf>, identity, skip_verify| {
            ServiceTls::new(DiscoveryTls { trusted_ca_file: trusted, identity, skip_verify })
        };
        let shown = tls(Some(cert.clone()), Some((cert.clone(), key.clone())), false);
        assert!(shown.client_config().is_ok());
        assert!(tls(None, None, true).client_config().is_ok());
        std::fs::write(&key, "garbage").expect("a file of the test's");
        assert!(shown.client_config().expect_err("the key is gone").to_string().contains("key"));
        let absent = directory.path().join("absent");
        assert!(tls(Some(absent), None, false).client_config().expect_err("absent").to_string().contains("absent"));
    }
}
