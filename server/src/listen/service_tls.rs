//! TLS towards a server that is no member: a discovery service.

use std::io;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::dial::{ClientTls, client_config};
use super::tls::{provider, read, versions};
use crate::config::{self, DiscoveryTls, TlsVersion};

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

    fn roots(&self) -> io::Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        match &self.config.trusted_ca_file {
            Some(path) => {
                roots.add_parsable_certificates(read(path, config::certificates).map_err(io::Error::other)?);
            }
            None => {
                // A file that cannot be read beside one that can is no reason to give up; none at all shows below.
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        Ok(roots)
    }

    fn verifier(&self, provider: Arc<CryptoProvider>) -> io::Result<Arc<dyn ServerCertVerifier>> {
        if self.config.skip_verify {
            return Ok(Arc::new(AnyCertificate(provider)));
        }
        let roots = self.roots()?;
        if roots.is_empty() {
            return Err(io::Error::other("the system trusts no certificates: set --discovery-cacert"));
        }
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
        Ok(verifier.build().map_err(io::Error::other)?)
    }
}

impl ClientTls for ServiceTls {
    fn client_config(&self) -> io::Result<Arc<ClientConfig>> {
        let provider = Arc::new(provider(&[]));
        let (versions, verifier) = (versions(TlsVersion::Tls12..=TlsVersion::Tls13), self.verifier(provider.clone())?);
        client_config(provider, &versions, verifier, self.config.identity.as_ref())
    }
}

/// `--discovery-insecure-skip-tls-verify`: whose certificate it is does not matter, only that its key is there, as in Go.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
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
