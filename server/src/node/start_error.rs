//! Why a node did not start, in words for whoever started it.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use basalt_storage::checkpoint::recovery::RecoveryError;
use basalt_storage::disk::LockError;
use basalt_storage::wal::WalError;
use thiserror::Error;

use super::core::CoreError;
use crate::apply::auth::state::MalformedAuthRecord;
use crate::apply::downgrade::UnknownDowngrade;
use crate::apply::members::MembersError;
use crate::import::ImportFailure;

/// What one of several members can do about damage.
const WAY_OF_MEMBERS: &str = " (one of several members is given the data of the others: basaltctl reseed)";

/// Why a node did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// A directory cannot be used.
    #[error("cannot {doing} {directory:?}: check that it exists, belongs to this user and has space")]
    Directory {
        /// What was tried.
        doing: &'static str,
        /// Where.
        directory: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// Users or roles cannot be read: nobody is let in by what is left of them.
    #[error(transparent)]
    Auth(#[from] MalformedAuthRecord),
    /// A later release went down from what this one does not know.
    #[error(transparent)]
    Downgrade(#[from] UnknownDowngrade),
    /// etcd's data lies there, and is not taken over.
    #[error(
        "{directory:?} holds data of etcd (a directory `member`), which cannot be taken over as it is, and basalt does not start \
         empty beside it; do what follows, or choose another --data-dir"
    )]
    EtcdData {
        /// Where.
        directory: PathBuf,
        /// Why not.
        #[source]
        cause: Box<ImportFailure>,
    },
    /// etcd's data lies where the log should.
    #[error(
        "{directory:?} holds data of etcd, and the data directory does not: basalt does not start empty beside it; give the \
         --data-dir that belongs to it, or choose another --wal-dir"
    )]
    EtcdDataInWalDir {
        /// Where.
        directory: PathBuf,
    },
    /// `basaltctl snapshot restore` did not come to its end.
    #[error(
        "{directory:?} holds a restore that was interrupted (a file `importing`, no file `member`); run `basaltctl snapshot \
         restore` again with the same --data-dir"
    )]
    UnfinishedRestore {
        /// Where.
        directory: PathBuf,
    },
    /// The data was written by a newer release, after the whole cluster knew its rules.
    #[error(
        "all members of this cluster apply by rules {found}, this release knows up to {known}: start the newer release that \
         ran here; what it wrote does not fit an older one"
    )]
    NewerRules {
        /// What the data says.
        found: u32,
        /// What this release knows.
        known: u32,
    },
    /// Another process works there.
    #[error("cannot use {directory:?}; stop the other process, or choose another --data-dir")]
    Locked {
        /// Where.
        directory: PathBuf,
        /// What the lock said.
        #[source]
        cause: LockError,
    },
    /// A new directory was asked for with flags that make no member.
    #[error("{0}")]
    Bootstrap(String),
    /// Checkpoints cannot be opened.
    #[error("opening the data directory{WAY_OF_MEMBERS}")]
    Recovery(#[from] RecoveryError),
    /// The log cannot be opened.
    #[error("opening the log{WAY_OF_MEMBERS}")]
    Log(#[source] WalError),
    /// The disk under the log does not do what it should.
    #[error("opening the log failed; check the disk and its free space, then start again")]
    LogDisk(#[source] WalError),
    /// The log knows a manifest that is not there.
    #[error(
        "the log knows checkpoint {known}, the newest manifest found is {found}: the manifest was lost; put it back, or restore \
         a snapshot{WAY_OF_MEMBERS}"
    )]
    ManifestLost {
        /// What the log knows.
        known: u64,
        /// What was found.
        found: u64,
    },
    /// The log begins after the last checkpoint ends.
    #[error(
        "the log begins after entry {log}, the last checkpoint ends at {checkpoint}: a part of the log is missing; put its \
         files back, or restore a snapshot{WAY_OF_MEMBERS}"
    )]
    LogGap {
        /// The entry before the log's first.
        log: u64,
        /// The checkpoint's last.
        checkpoint: u64,
    },
    /// The log does not hold the last checkpoint's entry.
    #[error(
        "the log ends at entry {log} and does not hold entry {checkpoint}, at which the last checkpoint ends: a part of the log is \
         missing; put its files back, or restore a snapshot{WAY_OF_MEMBERS}"
    )]
    LogBehind {
        /// The log's last entry.
        log: u64,
        /// The checkpoint's last.
        checkpoint: u64,
    },
    /// The manifest names members that cannot be read.
    #[error(transparent)]
    Members(#[from] MembersError),
    /// Consensus refuses its state.
    #[error("starting consensus")]
    Consensus(#[from] CoreError),
    /// It cannot go on alone.
    #[error(
        "--force-new-cluster: this member cannot be a cluster of its own, for {0}; begin with another member, or restore a \
         snapshot"
    )]
    ForceNewCluster(&'static str),
    /// It does not come to lead, or the log is longer than this.
    #[error("not ready after {} s: see what the disk is busy with, and start again", waited.as_secs())]
    NotReady {
        /// How long it had.
        waited: Duration,
    },
    /// No thread to be had.
    #[error("starting a thread")]
    Thread(#[source] io::Error),
}

impl From<WalError> for StartError {
    fn from(cause: WalError) -> Self {
        match cause {
            WalError::Io { .. } => Self::LogDisk(cause),
            _ => Self::Log(cause),
        }
    }
}
