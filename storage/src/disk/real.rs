//! A directory of the operating system.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, IoSliceMut};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use rustix::fs::{CWD, FallocateFlags, OFlags, RenameFlags};
use rustix::io::ReadWriteFlags;
use thiserror::Error;

use super::{Disk, FileId, Io, IoOutput, name};

/// Name of the file that carries the lock of the directory.
const LOCK_NAME: &str = "lock";
/// Only the owner reads the data: it holds every secret of the cluster.
const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// Unit of `st_blocks`, whatever the file system's own block size.
const STAT_BLOCK_BYTES: u64 = 512;
/// Reads above this are compared with the file's length before memory is taken for them.
const READ_UNCHECKED_BYTES_MAX: usize = 64 << 10;

/// A [`Disk`] on a directory. Every request is one or two blocking system calls on the calling thread.
///
/// The table of open files is the only shared state, and its lock is never held across a system call on a file.
#[derive(Debug)]
pub struct RealDisk {
    root: PathBuf,
    files: Mutex<FileTable>,
}

#[derive(Debug, Default)]
struct FileTable {
    opened: u64,
    files: BTreeMap<FileId, Arc<File>>,
}

/// Holds a directory for this process; dropping it lets go.
#[derive(Debug)]
pub struct DirectoryLock {
    _file: File,
}

/// Why a directory could not be locked.
#[derive(Debug, Error)]
pub enum LockError {
    /// Another process, or another [`RealDisk`] of this one, works in the directory.
    #[error("data directory {} is in use by another process", directory.display())]
    Held {
        /// The directory.
        directory: PathBuf,
    },
    /// The lock file could not be opened or locked.
    #[error("cannot lock data directory {}", directory.display())]
    Io {
        /// The directory.
        directory: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
}

impl RealDisk {
    /// Opens the directory `root`, and makes it and its parents, readable by the owner only, if it is missing. Its own
    /// name is durable then, also when an earlier process made it and ended before it was.
    ///
    /// # Errors
    /// The operating system's, among them `NotADirectory`.
    pub fn open(root: &Path) -> io::Result<Self> {
        let made: Vec<&Path> =
            root.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists()).collect();
        create_directory(root)?;
        if !fs::metadata(root)?.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        sync_parent(root)?;
        made.into_iter().skip(1).try_for_each(sync_parent)?;
        Ok(Self { root: root.to_owned(), files: Mutex::default() })
    }

    /// Takes the directory for this process until the guard is dropped or the process ends, however it ends.
    ///
    /// # Errors
    /// [`LockError::Held`] when another holds it; it is not waited for.
    pub fn lock(&self) -> Result<DirectoryLock, LockError> {
        let failed = |source| LockError::Io { directory: self.root.clone(), source };
        let file = self.file_options().create(true).open(self.root.join(LOCK_NAME)).map_err(failed)?;
        Self::try_lock(file, &self.root)
    }

    /// Takes a file that another program locks while it works with it, as that one does (`flock`), until the guard is
    /// dropped.
    ///
    /// # Errors
    /// [`LockError::Held`] when it is taken; it is not waited for.
    pub fn lock_file(&self, name: &str) -> Result<DirectoryLock, LockError> {
        let failed = |source| LockError::Io { directory: self.root.clone(), source };
        let path = self.file_path(name).map_err(failed)?;
        Self::try_lock(self.file_options().open(path).map_err(failed)?, &self.root)
    }

    fn try_lock(file: File, root: &Path) -> Result<DirectoryLock, LockError> {
        match file.try_lock() {
            Ok(()) => Ok(DirectoryLock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(LockError::Held { directory: root.to_owned() }),
            Err(TryLockError::Error(source)) => Err(LockError::Io { directory: root.to_owned(), source }),
        }
    }

    fn file_options(&self) -> OpenOptions {
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(FILE_MODE);
        options
    }

    fn file_path(&self, file: &str) -> io::Result<PathBuf> {
        name::check_file(file)?;
        Ok(self.root.join(file))
    }

    fn directory_path(&self, directory: &str) -> io::Result<PathBuf> {
        name::check_directory(directory)?;
        Ok(if directory.is_empty() { self.root.clone() } else { self.root.join(directory) })
    }

    fn with_table<T>(&self, act: impl FnOnce(&mut FileTable) -> T) -> T {
        act(&mut self.files.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn file(&self, id: FileId) -> io::Result<Arc<File>> {
        self.with_table(|table| table.files.get(&id).cloned()).ok_or_else(not_open)
    }

    fn open_file(&self, name: &str, create: bool) -> io::Result<IoOutput> {
        let file = self.file_options().create(create).open(self.file_path(name)?)?;
        let length = file.metadata()?.len();
        let id = self.with_table(|table| {
            table.opened += 1;
            let id = FileId(table.opened);
            table.files.insert(id, Arc::new(file));
            id
        });
        Ok(IoOutput::Opened { file: id, length })
    }

    fn read(&self, file: FileId, offset: u64, length: usize) -> io::Result<IoOutput> {
        let file = self.file(file)?;
        if length > READ_UNCHECKED_BYTES_MAX && file.metadata()?.len().saturating_sub(offset) < length as u64 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, offset)?;
        Ok(IoOutput::Read(Bytes::from(bytes)))
    }

    fn stat(&self, file: FileId) -> io::Result<IoOutput> {
        let metadata = self.file(file)?.metadata()?;
        Ok(IoOutput::Stat { length: metadata.len(), allocated: metadata.blocks() * STAT_BLOCK_BYTES })
    }

    fn list(&self, directory: &str) -> io::Result<IoOutput> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.directory_path(directory)?)? {
            // A name that is not UTF-8 is none of ours.
            names.extend(entry?.file_name().into_string().ok());
        }
        names.sort_unstable();
        Ok(IoOutput::Names(names))
    }

    fn sync_directory(&self, directory: &str) -> io::Result<()> {
        let path = self.directory_path(directory)?;
        // A file in its place is an error, not a sync of something else.
        let only_directories = i32::try_from(OFlags::DIRECTORY.bits()).expect("a flag of open(2) is an int");
        OpenOptions::new().read(true).custom_flags(only_directories).open(path)?.sync_all()
    }

    /// Requests that answer nothing but success.
    fn perform_plain(&self, io: Io) -> io::Result<()> {
        match io {
            Io::Close { file } => self.with_table(|table| table.files.remove(&file)).map(drop).ok_or_else(not_open),
            Io::Write { file, offset, bytes } => self.file(file)?.write_all_at(&bytes, offset),
            Io::Sync { file } => self.file(file)?.sync_data(),
            Io::Truncate { file, length } => self.file(file)?.set_len(length),
            Io::Allocate { file, offset, length } => {
                fallocate(&*self.file(file)?, FallocateFlags::empty(), offset, length)
            }
            Io::PunchHole { file, offset, length } => {
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                fallocate(&*self.file(file)?, flags, offset, length)
            }
            Io::Rename { from, to } => rename_file(&self.file_path(&from)?, &self.file_path(&to)?),
            Io::Exchange { one, other } => exchange(&self.file_path(&one)?, &self.file_path(&other)?),
            Io::Remove { name } => fs::remove_file(self.file_path(&name)?),
            Io::CreateDir { name } => create_directory(&self.file_path(&name)?),
            Io::SyncDir { directory } => self.sync_directory(&directory),
            Io::Open { .. } | Io::Read { .. } | Io::Stat { .. } | Io::List { .. } => {
                unreachable!("`perform` answers these itself")
            }
        }
    }
}

impl Disk for RealDisk {
    fn perform(&self, io: Io) -> io::Result<IoOutput> {
        match io {
            Io::Open { name, create } => self.open_file(&name, create),
            Io::Read { file, offset, length } => self.read(file, offset, length),
            Io::Stat { file } => self.stat(file),
            Io::List { directory } => self.list(&directory),
            plain => self.perform_plain(plain).map(|()| IoOutput::Done),
        }
    }

    fn read_cached(&self, file: FileId, offset: u64, length: usize) -> Option<Bytes> {
        if length > READ_UNCHECKED_BYTES_MAX {
            return None;
        }
        let file = self.file(file).ok()?;
        let mut bytes = vec![0; length];
        let buffers = &mut [IoSliceMut::new(&mut bytes)];
        let read = rustix::io::preadv2(&*file, buffers, offset, ReadWriteFlags::NOWAIT).ok()?;
        (read == length).then(|| Bytes::from(bytes))
    }
}

fn create_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path)
}

/// Makes the name of a directory durable. Where its parent may be written but not read, that is left to the system.
fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match File::open(parent) {
        Ok(parent) => parent.sync_all(),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        Err(error) => Err(error),
    }
}

/// A signal, as that of a profile, may end the call before it has done anything; all others of this file are begun anew by the
/// system or by Rust's library.
fn fallocate(file: &File, flags: FallocateFlags, offset: u64, length: u64) -> io::Result<()> {
    Ok(rustix::io::retry_on_intr(|| rustix::fs::fallocate(file, flags, offset, length))?)
}

fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    Ok(rustix::fs::renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)?)
}

/// Directories are not renamed: nobody needs it, and what a power cut leaves of it is hard to say.
fn rename_file(from: &Path, to: &Path) -> io::Result<()> {
    if fs::symlink_metadata(from)?.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    fs::rename(from, to)
}

fn not_open() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "file is not open")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn disk() -> (tempfile::TempDir, RealDisk) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let disk = RealDisk::open(&directory.path().join("data")).expect("opens");
        (directory, disk)
    }

    fn opened(disk: &RealDisk, name: &str) -> FileId {
        match disk.perform(Io::Open { name: name.into(), create: true }) {
            Ok(IoOutput::Opened { file, .. }) => file,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn bytes_survive_closing_renaming_and_listing() {
        let (_directory, disk) = disk();
        disk.perform(Io::CreateDir { name: "a/b".into() }).expect("creates");
        let file = opened(&disk, "a/b/x");
        disk.perform(Io::Write { file, offset: 5, bytes: Bytes::from_static(b"hello") }).expect("writes");
        disk.perform(Io::Sync { file }).expect("syncs");
        disk.perform(Io::Close { file }).expect("closes");
        assert!(disk.perform(Io::Sync { file }).is_err(), "a closed id is dead");
        disk.perform(Io::Rename { from: "a/b/x".into(), to: "a/y".into() }).expect("renames");
        disk.perform(Io::SyncDir { directory: "a".into() }).expect("syncs");
        disk.perform(Io::SyncDir { directory: String::new() }).expect("syncs");
        let names = disk.perform(Io::List { directory: "a".into() }).expect("lists");
        assert_eq!(names, IoOutput::Names(vec!["b".into(), "y".into()]));
        let file = opened(&disk, "a/y");
        let read = disk.perform(Io::Read { file, offset: 3, length: 7 }).expect("reads");
        assert_eq!(read, IoOutput::Read(Bytes::from_static(b"\0\0hello")));
        disk.perform(Io::Remove { name: "a/y".into() }).expect("removes");
        let missing = disk.perform(Io::Open { name: "a/y".into(), create: false });
        assert_eq!(missing.map_err(|e| e.kind()), Err(io::ErrorKind::NotFound));
    }

    #[test]
    fn a_read_past_the_end_fails_without_taking_the_memory() {
        let (_directory, disk) = disk();
        let file = opened(&disk, "x");
        for length in [1, usize::MAX / 2] {
            let read = disk.perform(Io::Read { file, offset: 0, length });
            assert_eq!(read.map_err(|e| e.kind()), Err(io::ErrorKind::UnexpectedEof));
        }
    }

    /// File systems that cannot tell say nothing, so that only a wrong answer can be told from a right one.
    #[test]
    fn what_is_in_memory_is_read_at_once_or_not_at_all() {
        let (_directory, disk) = disk();
        let file = opened(&disk, "x");
        disk.perform(Io::Write { file, offset: 0, bytes: Bytes::from_static(b"0123456789") }).expect("writes");
        assert!(disk.read_cached(file, 2, 3).is_none_or(|bytes| bytes == "234"));
        assert_eq!(disk.read_cached(file, 8, 3), None, "not so much is there");
        assert_eq!(disk.read_cached(file, 0, usize::MAX / 2), None, "no memory is taken for that");
        disk.perform(Io::Close { file }).expect("closes");
        assert_eq!(disk.read_cached(file, 2, 3), None, "a closed id is dead");
    }

    #[test]
    fn space_is_reserved_and_given_back() {
        let (_directory, disk) = disk();
        let file = opened(&disk, "x");
        disk.perform(Io::Allocate { file, offset: 0, length: 1 << 20 }).expect("allocates");
        let stat = disk.perform(Io::Stat { file }).expect("stats");
        assert!(matches!(stat, IoOutput::Stat { length: 0x10_0000, allocated: 0x10_0000.. }), "{stat:?}");
        disk.perform(Io::PunchHole { file, offset: 0, length: 1 << 20 }).expect("punches");
        let stat = disk.perform(Io::Stat { file }).expect("stats");
        assert!(matches!(stat, IoOutput::Stat { length: 0x10_0000, allocated: ..0x1_0000 }), "{stat:?}");
        disk.perform(Io::Truncate { file, length: 10 }).expect("truncates");
        assert!(matches!(disk.perform(Io::Stat { file }), Ok(IoOutput::Stat { length: 10, .. })));
    }

    #[test]
    fn names_outside_are_refused_and_the_directory_is_private() {
        let (directory, disk) = disk();
        for name in ["../x", "/tmp/x", "a/../../x"] {
            let open = disk.perform(Io::Open { name: name.into(), create: true });
            assert_eq!(open.map_err(|e| e.kind()), Err(io::ErrorKind::InvalidInput));
        }
        let mode = fs::metadata(directory.path().join("data")).expect("is there").permissions().mode();
        assert_eq!(mode & 0o777, DIRECTORY_MODE);
    }

    #[test]
    fn one_holder_at_a_time() {
        let (directory, disk) = disk();
        let lock = disk.lock().expect("locks");
        let second = RealDisk::open(&directory.path().join("data")).expect("opens");
        let error = second.lock().expect_err("held");
        assert!(matches!(error, LockError::Held { .. }));
        assert!(error.to_string().ends_with("is in use by another process"), "{error}");
        drop(lock);
        assert!(second.lock().is_ok());
    }
}
