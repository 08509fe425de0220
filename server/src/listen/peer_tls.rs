//! TLS from the side that connects: towards other members, and from our tool to members.

use std::io;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::{ClientConfig, RootCertStore};

use super::allowed_names::MemberCertificates;
use super::dial::{ClientTls, client_config};
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
    /// Which of those are believed.
    allowed: AllowedNames,
    versions: RangeInclusive<TlsVersion>,
    cipher_suites: Vec<CipherSuite>,
}

impl PeerTlsClient {
    /// The files of `config`, which are read at every connection: a rotation needs no restart.
    pub fn new(config: PeerTls) -> Self {
        let identity = config.client_files.unwrap_or((config.cert_file, config.key_file));
        Self {
            allowed: config.allowed,
            versions: config.version_min..=config.version_max,
            cipher_suites: config.cipher_suites,
            ..Self::of(config.trusted_ca_file, Some(identity), "--peer-trusted-ca-file")
        }
    }

    /// These files: who is trusted, as `flag` says, and what is shown, if anything.
    pub fn of(trusted: Option<PathBuf>, identity: Option<(PathBuf, PathBuf)>, flag: &'static str) -> Self {
        let versions = TlsVersion::Tls12..=TlsVersion::Tls13;
        Self { trusted, identity, flag, allowed: AllowedNames::All, versions, cipher_suites: Vec::new() }
    }
}

impl ClientTls for PeerTlsClient {
    fn client_config(&self) -> io::Result<Arc<ClientConfig>> {
        let Some(trusted) = &self.trusted else {
            return Err(io::Error::other(format!("https needs {}", self.flag)));
        };
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(read(trusted, config::certificates).map_err(io::Error::other)?);
        let provider = Arc::new(provider(&self.cipher_suites));
        let chains = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        let chains = chains.build().map_err(io::Error::other)?;
        let members = MemberCertificates { chains, allowed: self.allowed.clone() };
        client_config(provider, &versions(self.versions.clone()), Arc::new(members), self.identity.as_ref())
    }
}
