//! A certificate authority, what it signed for a server, and what clients believe.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use tempfile::TempDir;
use tokio_rustls::rustls::crypto::aws_lc_rs::{cipher_suite, default_provider};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, version};

use super::connector::TlsConnector;

/// Certificate and key of a server on 127.0.0.1, in files until this is dropped.
#[derive(Debug)]
pub struct Certificates {
    folder: TempDir,
    config: Arc<ClientConfig>,
}

impl Certificates {
    /// Makes an authority and has it sign for 127.0.0.1; keys are ECDSA on P-256, as kubeadm may have them.
    ///
    /// # Errors
    /// Files cannot be written.
    pub fn new() -> Result<Self> {
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
        let mut server = CertificateParams::default();
        server.subject_alt_names = vec![SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST))];
        let key = KeyPair::generate()?;
        let certificate = server.signed_by(&key, &authority)?;
        let folder = tempfile::Builder::new().prefix("basalt-bench-certificates-").tempdir()?;
        write(&certificate_path(folder.path()), &certificate.pem())?;
        write(&key_path(folder.path()), &key.serialize_pem())?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.der().clone())?;
        Ok(Self { folder, config: Arc::new(client_config(roots)?) })
    }

    pub(super) fn server_flags(&self) -> Vec<String> {
        let folder = self.folder.path();
        vec![
            format!("--cert-file={}", certificate_path(folder).display()),
            format!("--key-file={}", key_path(folder).display()),
        ]
    }

    pub(super) fn connector(&self) -> TlsConnector {
        TlsConnector::new(Arc::clone(&self.config))
    }
}

/// A client that prefers what clients in Go prefer, so that both servers encrypt in the same way: TLS 1.3 with AES-128-GCM.
fn client_config(roots: RootCertStore) -> Result<ClientConfig> {
    let mut provider = default_provider();
    provider.cipher_suites = vec![cipher_suite::TLS13_AES_128_GCM_SHA256];
    let builder = ClientConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(&[&version::TLS13])?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

fn certificate_path(folder: &Path) -> PathBuf {
    folder.join("server.pem")
}

fn key_path(folder: &Path) -> PathBuf {
    folder.join("server-key.pem")
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}
