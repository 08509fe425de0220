//! `check`: a data directory, read whole while no node runs on it.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use basalt_storage::check::{CheckError, Checked, Finding, Observer, check as check_directory};
use basalt_storage::disk::{LockError, RealDisk};
use thiserror::Error;

use super::command_line::CheckOptions;
use super::restore::is_interrupted;

/// Time between two lines of progress.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(2);

/// Why nothing was checked.
#[derive(Debug, Error)]
pub(super) enum NotChecked {
    #[error("cannot check {directory:?}")]
    Directory {
        directory: PathBuf,
        #[source]
        cause: io::Error,
    },
    #[error("cannot check {0:?}: it holds a restore that was interrupted; run `basaltctl snapshot restore` again")]
    Interrupted(PathBuf),
    #[error("cannot check {directory:?} while a node runs on it; stop that first")]
    Locked {
        directory: PathBuf,
        #[source]
        cause: LockError,
    },
    #[error("cannot check {directory:?}")]
    Check {
        directory: PathBuf,
        #[source]
        cause: CheckError,
    },
}

/// Checks, and prints what is found as it is found; what to print at the end, and whether there was damage.
pub(super) fn check(options: &CheckOptions) -> Result<(String, bool), NotChecked> {
    let directory = &options.data_dir;
    let disk = open(directory)?;
    let locked = |cause| NotChecked::Locked { directory: directory.clone(), cause };
    let _lock = disk.lock().map_err(locked)?;
    if is_interrupted(directory) {
        return Err(NotChecked::Interrupted(directory.clone()));
    }
    let log_disk = options.wal_dir.as_deref().map(open).transpose()?;
    let mut console = Console::new();
    let checked = check_directory(&disk, log_disk.as_ref().unwrap_or(&disk), &mut console)
        .map_err(|cause| NotChecked::Check { directory: directory.clone(), cause })?;
    console.clear_line();
    Ok((summary(directory, &checked), checked.damage > 0))
}

/// Opens a directory of ours that is there: nothing is made, not even its lock where there was none.
fn open(directory: &Path) -> Result<RealDisk, NotChecked> {
    let failed = |cause| NotChecked::Directory { directory: directory.to_owned(), cause };
    if std::fs::read_dir(directory).map_err(failed)?.next().is_none() {
        return Err(NotChecked::Check { directory: directory.to_owned(), cause: CheckError::NoData });
    }
    RealDisk::open(directory).map_err(failed)
}

fn summary(directory: &Path, checked: &Checked) -> String {
    let Checked { generation, revision, compact_revision, keys, revisions, bytes, log_entries, log_end, damage } =
        checked;
    let verdict = match damage {
        0 => "no damage".to_owned(),
        1 => "1 piece of damage".to_owned(),
        many => format!("{many} pieces of damage"),
    };
    let log_end =
        log_end.map_or_else(String::new, |end| format!("log: ends with entry {} of term {}\n", end.index, end.term));
    format!(
        "{}: {verdict}\n\
         checkpoint {generation}: revision {revision}, compacted at {compact_revision}; {keys} keys, {revisions} revisions, {bytes} \
         bytes; {log_entries} log entries behind it\n\
         {log_end}",
        directory.display(),
    )
}

/// Findings to standard output, progress to standard error.
struct Console {
    shown: Instant,
    is_terminal: bool,
    open_line: bool,
}

impl Console {
    fn new() -> Self {
        Self { shown: Instant::now(), is_terminal: io::stderr().is_terminal(), open_line: false }
    }

    fn clear_line(&mut self) {
        if std::mem::take(&mut self.open_line) {
            eprintln!();
        }
    }
}

impl Observer for Console {
    fn progress(&mut self, place: &str, done: u64, total: u64) {
        if self.shown.elapsed() < PROGRESS_INTERVAL {
            return;
        }
        self.shown = Instant::now();
        let line = format!("{place}: {} of {} MiB", done >> 20, total >> 20);
        if self.is_terminal {
            eprint!("\r{line:<60}");
            // A terminal that is gone misses nothing.
            drop(io::stderr().flush());
            self.open_line = true;
        } else {
            eprintln!("{line}");
        }
    }

    fn found(&mut self, finding: Finding) {
        self.clear_line();
        println!("{finding}");
    }
}
