//! Why data of etcd does not become ours.

use std::io;

use basalt_storage::checkpoint::recovery::RecoveryError;
use basalt_storage::import::ImportError;
use thiserror::Error;

use crate::apply::auth::bounds::RECORD_BYTES_MAX;
use crate::apply::member_bounds::MemberBound;

/// Why data of etcd does not become ours. Nothing of it was changed.
#[derive(Debug, Error)]
pub enum ImportFailure {
    /// The database cannot be read, or the new files cannot be written.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// A file or directory cannot be used.
    #[error("cannot {doing} {name:?}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        name: String,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// A step on the data directory failed.
    #[error(transparent)]
    Directory(#[from] RecoveryError),
    /// A newer etcd wrote it.
    #[error("it was written by etcd {found}; this release takes data of 3.7 and older")]
    NewerEtcd {
        /// The version found.
        found: String,
    },
    /// etcd's members are in the middle of it.
    #[error(
        "a downgrade to an older release is under way in it; end it with `etcdctl downgrade cancel`, and take the snapshot again"
    )]
    Downgrade,
    /// A record of a small bucket is not what etcd writes.
    #[error("bucket {bucket:?} holds a malformed record")]
    MalformedRecord {
        /// Which bucket.
        bucket: &'static str,
    },
    /// Members that there is no room for.
    #[error("its members cannot come over: {0}")]
    Members(#[from] MemberBound),
    /// A user or role that is longer than any may be.
    #[error(
        "bucket {bucket:?} holds a record of {bytes} bytes, of which there may be {RECORD_BYTES_MAX}: split that user's or role's permissions between several, and take the snapshot again"
    )]
    RecordTooLong {
        /// Which bucket.
        bucket: &'static str,
        /// Bytes of name and record.
        bytes: usize,
    },
    /// The log is damaged.
    #[error("etcd's log {name:?} is damaged at byte {offset}: {flaw}")]
    DamagedLog {
        /// Which file.
        name: String,
        /// Where.
        offset: usize,
        /// What is wrong.
        flaw: &'static str,
    },
    /// There is none.
    #[error("there is no log of etcd in {place}; if it was restored with --wal-dir, give the same --wal-dir here")]
    NoLog {
        /// Where it was looked for.
        place: String,
    },
    /// The directory of the log would be renamed with the old tree.
    #[error(
        "the --wal-dir lies inside `member`, which is renamed: start without --wal-dir, or name another place for the log"
    )]
    LogInside,
    /// The log may hold what the database does not.
    #[error(
        "etcd has run on this directory since it was restored ({sign}), so that its log may hold what its database does not: start \
         etcd on it, take a snapshot with `etcdctl snapshot save FILE`, and import that with `basaltctl snapshot restore FILE`"
    )]
    Used {
        /// What shows it.
        sign: &'static str,
    },
    /// Two sets of data in one directory.
    #[error(
        "it holds data of etcd (a directory `member`) and of basalt ({found:?}): nothing was changed; move one of them away"
    )]
    BothData {
        /// What of ours was found.
        found: String,
    },
    /// The file system has no such operation.
    #[error(
        "the file system cannot exchange two names in one step, which taking over a directory in place needs; restore the \
         snapshot into a new directory with `basaltctl snapshot restore`"
    )]
    NoExchange(#[source] io::Error),
}
