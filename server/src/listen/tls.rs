//! TLS towards clients: the settings and files of the operator as a `rustls` configuration, renewed when files change.

use std::fs;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::NoServerSessionStorage;
use rustls::sign::CertifiedKey;
use rustls::{CipherSuite as Suite, ServerConfig, SupportedProtocolVersion};
use tracing::{info, warn};

use super::client_certificates::ClientCertificates;
use super::error::ListenError;
use crate::config::{self, CertificateError, CipherSuite, TlsConfig, TlsVersion};
use crate::read_again::{Look, ReadAgain};

/// A change of the files is seen after this time at the latest, on the next handshake. etcd reads them at each one.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// TLS with certificates that may be replaced while the server runs.
#[derive(Debug)]
pub struct Tls {
    config: TlsConfig,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    server: Arc<ServerConfig>,
    files: ReadAgain,
    checked: Instant,
}

impl Tls {
    /// Reads all files.
    ///
    /// # Errors
    /// [`ListenError`], naming the file.
    pub fn load(config: TlsConfig) -> Result<Arc<Self>, ListenError> {
        if let Some((cert_file, key_file)) = &config.client_files {
            check_pair(cert_file, key_file)?;
        }
        let files = ReadAgain::before_reading(paths(&config));
        let server = server_config(&config)?;
        let current = Mutex::new(Current { server, files, checked: Instant::now() });
        Ok(Arc::new(Self { config, current }))
    }

    /// Whether the common name of a verified certificate is a user.
    pub(super) fn reports_common_name(&self) -> bool {
        self.config.client_cert_auth
    }

    /// Whether a client's certificate must name the address that it comes from, if it names any.
    pub(super) fn checks_addresses(&self) -> bool {
        self.config.check_addresses
    }

    /// The configuration for a handshake at `now`. If files changed but cannot be used (halfway through a rotation,
    /// say, or with a key that only root may read yet), what was read before goes on, with a warning, and they are tried again.
    pub(super) fn server_config(&self, now: Instant) -> Arc<ServerConfig> {
        // A poisoned lock holds a whole value all the same: it is only ever replaced.
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(current.checked) >= CHECK_INTERVAL {
            current.checked = now;
            match current.files.look(paths(&self.config), || server_config(&self.config)) {
                Look::Read(server) => {
                    info!(cert_file = %self.config.cert_file.display(), "reloaded TLS certificates");
                    current.server = server;
                }
                Look::Failed(error) => {
                    warn!(%error, "failed to reload TLS certificates; the previous ones stay in use until it succeeds");
                }
                Look::Same | Look::FailedStill => {}
            }
        }
        Arc::clone(&current.server)
    }
}

fn paths(config: &TlsConfig) -> impl Iterator<Item = &Path> {
    let optional = [config.trusted_ca_file.as_deref(), config.client_crl_file.as_deref()];
    [&*config.cert_file, &*config.key_file].into_iter().chain(optional.into_iter().flatten())
}

fn server_config(config: &TlsConfig) -> Result<Arc<ServerConfig>, ListenError> {
    let chain = read(&config.cert_file, config::certificates)?;
    let key = read(&config.key_file, config::private_key)?;
    let provider = Arc::new(provider(&config.cipher_suites));
    let unusable = |cause| ListenError::Tls { cert_file: config.cert_file.clone(), cause };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions(config.version_min..=config.version_max))
        .map_err(unusable)?;
    let builder = match &config.trusted_ca_file {
        Some(path) => {
            let trusted = read(path, config::certificates)?;
            let revoked = match &config.client_crl_file {
                Some(path) => read(path, config::revoked_serials)?,
                None => config::RevokedSerials::default(),
            };
            let verifier = ClientCertificates::new(trusted, revoked, config.allowed.clone(), &provider)
                .ok_or_else(|| ListenError::NoTrustAnchor { path: path.clone() })?;
            builder.with_client_cert_verifier(Arc::new(verifier))
        }
        None => builder.with_no_client_auth(),
    };
    let mut server = builder.with_single_cert(chain, key).map_err(unusable)?;
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // A resumed session would skip the checks of the client's certificate: expiry, revocation, a new trust anchor.
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    Ok(Arc::new(server))
}

pub(super) fn read<T>(path: &Path, parse: impl Fn(&[u8]) -> Result<T, CertificateError>) -> Result<T, ListenError> {
    let content = fs::read(path).map_err(|cause| ListenError::Read { path: path.to_owned(), cause })?;
    parse(&content).map_err(|cause| ListenError::Content { path: path.to_owned(), cause })
}

/// Whether certificate and key belong together; etcd looks before it serves.
fn check_pair(cert_file: &Path, key_file: &Path) -> Result<(), ListenError> {
    let (chain, key) = (read(cert_file, config::certificates)?, read(key_file, config::private_key)?);
    let unusable = |cause| ListenError::Tls { cert_file: cert_file.to_owned(), cause };
    CertifiedKey::from_der(chain, key, &provider(&[])).map(drop).map_err(unusable)
}

pub(super) fn versions(wanted: RangeInclusive<TlsVersion>) -> Vec<&'static SupportedProtocolVersion> {
    let all = [(TlsVersion::Tls13, &rustls::version::TLS13), (TlsVersion::Tls12, &rustls::version::TLS12)];
    all.into_iter().filter(|(version, _)| wanted.contains(version)).map(|(_, version)| version).collect()
}

/// Algorithms of aws-lc; of the suites of TLS 1.2 only `suites`, in that order, unless it is empty.
pub(super) fn provider(suites: &[CipherSuite]) -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    if suites.is_empty() {
        return provider;
    }
    let mut chosen = Vec::new();
    for suite in suites {
        chosen.extend(provider.cipher_suites.iter().copied().filter(|known| known.suite() == suite_of(*suite)));
    }
    provider.cipher_suites.retain(|known| known.tls13().is_some());
    provider.cipher_suites.extend(chosen);
    provider
}

fn suite_of(suite: CipherSuite) -> Suite {
    match suite {
        CipherSuite::EcdheEcdsaAes128GcmSha256 => Suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        CipherSuite::EcdheEcdsaAes256GcmSha384 => Suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        CipherSuite::EcdheEcdsaChacha20Poly1305 => Suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        CipherSuite::EcdheRsaAes128GcmSha256 => Suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        CipherSuite::EcdheRsaAes256GcmSha384 => Suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        CipherSuite::EcdheRsaChacha20Poly1305 => Suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    }
}
