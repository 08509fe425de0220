//! Where lines go.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use super::journal::{self, Journal};
use super::line::Line;
use super::rotating_file::RotatingFile;
use crate::config::{LogOutput, LogRotation};

/// One opened output.
#[derive(Debug)]
pub(super) enum Output {
    Stderr,
    Stdout,
    File(File),
    Rotating(RotatingFile),
    Journal(Journal),
}

impl Output {
    /// Opens an output; a file is created if it is missing, and appended to, and put aside by `rotation`.
    pub(super) fn open(output: &LogOutput, rotation: Option<&LogRotation>) -> io::Result<Self> {
        Ok(match output {
            LogOutput::Stderr => Self::Stderr,
            LogOutput::Stdout => Self::Stdout,
            LogOutput::File(path) => match rotation {
                Some(rotation) => Self::Rotating(RotatingFile::open(path, rotation.clone())?),
                None => Self::File(append_to(path)?),
            },
            LogOutput::Journal => Self::Journal(Journal::open(Path::new(journal::SOCKET))?),
        })
    }

    /// Writes a whole line. A failure is swallowed: there is no better place to report it, and a full disk or a closed
    /// pipe under the log must not stop the server.
    pub(super) fn write(&self, line: &Line) {
        let text = line.text.as_str();
        let _ = match self {
            Self::Stderr => to_stderr(text),
            Self::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush())
            }
            // Appending writes of one line do not mix, so that a file needs no lock.
            Self::File(file) => (&*file).write_all(text.as_bytes()),
            Self::Rotating(file) => file.write(text),
            // As in etcd, what the journal does not take goes to where it would be without one.
            Self::Journal(journal) => journal.write(line).or_else(|_| to_stderr(text)),
        };
    }
}

fn to_stderr(text: &str) -> io::Result<()> {
    io::stderr().lock().write_all(text.as_bytes())
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}
