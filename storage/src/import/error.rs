//! Why a database cannot be imported.

use thiserror::Error;

use crate::checkpoint::FillError;
use crate::revision::Revision;
use crate::snapshot::SnapshotError;

/// Why a database cannot be imported. What was written so far does not count.
#[derive(Debug, Error)]
pub enum ImportError {
    /// The file is damaged, or no database.
    #[error("reading the database")]
    Database(#[from] SnapshotError),
    /// A key of bucket `key` is no revision.
    #[error("page {page}: a key of {bytes} bytes in bucket \"key\" is no revision")]
    MalformedRevision {
        /// The page of the file.
        page: u64,
        /// How long the key is.
        bytes: usize,
    },
    /// The KeyValue of a revision cannot be read.
    #[error("page {page}: revision {revision:?}: {flaw}")]
    MalformedKeyValue {
        /// The page of the file.
        page: u64,
        /// Which revision.
        revision: Revision,
        /// What is wrong.
        flaw: &'static str,
    },
    /// A record of bucket `meta` has another form than etcd gives it.
    #[error("bucket \"meta\": record {record:?} is malformed")]
    MalformedMeta {
        /// Its key.
        record: &'static str,
    },
    /// Entries lie over each other.
    #[error("entries lie over each other: the buckets beside \"key\" hold more bytes than the file has")]
    OverlappingEntries,
    /// A revision beyond what 63 bits hold.
    #[error("the latest revision cannot be raised by {by}")]
    BumpTooLarge {
        /// By how much it was to be raised.
        by: u64,
    },
    /// The new files cannot be written, or a revision cannot be stored.
    #[error(transparent)]
    Fill(#[from] FillError),
}
