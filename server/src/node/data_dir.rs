//! Whose directory it is: ours, of another process, or of etcd.

use std::path::Path;
use std::sync::Arc;

use basalt_storage::disk::{DirectoryLock, Disk, Io, IoOutput, RealDisk};
use basalt_storage::import::{Marker, NameKind, name_kind};
use basalt_storage::mvcc::shard_map::ShardMap;
use rand::rngs::StdRng;
use time::OffsetDateTime;
use time::macros::format_description;
use tracing::info;

use super::start::StartError;
use crate::import::{DATABASE_NAME, ImportFailure, MEMBER_FILE, Takeover, is_segment_name, write_member_file};

/// Opens a directory that is not locked: the log's, if it lies elsewhere.
///
/// # Errors
/// [`StartError`]; nothing was written.
pub(super) fn open_directory(directory: &Path) -> Result<Arc<dyn Disk>, StartError> {
    if directory.join(MEMBER_FILE).is_dir() {
        return Err(StartError::EtcdDataInWalDir { directory: directory.to_owned() });
    }
    let failed = |cause| StartError::Directory { doing: "open", directory: directory.to_owned(), cause };
    Ok(Arc::new(RealDisk::open(directory).map_err(failed)?))
}

/// Refuses a directory with the log of an etcd whose data is not there: a start would be an empty one.
///
/// # Errors
/// [`StartError::EtcdDataInWalDir`].
pub(super) fn refuse_etcd_log(disk: &dyn Disk, directory: &Path) -> Result<(), StartError> {
    let failed = |cause| StartError::Directory { doing: "list", directory: directory.to_owned(), cause };
    match disk.perform(Io::List { directory: String::new() }).map_err(failed)? {
        IoOutput::Names(names) if names.iter().any(|name| is_segment_name(name)) => {
            Err(StartError::EtcdDataInWalDir { directory: directory.to_owned() })
        }
        _ => Ok(()),
    }
}

/// Opens the data directory, locks it and makes it known as ours. What `etcdutl snapshot restore` wrote there becomes
/// ours first; its log may lie in `wal_dir`.
///
/// # Errors
/// [`StartError`]; nothing was lost.
pub(super) fn open_data_dir(
    directory: &Path,
    wal_dir: Option<&Path>,
    shard_map: &ShardMap,
    seeds: &mut StdRng,
) -> Result<(Arc<dyn Disk>, DirectoryLock), StartError> {
    let failed = |doing| move |cause| StartError::Directory { doing, directory: directory.to_owned(), cause };
    // What is not ours is not opened: that would make the directory, or its lock.
    let is_etcds = directory.join(MEMBER_FILE).is_dir();
    let log_disk = match wal_dir {
        Some(wal_dir) if is_etcds && wal_dir.starts_with(directory.join(MEMBER_FILE)) => {
            return Err(cannot_take_over(directory)(ImportFailure::LogInside));
        }
        Some(wal_dir) if is_etcds && wal_dir.is_dir() => Some(open_directory(wal_dir)?),
        _ => None,
    };
    let disk = Arc::new(RealDisk::open(directory).map_err(failed("open"))?);
    let takeover = Takeover { disk: &*disk, log_disk: log_disk.as_deref(), shard_map };
    if is_etcds {
        takeover.check().map_err(cannot_take_over(directory))?;
    }
    let lock = disk.lock().map_err(|cause| StartError::Locked { directory: directory.to_owned(), cause })?;
    match name_kind(&*disk, MEMBER_FILE).map_err(failed("look into"))? {
        NameKind::Directory => take_over(&takeover, &disk, directory, seeds)?,
        NameKind::Absent if Marker::is_set(&*disk).map_err(failed("look into"))? => {
            return Err(StartError::UnfinishedRestore { directory: directory.to_owned() });
        }
        // Written before anything else, so that etcd never finds a directory of ours without it.
        NameKind::Absent | NameKind::File => write_member_file(&*disk).map_err(failed("write"))?,
    }
    if Marker::is_set(&*disk).map_err(failed("look into"))? {
        // The import was whole: `member` says so.
        Marker::remove(&*disk).map_err(failed("write"))?;
    }
    Ok((disk, lock))
}

fn cannot_take_over(directory: &Path) -> impl Fn(ImportFailure) -> StartError + '_ {
    |cause| StartError::EtcdData { directory: directory.to_owned(), cause: Box::new(cause) }
}

fn take_over(takeover: &Takeover<'_>, disk: &RealDisk, directory: &Path, seeds: &mut StdRng) -> Result<(), StartError> {
    let etcd_lock = disk.lock_file(DATABASE_NAME);
    let _etcd_lock = etcd_lock.map_err(|cause| StartError::Locked { directory: directory.to_owned(), cause })?;
    info!("taking over the data that etcdutl restored here");
    let mut report = |read: basalt_storage::import::Revisions| {
        info!(revisions = read.entries, bytes = read.bytes, "taking over");
    };
    let taken = takeover.run(&time_name(), seeds, &mut report).map_err(cannot_take_over(directory))?;
    info!(
        cluster_id = format_args!("{:x}", taken.log.cluster_id),
        member_id = format_args!("{:x}", taken.log.member_id),
        revision = taken.imported.revision,
        compact_revision = taken.imported.compact_revision,
        revisions = taken.imported.revisions,
        leases = taken.imported.leases,
        old_tree = taken.old_tree,
        "took over data of etcd"
    );
    Ok(())
}

/// The time as a part of a file's name.
fn time_name() -> String {
    let format = format_description!("[year][month][day]T[hour][minute][second]Z");
    OffsetDateTime::now_utc().format(format).unwrap_or_default()
}
