//! Why a data directory cannot be opened.

use std::io;

use thiserror::Error;

use super::checkpointer::RUNS_DIRECTORY;
use super::manifest::ManifestError;
use crate::mvcc::key_index::KeyIndexError;
use crate::pages::PagesError;
use crate::pages::allocator::AllocatorError;
use crate::runs::{RunError, run_name};

/// Why a data directory cannot be opened. Nothing in it was changed.
#[derive(Debug, Error)]
pub enum RecoveryError {
    /// The disk failed.
    #[error("{doing} {name:?} failed; check the disk, and restore a snapshot if the file is gone")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On which file or directory.
        name: String,
        /// What the disk said.
        #[source]
        cause: io::Error,
    },
    /// The manifest cannot be read.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// There is no valid manifest where one was.
    #[error("all copies of the manifest are damaged; put an undamaged file back, or restore a snapshot")]
    ManifestLost,
    /// There is data, and nothing that says what it is.
    #[error(
        "there is no file \"manifest\", but {found:?} holds data that only it can name: nothing was changed; put the file \
         back, or move everything away and restore a snapshot"
    )]
    ManifestMissing {
        /// The first file found.
        found: String,
    },
    /// The manifest splits keys in a way that no store does.
    #[error("the manifest names impossible shards ({flaw}); restore a snapshot")]
    Shards {
        /// What is wrong.
        flaw: &'static str,
    },
    /// A root in the manifest is none.
    #[error("the manifest names a damaged page tree of shard {shard:?}; restore a snapshot")]
    Tree {
        /// Whose tree.
        shard: String,
        /// What is wrong.
        #[source]
        cause: PagesError,
    },
    /// A root in the manifest is none.
    #[error("the manifest names a damaged page map of shard {shard:?}; restore a snapshot")]
    Map {
        /// Whose map.
        shard: String,
        /// What is wrong.
        #[source]
        cause: AllocatorError,
    },
    /// A run is damaged, or newer than this release.
    #[error(transparent)]
    Run(RunError),
    /// A record of an index run is damaged.
    #[error("the index of shard {shard:?} is damaged; restore a snapshot")]
    Index {
        /// Whose index.
        shard: String,
        /// What is wrong.
        #[source]
        cause: KeyIndexError,
    },
    /// A system record belongs to no table of this release.
    #[error("a system record belongs to no table that this release knows; start the release that wrote it")]
    UnknownTable,
}

impl From<RunError> for RecoveryError {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Io { number, source } => {
                Self::Io { doing: "reading", name: run_name(RUNS_DIRECTORY, number), cause: source }
            }
            other => Self::Run(other),
        }
    }
}
