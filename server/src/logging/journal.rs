//! systemd's journal, in its native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL): a datagram an entry, whose fields are etcd's.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use tracing::Level;

use super::line::Line;

/// Where the journal listens.
pub(super) const SOCKET: &str = "/run/systemd/journal/socket";

/// Bytes of a line in an entry; what is longer ends in `… (so many bytes)`. etcd hands a longer one over as a file in memory. A
/// datagram of this length fits the default of `net.core.wmem_default`, 208 KiB; where that was set lower, the line goes to
/// standard error.
const MESSAGE_BYTES_MAX: usize = 128 << 10;

/// The journal. It may be started anew meanwhile: each entry looks for it again.
#[derive(Debug)]
pub(super) struct Journal {
    socket: UnixDatagram,
    path: PathBuf,
    /// Name of the program's file.
    identifier: OsString,
}

impl Journal {
    /// The journal that listens at `path`.
    ///
    /// # Errors
    /// The system's; nobody listens there.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        UnixDatagram::unbound()?.connect(path)?;
        let program = std::env::args_os().next().unwrap_or_default();
        let identifier = Path::new(&program).file_name().unwrap_or_default().to_owned();
        Ok(Self { socket: UnixDatagram::unbound()?, path: path.to_owned(), identifier })
    }

    /// Writes an entry; waits, as a line to standard error does, while the journal has no room.
    ///
    /// # Errors
    /// The system's; the entry is not there.
    pub(super) fn write(&self, line: &Line) -> io::Result<()> {
        let mut entry = Vec::with_capacity(line.text.len() + 128);
        push_field(&mut entry, "PRIORITY", priority(line.level).as_bytes());
        push_field(&mut entry, "MESSAGE", message(line.text.trim_end_matches('\n')).as_bytes());
        let package = line.caller.rsplit_once('/').map_or(".", |(folder, _)| folder);
        push_field(&mut entry, "PACKAGE", package.as_bytes());
        push_field(&mut entry, "SYSLOG_IDENTIFIER", self.identifier.as_bytes());
        self.socket.send_to(&entry, &self.path).map(drop)
    }
}

/// syslog's, as etcd takes them.
fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        Level::DEBUG | Level::TRACE => "7",
    }
}

fn message(line: &str) -> String {
    let head = &line[..line.floor_char_boundary(MESSAGE_BYTES_MAX)];
    if head.len() < line.len() { format!("{head}… ({} bytes)", line.len()) } else { line.to_owned() }
}

/// `NAME=value`, or with line breaks in the value its length before it.
fn push_field(entry: &mut Vec<u8>, name: &str, value: &[u8]) {
    entry.extend_from_slice(name.as_bytes());
    if value.contains(&b'\n') {
        entry.push(b'\n');
        entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        entry.push(b'=');
    }
    entry.extend_from_slice(value);
    entry.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: String) -> Vec<u8> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("socket");
        let journald = UnixDatagram::bind(&path).expect("a socket");
        let journal = Journal { identifier: "basalt".into(), ..Journal::open(&path).expect("found") };
        journal.write(&Line { text, level: Level::WARN, caller: "listen/accept.rs:42".to_owned() }).expect("written");
        let mut entry = vec![0; 1 << 20];
        let length = journald.recv(&mut entry).expect("an entry");
        entry.truncate(length);
        entry
    }

    #[test]
    fn an_entry_has_etcds_fields() {
        let entry = written("{\"level\":\"warn\",\"msg\":\"a=b\"}\n".to_owned());
        let expected =
            "PRIORITY=4\nMESSAGE={\"level\":\"warn\",\"msg\":\"a=b\"}\nPACKAGE=listen\nSYSLOG_IDENTIFIER=basalt\n";
        assert_eq!(String::from_utf8(entry).expect("text"), expected);
    }

    #[test]
    fn a_value_with_line_breaks_has_its_length() {
        let mut entry = Vec::new();
        push_field(&mut entry, "A", b"b\nc=");
        push_field(&mut entry, "D", b"");
        assert_eq!(entry, b"A\n\x04\0\0\0\0\0\0\0b\nc=\nD=\n");
    }

    #[test]
    fn a_long_line_is_cut_and_its_length_is_told() {
        let entry = String::from_utf8(written("ä".repeat(MESSAGE_BYTES_MAX))).expect("text");
        let message = entry.lines().find_map(|field| field.strip_prefix("MESSAGE=")).expect("a message");
        assert_eq!(message, format!("{}… (262144 bytes)", "ä".repeat(MESSAGE_BYTES_MAX / 2)));
    }

    #[test]
    fn without_a_journal_there_is_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("socket");
        assert_eq!(Journal::open(&path).expect_err("no socket").kind(), io::ErrorKind::NotFound);
        drop(UnixDatagram::bind(&path).expect("a socket"));
        assert_eq!(Journal::open(&path).expect_err("nobody listens").kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn a_journal_that_was_started_anew_gets_the_next_entries() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("socket");
        let before = UnixDatagram::bind(&path).expect("a socket");
        let journal = Journal::open(&path).expect("found");
        let line = Line { text: "a\n".to_owned(), level: Level::INFO, caller: String::new() };
        drop(before);
        assert!(journal.write(&line).is_err(), "it goes to standard error");
        std::fs::remove_file(&path).expect("removed");
        let after = UnixDatagram::bind(&path).expect("a socket");
        journal.write(&line).expect("written");
        let mut entry = [0; 256];
        let length = after.recv(&mut entry).expect("an entry");
        assert!(entry[..length].starts_with(b"PRIORITY=6\nMESSAGE=a\nPACKAGE=.\n"));
    }
}
