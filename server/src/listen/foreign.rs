//! What this room makes of certificates, for whoever tries it with bytes of all kinds (`tests/fuzz`).

use std::sync::Arc;

use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::CertificateDer;

use super::client_certificates::ClientCertificates;
use super::{allowed_names, tls};
use crate::config::{AllowedNames, RevokedSerials};

/// Whether a certificate that verifies is let in by its names.
pub fn is_allowed(allowed: &AllowedNames, certificate: &CertificateDer<'_>) -> bool {
    allowed_names::check(allowed, certificate).is_ok()
}

/// Who verifies what clients show; `None` if nothing of `trusted` can be a trust anchor.
pub fn verifier(
    trusted: Vec<CertificateDer<'static>>,
    revoked: RevokedSerials,
    allowed: AllowedNames,
) -> Option<Arc<dyn ClientCertVerifier>> {
    let verifier = ClientCertificates::new(trusted, revoked, allowed, &Arc::new(tls::provider(&[])))?;
    Some(Arc::new(verifier))
}
