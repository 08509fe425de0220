//! Why a hash cannot be given.

use thiserror::Error;

use crate::mvcc::shard_read_error::ShardReadError;
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

/// Why a hash of a View cannot be computed.
#[derive(Debug, Error)]
pub enum HashJobError {
    /// A page could not be read or is damaged.
    #[error("read slots to hash")]
    Pages(#[from] ShardReadError),
    /// The slots of the View are not as a store keeps them.
    #[error(transparent)]
    Hash(#[from] HashError),
}
