//! Values of the logging flags.

use std::collections::BTreeSet;
use std::path::PathBuf;

/// The least level that is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Everything.
    Debug,
    /// Changes of state, and what is worse.
    Info,
    /// Degraded service, and what is worse.
    Warn,
    /// What wakes a human.
    Error,
    /// Nothing but the last words of a process that stops: zap's `dpanic`, `panic` and `fatal`.
    Fatal,
}

impl LogLevel {
    /// The level of that name; as zap reads it, with the empty text for `info`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        Some(match text.to_ascii_lowercase().as_str() {
            "debug" => Self::Debug,
            "info" | "" => Self::Info,
            "warn" | "warning" => Self::Warn,
            "error" => Self::Error,
            "dpanic" | "panic" | "fatal" => Self::Fatal,
            _ => return None,
        })
    }
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// Columns separated by tabs, then the fields as JSON.
    Console,
}

/// How `--log-outputs` names the journal.
const JOURNAL: &str = "systemd/journal";

/// Where log lines go.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogOutput {
    /// Standard error.
    Stderr,
    /// Standard output.
    Stdout,
    /// A file that is appended to.
    File(PathBuf),
    /// systemd's journal; it stands alone.
    Journal,
}

impl LogOutput {
    /// Reads the values of `--log-outputs`; each output once.
    ///
    /// # Errors
    /// What is wrong, in one clause.
    pub(super) fn parse_list(values: &[String]) -> Result<Vec<Self>, String> {
        let values: BTreeSet<&str> = values.iter().map(String::as_str).collect();
        for alone in ["default", JOURNAL] {
            if values.len() > 1 && values.contains(alone) {
                return Err(format!("{alone:?} cannot be combined with other outputs"));
            }
        }
        // As in etcd, this one silences all others.
        if values.contains("/dev/null") {
            return Ok(vec![Self::File("/dev/null".into())]);
        }
        let mut outputs = Vec::new();
        for value in values {
            outputs.push(match value {
                // Under systemd too, as in etcd 3.7.
                "default" | "stderr" => Self::Stderr,
                "stdout" => Self::Stdout,
                JOURNAL => Self::Journal,
                "" => return Err("an output is empty".to_owned()),
                path => Self::File(path.into()),
            });
        }
        outputs.sort();
        outputs.dedup();
        Ok(if outputs.is_empty() { vec![Self::Stderr] } else { outputs })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(values: &[&str]) -> Result<Vec<LogOutput>, String> {
        LogOutput::parse_list(&values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn outputs() {
        assert_eq!(parse(&[]), Ok(vec![LogOutput::Stderr]));
        assert_eq!(parse(&["default"]), Ok(vec![LogOutput::Stderr]));
        assert_eq!(parse(&["/a", "stderr", "/a"]), Ok(vec![LogOutput::Stderr, LogOutput::File("/a".into())]));
        assert_eq!(parse(&["stdout", "/dev/null"]), Ok(vec![LogOutput::File("/dev/null".into())]));
        assert!(parse(&["default", "stdout"]).is_err());
        assert_eq!(parse(&["systemd/journal", "systemd/journal"]), Ok(vec![LogOutput::Journal]));
        assert!(parse(&["systemd/journal", "stderr"]).is_err());
        assert!(parse(&["systemd/journal", "/dev/null"]).is_err());
    }

    #[test]
    fn levels() {
        assert_eq!(LogLevel::parse("WARN"), Some(LogLevel::Warn));
        assert_eq!(LogLevel::parse("panic"), Some(LogLevel::Fatal));
        assert_eq!(LogLevel::parse("loud"), None);
    }
}
