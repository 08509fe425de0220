//! Files that are read again when they change, while the process runs: certificates, keys.
//!
//! Invariants:
//! * No change is missed: what a file is known by is taken before it is read, and holds the time of its last change of any kind,
//!   also of owner and mode.
//! * A read that failed is tried again at every look: what it failed for may be over without any change of the files (no
//!   descriptors were left; a folder above could not be entered).
//! * A failure is told once, until the files change or it becomes another.

use std::fmt::Display;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What tells one state of a file from the next without reading it: times of change in seconds and nanoseconds, bytes, number on
/// its disk.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mark {
    content_changed: (i64, i64),
    anything_changed: (i64, i64),
    bytes: u64,
    number: u64,
}

impl Mark {
    /// `None` while the file is not there, or cannot be asked for.
    fn of(path: &Path) -> Option<Self> {
        let found = fs::metadata(path).ok()?;
        Some(Self {
            content_changed: (found.mtime(), found.mtime_nsec()),
            anything_changed: (found.ctime(), found.ctime_nsec()),
            bytes: found.len(),
            number: found.ino(),
        })
    }
}

/// The state in which files were read last.
#[derive(Debug)]
pub struct ReadAgain {
    marks: Vec<Option<Mark>>,
    /// How that failed, if it did.
    failure: Option<String>,
}

/// What a look brought.
#[derive(Debug, PartialEq, Eq)]
pub enum Look<T, E> {
    /// Nothing has changed.
    Same,
    /// What was read anew.
    Read(T),
    /// It cannot be read, which is news.
    Failed(E),
    /// It cannot be read still, for the same reason.
    FailedStill,
}

impl ReadAgain {
    /// For files that are read for the first time after this.
    pub fn before_reading<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Self {
        Self { marks: paths.into_iter().map(Mark::of).collect(), failure: None }
    }

    /// Reads the same files again if one has changed, or if they could not be read last time.
    pub fn look<'a, T, E: Display>(
        &mut self,
        paths: impl IntoIterator<Item = &'a Path>,
        read: impl FnOnce() -> Result<T, E>,
    ) -> Look<T, E> {
        let marks: Vec<_> = paths.into_iter().map(Mark::of).collect();
        let has_changed = marks != self.marks;
        if !has_changed && self.failure.is_none() {
            return Look::Same;
        }
        self.marks = marks;
        match read() {
            Ok(content) => {
                self.failure = None;
                Look::Read(content)
            }
            Err(error) => {
                let told = self.failure.replace(error.to_string());
                if !has_changed && told == self.failure { Look::FailedStill } else { Look::Failed(error) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_change_of_any_kind_is_seen() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        fs::write(&path, "one").expect("written");
        let before = Mark::of(&path).expect("there");
        assert_eq!(Mark::of(&path), Some(before.clone()));
        // The clock of files moves a few hundred times a second.
        let is_seen = (0..1_000_000).any(|_| {
            fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("a mode");
            Mark::of(&path) != Some(before.clone())
        });
        assert!(is_seen, "a change of the mode");
        let mode = Mark::of(&path).expect("there");
        assert_eq!((mode.content_changed, mode.bytes, mode.number), (before.content_changed, 3, before.number));
        fs::write(&path, "three").expect("written");
        assert_ne!(Mark::of(&path), Some(mode));
        let before = Mark::of(&path);
        let other = folder.path().join("other");
        fs::write(&other, "one").expect("written");
        fs::rename(&other, &path).expect("renamed");
        assert_ne!(Mark::of(&path), before, "another file");
        fs::remove_file(&path).expect("removed");
        assert_eq!(Mark::of(&path), None);
    }

    #[test]
    fn what_could_not_be_read_is_tried_again_and_told_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        fs::write(&path, "one").expect("written");
        let mut files = ReadAgain::before_reading([&*path]);
        let mut look = |result: Result<u8, &'static str>| files.look([&*path], || result);
        assert_eq!(look(Err("is not asked")), Look::Same);
        fs::write(&path, "three").expect("written");
        assert_eq!(look(Err("too many open files")), Look::Failed("too many open files"));
        assert_eq!(look(Err("too many open files")), Look::FailedStill);
        assert_eq!(look(Err("permission denied")), Look::Failed("permission denied"));
        fs::write(&path, "three and four").expect("written");
        assert_eq!(look(Err("permission denied")), Look::Failed("permission denied"), "it has changed again");
        assert_eq!(look(Ok(7)), Look::Read(7), "without any change");
        assert_eq!(look(Err("is not asked")), Look::Same);
    }
}
