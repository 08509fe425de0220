//! What a certificate, key or revocation file may hold. Pure: bytes in, DER out.

use std::collections::HashSet;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use thiserror::Error;
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

/// A file that does not hold what it should.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CertificateError {
    /// PEM that cannot be read, or none at all.
    #[error("it holds no {expected} in PEM form")]
    NotPem {
        /// What was looked for.
        expected: &'static str,
    },
    /// PEM around something that is not a certificate or list of X.509.
    #[error("it holds a damaged {expected}")]
    Damaged {
        /// What was looked for.
        expected: &'static str,
    },
}

/// Serial numbers of revoked certificates, big-endian without leading zeros.
///
/// As in etcd, a serial number counts whoever issued the certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RevokedSerials(HashSet<Vec<u8>>);

impl RevokedSerials {
    /// Whether the certificate is revoked; one that cannot be read counts as revoked.
    pub fn contains(&self, certificate: &CertificateDer<'_>) -> bool {
        match X509Certificate::from_der(certificate) {
            Ok((_, certificate)) => self.0.contains(strip_zeros(certificate.raw_serial())),
            Err(_) => true,
        }
    }
}

/// The certificates of a PEM file, in its order; at least one.
///
/// # Errors
/// [`CertificateError`] if there is none, or one is damaged.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let expected = "certificate";
    let chain: Result<Vec<CertificateDer<'static>>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let chain = chain.ok().filter(|chain| !chain.is_empty()).ok_or(CertificateError::NotPem { expected })?;
    if chain.iter().any(|certificate| X509Certificate::from_der(certificate).is_err()) {
        return Err(CertificateError::Damaged { expected });
    }
    Ok(chain)
}

/// The first private key of a PEM file: PKCS#1, SEC1 or PKCS#8, not encrypted.
///
/// # Errors
/// [`CertificateError`] if there is none.
pub fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, CertificateError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| CertificateError::NotPem { expected: "private key" })
}

/// The serial numbers of a certificate revocation list, in DER as etcd takes it, or PEM.
///
/// # Errors
/// [`CertificateError`] if it cannot be read.
pub fn revoked_serials(list: &[u8]) -> Result<RevokedSerials, CertificateError> {
    let from_pem = CertificateRevocationListDer::from_pem_slice(list);
    let der: &[u8] = from_pem.as_ref().map_or(list, |der| der.as_ref());
    let (_, list) = CertificateRevocationList::from_der(der)
        .map_err(|_| CertificateError::Damaged { expected: "certificate revocation list" })?;
    let serials = list.iter_revoked_certificates().map(|revoked| strip_zeros(revoked.raw_serial()).to_vec());
    Ok(RevokedSerials(serials.collect()))
}

fn strip_zeros(serial: &[u8]) -> &[u8] {
    &serial[serial.iter().take_while(|byte| **byte == 0).count()..]
}
