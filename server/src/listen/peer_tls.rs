//! TLS towards other members, from the side that connects.

use std::io;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};

use super::tls::read;
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
        let chain = read(&config.cert_file, config::certificates).map_err(io::Error::other)?;
        let key = read(&config.key_file, config::private_key).map_err(io::Error::other)?;
        let mut client = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_root_certificates(roots).with_client_auth_cert(chain, key))
            .map_err(io::Error::other)?;
        client.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(client))
    }
}
