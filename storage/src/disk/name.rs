//! Names of files and directories inside a disk.

use std::io;

/// Longest path accepted, in bytes; Linux accepts 4,096 with the directory in front of it.
const NAME_BYTES_MAX: usize = 1024;

/// Checks that `name` is a plain relative path of a file: no root, no `.` or `..`, no empty part, no NUL.
///
/// # Errors
/// `InvalidInput` otherwise: such a name could leave the directory that the disk was opened on.
pub(super) fn check_file(name: &str) -> io::Result<()> {
    let plain = name.len() <= NAME_BYTES_MAX
        && !name.contains('\0')
        && name.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    if plain { Ok(()) } else { Err(io::Error::new(io::ErrorKind::InvalidInput, format!("bad file name {name:?}"))) }
}

/// As [`check_file`], but the empty name is the root directory.
pub(super) fn check_directory(name: &str) -> io::Result<()> {
    if name.is_empty() { Ok(()) } else { check_file(name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_the_directory_are_refused() {
        for name in ["", "/", "/etc/passwd", "..", "a/../b", "a//b", "a/", "./a", "a\0b", &"x".repeat(2000)] {
            assert_eq!(check_file(name).map_err(|e| e.kind()), Err(io::ErrorKind::InvalidInput), "{name:?}");
        }
        for name in ["a", "wal/0001.wal", "a..b", "..."] {
            assert!(check_file(name).is_ok(), "{name:?}");
        }
        assert!(check_directory("").is_ok());
    }
}
