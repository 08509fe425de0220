//! What can go wrong with the log.

use std::io;

use thiserror::Error;

use super::segment_head::Identity;

/// Why the log cannot go on. None of these is retried: the node stops and says so.
#[derive(Debug, Error)]
pub enum WalError {
    /// A request to the disk failed. After this nothing is known about the bytes that were under way.
    #[error("cannot {action}")]
    Io {
        /// What was being done, as a verb phrase.
        action: &'static str,
        /// What the disk said.
        #[source]
        source: io::Error,
    },
    /// There was no space to prepare a segment: give it up
    /// ([`Log::give_up_prepare`](super::Log::give_up_prepare)) and try again later.
    #[error("cannot {action}: no space")]
    NoSpace {
        /// What was being done, as a verb phrase.
        action: &'static str,
        /// What the disk said.
        #[source]
        source: io::Error,
    },
    /// Bytes that were durable are damaged: serving would forget acknowledged writes or votes.
    #[error(
        "log segment {segment:016x} is corrupt at offset {offset}: {reason}; acknowledged writes may be in it: put the \
         undamaged file back, or restore a snapshot"
    )]
    Corrupt {
        /// Sequence number of the segment.
        segment: u64,
        /// Byte offset in its file where the damage shows.
        offset: u64,
        /// What is wrong there.
        reason: &'static str,
    },
    /// Written by a release that this one does not understand.
    #[error(
        "log segment {segment:016x} has format version {version} and features {features:#x}, which this release cannot read; \
         start the release that wrote it"
    )]
    NewerVersion {
        /// Sequence number of the segment.
        segment: u64,
        /// Its format version.
        version: u32,
        /// Its incompatible feature bits.
        features: u32,
    },
    /// The log belongs to another cluster, member or incarnation than expected, or to two of them.
    #[error("log belongs to {found}, not to {expected}; let --data-dir and --wal-dir name directories of one member")]
    ForeignIdentity {
        /// Whose it is.
        found: Identity,
        /// Whose it should be.
        expected: Identity,
    },
    /// There is no log: the directory is missing, or no segment was ever begun.
    #[error("there is no log; name its directory with --wal-dir if it lies elsewhere, else restore a snapshot")]
    NotCreated,
    /// [`Log::create`](super::Log::create) found a log.
    #[error("there is a log already; choose another --data-dir or --wal-dir")]
    AlreadyCreated,
    /// One append is larger than a batch may be.
    #[error("records of {bytes} bytes exceed the largest batch")]
    BatchTooLarge {
        /// Their encoded size.
        bytes: usize,
    },
}
