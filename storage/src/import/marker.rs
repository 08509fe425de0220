//! The mark of a directory that is being filled.

use std::io;

use crate::checkpoint::clear;
use crate::checkpoint::recovery::RecoveryError;
use crate::disk::{Disk, Io, IoOutput};

/// The file stands from before the first byte of a filling until after it counts.
///
/// A directory with it holds nothing but what may be removed, unless the file that says that it is whole (`member`, of the
/// server) stands beside it: then only this one is left to be removed.
#[derive(Clone, Copy, Debug)]
pub struct Marker;

impl Marker {
    /// Its name in the root of the directory.
    pub const NAME: &str = "importing";

    /// Whether it is there.
    ///
    /// # Errors
    /// The disk's.
    pub fn is_set(disk: &dyn Disk) -> io::Result<bool> {
        Ok(name_kind(disk, Self::NAME)? == NameKind::File)
    }

    /// Sets it, durably, and removes what an earlier attempt left.
    ///
    /// # Errors
    /// [`RecoveryError::Io`].
    pub fn set(disk: &dyn Disk) -> Result<(), RecoveryError> {
        let failed = |cause| RecoveryError::Io { doing: "making", name: Self::NAME.to_owned(), cause };
        let make = || {
            let opened = disk.perform(Io::Open { name: Self::NAME.to_owned(), create: true })?;
            let IoOutput::Opened { file, .. } = opened else { unreachable!("an open answers Opened, not {opened:?}") };
            disk.perform(Io::Close { file })?;
            sync_root(disk)
        };
        make().map_err(failed)?;
        clear(disk)
    }

    /// Removes it, durably.
    ///
    /// # Errors
    /// The disk's.
    pub fn remove(disk: &dyn Disk) -> io::Result<()> {
        disk.perform(Io::Remove { name: Self::NAME.to_owned() })?;
        sync_root(disk)
    }
}

fn sync_root(disk: &dyn Disk) -> io::Result<()> {
    disk.perform(Io::SyncDir { directory: String::new() }).map(drop)
}

/// What a name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameKind {
    /// Nothing has it.
    Absent,
    /// A file, or what is no directory.
    File,
    /// A directory.
    Directory,
}

/// What `name` in a directory of `disk` is.
///
/// # Errors
/// The disk's.
pub fn name_kind(disk: &dyn Disk, name: &str) -> io::Result<NameKind> {
    match disk.perform(Io::List { directory: name.to_owned() }) {
        Ok(_) => return Ok(NameKind::Directory),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
        Err(error) => return Err(error),
    }
    match disk.perform(Io::Open { name: name.to_owned(), create: false }) {
        Ok(IoOutput::Opened { file, .. }) => disk.perform(Io::Close { file }).map(|_| NameKind::File),
        Ok(other) => unreachable!("an open answers Opened, not {other:?}"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(NameKind::Absent),
        Err(error) => Err(error),
    }
}
