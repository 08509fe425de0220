//! Which servers' certificates are believed where this side connects: those that Go believes.
//!
//! As of clients ([`super::client_certificates`]): a certificate that stands itself in the trusted file is believed by its time,
//! purpose and names, for webpki refuses one that may sign others, which self-signed ones often are.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::allowed_names;
use super::client_certificates::{Purpose, verify_trusted};
use crate::config::{AllowedNames, RevokedSerials};

/// Verifies whom this side connects to, and looks at its name.
#[derive(Debug)]
pub(super) struct ServerCertificates {
    chains: Arc<WebPkiServerVerifier>,
    trusted: Vec<CertificateDer<'static>>,
    /// etcd looks at these where it is connected to; here neither side speaks to who has lost its key.
    revoked: RevokedSerials,
    allowed: AllowedNames,
}

impl ServerCertificates {
    /// Trusts what `trusted` signed or holds, but for `revoked`, and believes whom `allowed` names.
    ///
    /// # Errors
    /// None of it can be a trust anchor.
    pub(super) fn new(
        trusted: Vec<CertificateDer<'static>>,
        revoked: RevokedSerials,
        allowed: AllowedNames,
        provider: Arc<CryptoProvider>,
    ) -> std::io::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(trusted.iter().cloned());
        let chains = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
        Ok(Self { chains: chains.map_err(std::io::Error::other)?, trusted, revoked, allowed })
    }
}

impl ServerCertVerifier for ServerCertificates {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if std::iter::once(end_entity).chain(intermediates).any(|shown| self.revoked.contains(shown)) {
            return Err(CertificateError::Revoked.into());
        }
        if self.trusted.iter().any(|trusted| trusted == end_entity) {
            verify_trusted(end_entity, now, Purpose::Server)?;
            verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
        } else {
            self.chains.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        }
        allowed_names::check(&self.allowed, end_entity).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}
