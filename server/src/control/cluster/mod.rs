//! What is asked of a cluster that runs: `status`, `member`, `reseed`.
//!
//! ```text
//!   options ─► connection ─► status    each member asked for itself, a row for each
//!                       ├──► members   list, add, remove, promote, replace
//!                       └──► reseed    remove, add as a learner, old data aside, then as replace
//! ```
//!
//! Flags are etcdctl's where it has them. A table is for people, `-w json` for programs. What takes long says on standard
//! error how far it is; whatever is interrupted is repeated with the same command.

mod connection;
mod members;
mod options;
mod reseed;
mod status;
mod table;
mod waiting;

pub(super) use members::{MemberCommand, run as run_member};
pub(super) use options::{ClusterOptions, Format, User};
pub(super) use reseed::{ReseedOptions, reseed};
pub(super) use status::status;

use thiserror::Error;

/// Why something asked of a cluster did not come about.
#[derive(Debug, Error)]
pub(super) enum ClusterError {
    /// No endpoint answers.
    #[error("no member answers ({0}); check --endpoints, --cacert, --cert and --key, and that the members run")]
    Unreachable(String),
    /// The cluster refuses.
    #[error("{doing}: {text}")]
    Refused {
        /// What was tried.
        doing: String,
        /// In the cluster's words.
        text: String,
    },
    /// Something here is not as it should be.
    #[error("{0}")]
    Other(String),
}

impl ClusterError {
    fn refused(doing: impl Into<String>) -> impl FnOnce(tonic::Status) -> Self {
        let doing = doing.into();
        move |status| Self::Refused { doing, text: status.message().to_owned() }
    }
}
