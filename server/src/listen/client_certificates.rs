//! Which client certificates are accepted: those that Go accepts.
//!
//! webpki checks the chain, with one difference from Go: it refuses a certificate that may sign others (CA:TRUE) as
//! that of a client. Self-signed certificates are often of that kind and are trusted as themselves, among them those
//! that etcd generates (etcd-contract, section 5). So a certificate that stands itself in the trusted file is accepted
//! by its time and purpose alone.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::allowed_names;
use crate::config::{AllowedNames, RevokedSerials};

/// Asks every client for a certificate and verifies it.
#[derive(Debug)]
pub(super) struct ClientCertificates {
    chains: Arc<dyn ClientCertVerifier>,
    trusted: Vec<CertificateDer<'static>>,
    revoked: RevokedSerials,
    allowed: AllowedNames,
}

impl ClientCertificates {
    /// Trusts what `trusted` signed or holds, but for `revoked`, and lets in whom `allowed` names. `None` if none of it can be a
    /// trust anchor.
    pub(super) fn new(
        trusted: Vec<CertificateDer<'static>>,
        revoked: RevokedSerials,
        allowed: AllowedNames,
        provider: &Arc<rustls::crypto::CryptoProvider>,
    ) -> Option<Self> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(trusted.iter().cloned());
        let chains = WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(provider)).build().ok()?;
        Some(Self { chains, trusted, revoked, allowed })
    }
}

impl ClientCertVerifier for ClientCertificates {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chains.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        // As in etcd, any revoked certificate that the client shows is one too many.
        if std::iter::once(end_entity).chain(intermediates).any(|shown| self.revoked.contains(shown)) {
            return Err(CertificateError::Revoked.into());
        }
        let verified = if self.trusted.iter().any(|trusted| trusted == end_entity) {
            verify_trusted(end_entity, now, Purpose::Client)?;
            ClientCertVerified::assertion()
        } else {
            self.chains.verify_client_cert(end_entity, intermediates, now)?
        };
        allowed_names::check(&self.allowed, end_entity).map(|()| verified)
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

/// What a certificate is shown for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Client,
    Server,
}

/// Time and purpose of a certificate that is trusted as itself.
///
/// # Errors
/// It is for another time or purpose.
pub(super) fn verify_trusted(certificate: &CertificateDer<'_>, now: UnixTime, shown_for: Purpose) -> Result<(), Error> {
    let (_, certificate) = X509Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding)?;
    let seconds = i64::try_from(now.as_secs()).map_err(|_| CertificateError::Expired)?;
    if seconds < certificate.validity().not_before.timestamp() {
        return Err(CertificateError::NotValidYet.into());
    }
    if seconds > certificate.validity().not_after.timestamp() {
        return Err(CertificateError::Expired.into());
    }
    let purpose = certificate.extended_key_usage().map_err(|_| CertificateError::BadEncoding)?;
    let fits = purpose.is_none_or(|purpose| {
        let named = match shown_for {
            Purpose::Client => purpose.value.client_auth,
            Purpose::Server => purpose.value.server_auth,
        };
        named || purpose.value.any
    });
    if fits { Ok(()) } else { Err(CertificateError::InvalidPurpose.into()) }
}
