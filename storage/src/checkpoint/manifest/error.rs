//! What can go wrong with the manifest.

use std::io;

use thiserror::Error;

/// Errors of reading and writing the manifest. A copy that is merely damaged is none: see
/// [`super::ManifestFound`].
#[derive(Debug, Error)]
pub enum ManifestError {
    /// The disk failed. After a failed sync: stop the node.
    #[error("cannot read or write the manifest")]
    Io(#[from] io::Error),
    /// A valid copy was written by a newer release: start that one.
    #[error(
        "the manifest has version {version} and features {features:#x}, which this release cannot read; start the release \
         that wrote it"
    )]
    Newer {
        /// Its format version.
        version: u16,
        /// Its incompatible features.
        features: u32,
    },
    /// What should be written does not fit a slot; fewer runs would, so merge some first.
    #[error("a manifest of {0} bytes does not fit its slot")]
    TooLarge(usize),
    /// What should be written contradicts itself.
    #[error("inconsistent manifest: {0}")]
    Inconsistent(&'static str),
}
