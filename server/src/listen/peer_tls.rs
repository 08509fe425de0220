//! TLS from the side that connects: towards other members, and from our tool to members.

use std::io;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;

use super::any_certificate::AnyCertificate;
use super::dial::{ClientTls, client_config};
use super::server_certificates::ServerCertificates;
use super::tls::{provider, read, versions};
use crate::config::{self, AllowedNames, CipherSuite, PeerTls, TlsVersion};

/// The certificate that is shown, and whom it trusts.
#[derive(Debug)]
pub struct PeerTlsClient {
    trusted: Option<PathBuf>,
    /// Certificate chain and key.
    identity: Option<(PathBuf, PathBuf)>,
    /// The flag that says who is trusted.
    flag: &'static str,
    /// Whether nobody is verified: members make their certificates themselves.
    trusts_all: bool,
    /// Revoked serial numbers.
    revoked: Option<PathBuf>,
    /// Which of those that verify are believed.
    allowed: AllowedNames,
    versions: RangeInclusive<TlsVersion>,
    cipher_suites: Vec<CipherSuite>,
}

impl PeerTlsClient {
    /// The files of `config`, which are read at every connection: a rotation needs no restart.
    pub fn new(config: PeerTls) -> Self {
        let identity = config.client_files.unwrap_or((config.cert_file, config.key_file));
        Self {
            trusts_all: config.generated.is_some(),
            revoked: config.crl_file,
            allowed: config.allowed,
            versions: config.version_min..=config.version_max,
            cipher_suites: config.cipher_suites,
            ..Self::of(config.trusted_ca_file, Some(identity), "--peer-trusted-ca-file")
        }
    }

    /// These files: who is trusted, as `flag` says, and what is shown, if anything.
    pub fn of(trusted: Option<PathBuf>, identity: Option<(PathBuf, PathBuf)>, flag: &'static str) -> Self {
        let versions = TlsVersion::Tls12..=TlsVersion::Tls13;
        Self {
            trusted,
            identity,
            flag,
            trusts_all: false,
            revoked: None,
            allowed: AllowedNames::All,
            versions,
            cipher_suites: Vec::new(),
        }
    }
}

impl PeerTlsClient {
    fn verifier(&self, provider: Arc<CryptoProvider>) -> io::Result<Arc<dyn ServerCertVerifier>> {
        if self.trusts_all {
            return Ok(Arc::new(AnyCertificate(provider)));
        }
        let Some(trusted) = &self.trusted else {
            return Err(io::Error::other(format!("https needs {}", self.flag)));
        };
        let trusted = read(trusted, config::certificates).map_err(io::Error::other)?;
        let revoked = match &self.revoked {
            Some(path) => read(path, config::revoked_serials).map_err(io::Error::other)?,
            None => config::RevokedSerials::default(),
        };
        Ok(Arc::new(ServerCertificates::new(trusted, revoked, self.allowed.clone(), provider)?))
    }
}

impl ClientTls for PeerTlsClient {
    fn client_config(&self) -> io::Result<Arc<ClientConfig>> {
        let provider = Arc::new(provider(&self.cipher_suites));
        let verifier = self.verifier(provider.clone())?;
        client_config(provider, &versions(self.versions.clone()), verifier, self.identity.as_ref())
    }
}
