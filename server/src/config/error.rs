//! Why the configuration cannot be used.

use thiserror::Error;

/// A configuration that cannot be used: one line with the cause and what to do next.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// The command line does not parse; etcd exits with 2.
    #[error("{cause}; {advice}")]
    Usage {
        /// What is wrong, naming the flag.
        cause: String,
        /// What the operator can do.
        advice: String,
    },
    /// The command line parses, but what it asks for is invalid or not available; etcd exits with 1.
    #[error("{cause}; {advice}")]
    Invalid {
        /// What is wrong, naming flag, variable, file or key.
        cause: String,
        /// What the operator can do.
        advice: String,
    },
}

impl ConfigError {
    /// A [`ConfigError::Usage`].
    pub(super) fn usage(cause: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::Usage { cause: cause.into(), advice: advice.into() }
    }

    /// A [`ConfigError::Invalid`].
    pub(super) fn invalid(cause: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::Invalid { cause: cause.into(), advice: advice.into() }
    }

    /// The exit code of the process: etcd's 2 or 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage { .. } => 2,
            Self::Invalid { .. } => 1,
        }
    }
}
