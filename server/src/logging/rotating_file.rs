//! A log file that is put aside when it is full (`--enable-log-rotation`).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use time::OffsetDateTime;
use tracing::warn;

use super::backups::Backups;
use crate::config::LogRotation;

const FILE_MODE: u32 = 0o600;
/// Where a file cannot be put aside, it grows by so many bytes before that is tried again.
const RETRY_BYTES: u64 = 1 << 20;

/// The file that is written, and those before it.
///
/// No line is lost to a rotation: if one fails, the file that is open goes on.
#[derive(Debug)]
pub(super) struct RotatingFile {
    path: PathBuf,
    size_max: u64,
    state: Mutex<State>,
    backups: Arc<Backups>,
    /// Wakes the thread that tidies up, if there is anything to tidy. It ends with this end.
    tidying: Option<SyncSender<()>>,
}

#[derive(Debug)]
struct State {
    file: File,
    size: u64,
    /// Size at which it is put aside.
    full_at: u64,
}

impl RotatingFile {
    /// Opens the file, and makes it and its folder if they are missing.
    ///
    /// # Errors
    /// The system's; what is no plain file is none to be put aside.
    pub(super) fn open(path: &Path, rules: LogRotation) -> io::Result<Self> {
        if let Some(folder) = path.parent().filter(|folder| *folder != Path::new("")) {
            fs::create_dir_all(folder)?;
        }
        if path.exists() && !fs::metadata(path)?.is_file() {
            return Err(io::Error::other("it is no plain file, and cannot be rotated"));
        }
        let file = open(path, FILE_MODE)?;
        let (size, size_max) = (file.metadata()?.len(), rules.size_bytes_max);
        let backups = Arc::new(Backups::of(path, rules));
        let tidying = if backups.need_tidying() { Some(start_tidying(backups.clone())?) } else { None };
        let state = Mutex::new(State { file, size, full_at: size_max });
        Ok(Self { path: path.to_owned(), size_max, state, backups, tidying })
    }

    /// Writes a whole line, into a new file if it would be too much for this one.
    ///
    /// # Errors
    /// The system's, of the write.
    pub(super) fn write(&self, line: &str) -> io::Result<()> {
        // A poisoned lock holds a whole state: its fields are set after what can fail.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = line.len() as u64;
        if state.size > 0 && state.size + bytes > state.full_at {
            match self.put_aside(&state.file) {
                Ok(file) => *state = State { file, size: 0, full_at: self.size_max },
                // There is no place to tell of it but this one, and no reason to lose the line.
                Err(_) => state.full_at = state.size + bytes + RETRY_BYTES,
            }
        }
        state.file.write_all(line.as_bytes())?;
        state.size += bytes;
        Ok(())
    }

    fn put_aside(&self, full: &File) -> io::Result<File> {
        // An earlier try may have come this far; or somebody took it away.
        if fs::symlink_metadata(&self.path).is_ok() {
            fs::rename(&self.path, self.backups.free_name(OffsetDateTime::now_utc())?)?;
        }
        let file = open(&self.path, full.metadata()?.permissions().mode())?;
        if let Some(tidying) = &self.tidying {
            // One that is due already does for this one too.
            let _ = tidying.try_send(());
        }
        Ok(file)
    }
}

fn open(path: &Path, mode: u32) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(mode).open(path)
}

/// Compressing takes longer than a line may wait, so it has a thread, which looks once at the beginning too.
fn start_tidying(backups: Arc<Backups>) -> io::Result<SyncSender<()>> {
    let (wake, woken) = sync_channel(1);
    let _ = wake.try_send(());
    std::thread::Builder::new().name("basalt-log-files".to_owned()).spawn(move || tidy(&backups, &woken))?;
    Ok(wake)
}

fn tidy(backups: &Backups, woken: &Receiver<()>) {
    for () in woken {
        if let Err(error) = backups.tidy(OffsetDateTime::now_utc()) {
            warn!(%error, "failed to tidy up rotated log files");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(size: u64) -> LogRotation {
        LogRotation { size_bytes_max: size, age_days_max: 0, backups_max: 0, local_time: false, compress: false }
    }

    /// The contents of all files, the newest last.
    fn contents(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).expect("listed").map(|entry| entry.expect("an entry").path()).collect();
        // `log-…` stands before `log.txt`.
        names.sort();
        names.into_iter().map(|path| fs::read_to_string(path).expect("text")).collect()
    }

    #[test]
    fn no_line_is_cut_or_lost() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("new/folder/log.txt");
        let file = RotatingFile::open(&path, rules(10)).expect("opened");
        for line in ["12345\n", "78\n", "x\n", "a line that is longer than a file may be\n", "y\n"] {
            file.write(line).expect("written");
        }
        let folder = path.parent().expect("a folder");
        let expected = ["12345\n78\n", "x\n", "a line that is longer than a file may be\n", "y\n"];
        assert_eq!(contents(folder), expected);
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_restart_goes_on_where_it_was() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log.txt");
        fs::write(&path, "12345678\n").expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("set");
        let file = RotatingFile::open(&path, rules(10)).expect("opened");
        file.write("ab\n").expect("written");
        assert_eq!(contents(folder.path()), ["12345678\n", "ab\n"]);
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o640, "as before");
    }

    #[test]
    fn a_file_that_cannot_be_put_aside_goes_on() {
        let folder = tempfile::tempdir().expect("a folder");
        let inner = folder.path().join("inner");
        let file = RotatingFile::open(&inner.join("log.txt"), rules(4)).expect("opened");
        file.write("ab\n").expect("written");
        // A new file cannot be made where no folder is.
        fs::rename(&inner, folder.path().join("elsewhere")).expect("moved");
        file.write("cd\n").expect("written");
        file.write("ef\n").expect("written");
        assert_eq!(contents(&folder.path().join("elsewhere")), ["ab\ncd\nef\n"]);
    }

    #[test]
    fn what_is_no_plain_file_is_refused() {
        assert!(RotatingFile::open(Path::new("/dev/full"), rules(10)).is_err());
        assert!(RotatingFile::open(Path::new("/proc/none/log"), rules(10)).is_err());
    }
}
