//! TLS towards other members, from the side that connects.

use std::io;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::{ClientConfig, RootCertStore};

use super::allowed_names::MemberCertificates;
use super::tls::{provider, read, versions};
use crate::config::{self, PeerTls};

/// The certificate that this member shows, and whom it trusts.
#[derive(Debug)]
pub struct PeerTlsClient {
    config: PeerTls,
}

impl PeerTlsClient {
    /// The files of `config`, which are read at every connection: a rotation needs no restart.
    pub fn new(config: PeerTls) -> Self {
        Self { config }
    }

    /// For the next connection.
    ///
    /// # Errors
    /// A file cannot be used, or nobody is trusted.
    pub fn client_config(&self) -> io::Result<Arc<ClientConfig>> {
        let config = &self.config;
        let Some(trusted) = &config.trusted_ca_file else {
            return Err(io::Error::other("https to a member needs --peer-trusted-ca-file"));
        };
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(read(trusted, config::certificates).map_err(io::Error::other)?);
        let (cert_file, key_file) = match &config.client_files {
            Some((cert_file, key_file)) => (cert_file, key_file),
            None => (&config.cert_file, &config.key_file),
        };
        let chain = read(cert_file, config::certificates).map_err(io::Error::other)?;
        let key = read(key_file, config::private_key).map_err(io::Error::other)?;
        let provider = Arc::new(provider(&config.cipher_suites));
        let chains = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        let chains = chains.build().map_err(io::Error::other)?;
        let members = MemberCertificates { chains, allowed: config.allowed.clone() };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions(config.version_min..=config.version_max))
            .map_err(io::Error::other)?;
        let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(members));
        let mut client = builder.with_client_auth_cert(chain, key).map_err(io::Error::other)?;
        client.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(client))
    }
}
