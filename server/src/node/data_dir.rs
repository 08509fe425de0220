//! Whose directory it is: ours, of another process, or of etcd.

use std::io;
use std::path::Path;
use std::sync::Arc;

use basalt_storage::disk::{DirectoryLock, Disk, Io, IoOutput, RealDisk};

use super::start::StartError;

/// The plain file that tells people, and genuine etcd, whose directory this is: etcd keeps a directory of that name and
/// refuses to start where it is a file (DESIGN D6).
pub(super) const MEMBER_FILE: &str = "member";

/// Opens a directory that is not locked: the log's, if it lies elsewhere.
///
/// # Errors
/// [`StartError`]; nothing was written.
pub(super) fn open_directory(directory: &Path) -> Result<Arc<dyn Disk>, StartError> {
    refuse_etcd_data(directory)?;
    let disk = RealDisk::open(directory);
    let failed = |cause| StartError::Directory { doing: "open", directory: directory.to_owned(), cause };
    Ok(Arc::new(disk.map_err(failed)?))
}

/// etcd's data is a directory where we have a file. This is the one look at the data directory that is not through
/// [`Disk`]: it comes before anything is opened or made there.
fn refuse_etcd_data(directory: &Path) -> Result<(), StartError> {
    if directory.join(MEMBER_FILE).is_dir() {
        return Err(StartError::EtcdData { directory: directory.to_owned() });
    }
    Ok(())
}

/// Opens the data directory, locks it and makes it known as ours.
///
/// # Errors
/// [`StartError`]; nothing was lost.
pub(super) fn open_data_dir(directory: &Path) -> Result<(Arc<dyn Disk>, DirectoryLock), StartError> {
    refuse_etcd_data(directory)?;
    let failed = |doing| move |cause| StartError::Directory { doing, directory: directory.to_owned(), cause };
    let disk = RealDisk::open(directory).map_err(failed("open"))?;
    let lock = disk.lock().map_err(|cause| StartError::Locked { directory: directory.to_owned(), cause })?;
    let disk: Arc<dyn Disk> = Arc::new(disk);
    write_member_file(&*disk).map_err(failed("write"))?;
    Ok((disk, lock))
}

/// Written before anything else, so that etcd never finds a directory of ours without it.
fn write_member_file(disk: &dyn Disk) -> io::Result<()> {
    let text = "This directory holds data of basalt, not of etcd. To go back to etcd, take a snapshot with\n\
                `etcdctl snapshot save` and restore it with `etcdutl snapshot restore`.\n";
    let opened = disk.perform(Io::Open { name: MEMBER_FILE.to_owned(), create: true })?;
    let IoOutput::Opened { file, length } = opened else { return Ok(()) };
    if length != text.len() as u64 {
        disk.perform(Io::Truncate { file, length: 0 })?;
        disk.perform(Io::Write { file, offset: 0, bytes: text.into() })?;
        disk.perform(Io::Sync { file })?;
        disk.perform(Io::SyncDir { directory: String::new() })?;
    }
    disk.perform(Io::Close { file }).map(drop)
}
