//! The flags of everything that asks a cluster.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Format {
    /// Lines of words.
    #[default]
    Simple,
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// Somebody with a password, which is printed nowhere.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub name: String,
    pub password: String,
}

impl fmt::Debug for User {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "User({:?})", self.name)
    }
}

/// Which cluster, and how it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClusterOptions {
    pub endpoints: Vec<String>,
    pub ca_file: Option<PathBuf>,
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
    /// As whom, where authentication is on.
    pub user: Option<User>,
    pub format: Format,
    /// How long one answer may take.
    pub command_timeout: Duration,
    /// How long a new member may take until it votes.
    pub wait_timeout: Duration,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self {
            endpoints: vec!["127.0.0.1:2379".to_owned()],
            ca_file: None,
            cert_file: None,
            key_file: None,
            user: None,
            format: Format::default(),
            command_timeout: Duration::from_secs(20),
            wait_timeout: Duration::from_secs(3600),
        }
    }
}
