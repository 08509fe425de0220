//! What a check has to say.

use std::error::Error;
use std::fmt;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// A crash may have left it; nothing is lost.
    Note,
    /// Something is not what was written.
    Damage,
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// In which file.
    pub place: String,
    /// What it is.
    pub text: String,
}

impl Finding {
    pub(super) fn damage(place: &str, text: impl Into<String>) -> Self {
        Self { severity: Severity::Damage, place: place.to_owned(), text: text.into() }
    }

    pub(super) fn note(place: &str, text: impl Into<String>) -> Self {
        Self { severity: Severity::Note, place: place.to_owned(), text: text.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Note => "note",
            Severity::Damage => "damage",
        };
        write!(formatter, "{severity}: {}: {}", self.place, self.text)
    }
}

/// Hears of a check while it runs.
pub trait Observer {
    /// So much of a file was read, bytes; `total` is an estimate.
    fn progress(&mut self, place: &str, done: u64, total: u64);

    /// Something was found.
    fn found(&mut self, finding: Finding);
}

/// An error with its causes, on one line.
pub(super) fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
