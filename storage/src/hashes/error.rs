//! Why a hash cannot be given.

use thiserror::Error;

use crate::revision::Revision;

/// Why a hash cannot be given.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum HashError {
    /// The revision is below the compact revision and no compaction hashed it.
    #[error("revision is compacted")]
    Compacted,
    /// The revision is above the current one.
    #[error("revision is in the future")]
    FutureRevision,
    /// A slot came that is not above the one before it.
    #[error("slot {revision:?} is out of order")]
    OutOfOrder {
        /// Its revision.
        revision: Revision,
    },
}
