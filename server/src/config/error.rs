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
        Self::Usage { cause: one_line(cause.into()), advice: one_line(advice.into()) }
    }

    /// A [`ConfigError::Invalid`].
    pub fn invalid(cause: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::Invalid { cause: one_line(cause.into()), advice: one_line(advice.into()) }
    }

    /// The exit code of the process: etcd's 2 or 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage { .. } => 2,
            Self::Invalid { .. } => 1,
        }
    }
}

/// What flags, variables and files hold may stand in an error, and break no line of the one who reads it.
fn one_line(text: String) -> String {
    if !text.contains(char::is_control) {
        return text;
    }
    let escaped = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(escaped).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_whatever_it_quotes() {
        let told = ConfigError::usage("flag provided but not defined: -a\nb\u{1b}[2J", "see\r\n--help").to_string();
        assert_eq!(told, r"flag provided but not defined: -a\nb\u{1b}[2J; see\r\n--help");
        assert_eq!(ConfigError::invalid("é", "ß").to_string(), "é; ß");
    }
}
