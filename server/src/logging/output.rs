//! Where lines go.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use crate::config::LogOutput;

/// One opened output.
#[derive(Debug)]
pub(super) enum Output {
    Stderr,
    Stdout,
    File(File),
}

impl Output {
    /// Opens an output; a file is created if it is missing, and appended to.
    pub(super) fn open(output: &LogOutput) -> io::Result<Self> {
        Ok(match output {
            LogOutput::Stderr => Self::Stderr,
            LogOutput::Stdout => Self::Stdout,
            LogOutput::File(path) => Self::File(append_to(path)?),
        })
    }

    /// Writes a whole line. A failure is swallowed: there is no better place to report it, and a full disk or a closed
    /// pipe under the log must not stop the server.
    pub(super) fn write(&self, line: &str) {
        let _ = match self {
            Self::Stderr => io::stderr().lock().write_all(line.as_bytes()),
            Self::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(line.as_bytes()).and_then(|()| stdout.flush())
            }
            // Appending writes of one line do not mix, so that a file needs no lock.
            Self::File(file) => (&*file).write_all(line.as_bytes()),
        };
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}
