//! Why a snapshot cannot be written or read.

use std::io;

use thiserror::Error;

use crate::mvcc::shard_read_error::ShardReadError;

/// Why a snapshot cannot be written or read.
#[derive(Debug, Error)]
pub enum SnapshotError {
    /// A key is empty, or longer than [`KEY_BYTES_MAX`](super::bbolt::KEY_BYTES_MAX).
    #[error("key of {length} bytes")]
    KeyLength {
        /// What it has.
        length: usize,
    },
    /// A value is longer than [`VALUE_BYTES_MAX`](super::bbolt::VALUE_BYTES_MAX).
    #[error("value of {length} bytes")]
    ValueLength {
        /// What it has.
        length: usize,
    },
    /// A key or bucket name does not sort after the one before it, or is pushed before any bucket was begun.
    #[error("keys and buckets must ascend")]
    OutOfOrder,
    /// The second pass brought something else than the first: the two did not read one view. What was sent is
    /// worthless; end the stream without its digest.
    #[error("second pass differs from the plan: {what}")]
    PlanMismatch {
        /// What differs.
        what: &'static str,
    },
    /// Neither meta page is valid, or the file is shorter than it says: not a bbolt file, or cut off.
    #[error("not a bbolt file: {reason}")]
    NotBbolt {
        /// What is missing.
        reason: &'static str,
    },
    /// A page breaks the format; the file is damaged or made up.
    #[error("corrupt page {page}: {reason}")]
    Corrupt {
        /// Its number.
        page: u64,
        /// The rule that it breaks.
        reason: &'static str,
    },
    /// The bytes do not hash to the digest at their end.
    #[error("snapshot digest does not match its bytes")]
    Digest,
    /// A page of the store could not be read or is damaged.
    #[error("read stored revisions")]
    Pages(#[from] ShardReadError),
    /// The source could not be read.
    #[error("read snapshot")]
    Read(#[from] io::Error),
}
