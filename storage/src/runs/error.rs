//! What can go wrong with a run.

use std::io;

use thiserror::Error;

/// Errors of reading and writing runs.
#[derive(Debug, Error)]
pub enum RunError {
    /// The disk failed.
    #[error("cannot read or write run {number}")]
    Io {
        /// The run's file number.
        number: u64,
        /// What the disk said.
        source: io::Error,
    },
    /// A sync failed: stop the node, whatever the cause.
    #[error("syncing run {number}")]
    Sync {
        /// The run's file number.
        number: u64,
        /// What the disk said.
        source: io::Error,
    },
    /// The file is not what was written.
    #[error("run {number} is damaged at offset {offset}: {reason}; restore a snapshot")]
    Damaged {
        /// The run's file number.
        number: u64,
        /// Where in the file.
        offset: u64,
        /// What does not hold.
        reason: &'static str,
    },
    /// The file was written by a newer release.
    #[error(
        "run {number} has version {version} and features {features:#x}, which this release cannot read; start the release \
         that wrote it"
    )]
    Newer {
        /// The run's file number.
        number: u64,
        /// Its format version.
        version: u16,
        /// Its incompatible features.
        features: u32,
    },
    /// The source of a run to write does not ascend strictly.
    #[error("run {0}: keys to write do not ascend")]
    NotAscending(u64),
    /// A key to write is longer than [`super::KEY_BYTES_MAX`].
    #[error("run {number}: a key of {bytes} bytes is too long")]
    KeyTooLong {
        /// The run's file number.
        number: u64,
        /// Its bytes.
        bytes: usize,
    },
}
