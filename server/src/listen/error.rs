//! Why a port cannot be opened.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::config::{CertificateError, Url};

/// A port that cannot be opened: the cause, within the text, and what to do next.
#[derive(Debug, Error)]
pub enum ListenError {
    /// Another process, or another flag of this one, has the address.
    #[error(
        "cannot listen on {url}: the address is already in use; stop the process that has it or choose another port"
    )]
    InUse {
        /// What was to be opened.
        url: Url,
    },
    /// The operating system refuses.
    #[error("cannot listen on {url}: {cause}; check that the address belongs to this machine and may be used")]
    Bind {
        /// What was to be opened.
        url: Url,
        /// Why.
        cause: io::Error,
    },
    /// `https` without certificates.
    #[error("cannot listen on {url}: there is no certificate; set --cert-file and --key-file")]
    NoCertificate {
        /// What was to be opened.
        url: Url,
    },
    /// A file of TLS cannot be read.
    #[error("cannot read {path}: {cause}; check the path and its permissions")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// A file of TLS does not hold what it should.
    #[error("cannot use {path}: {cause}; replace the file")]
    Content {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: CertificateError,
    },
    /// The files do not fit each other, or the settings leave nothing to offer.
    #[error("cannot use {cert_file} with its key: {cause}; check that certificate and key belong together")]
    Tls {
        /// The certificate.
        cert_file: PathBuf,
        /// Why.
        cause: rustls::Error,
    },
    /// A certificate that was to be made could not be.
    #[error("cannot generate a certificate in {directory}: {cause}; check the permissions, or give a certificate")]
    Generate {
        /// Where it was to lie.
        directory: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// Nothing in the file can be trusted.
    #[error("cannot use {path}: none of its certificates can be a trust anchor; replace the file")]
    NoTrustAnchor {
        /// The file.
        path: PathBuf,
    },
}
