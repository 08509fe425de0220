//! `snapshot restore`: a new data directory from a snapshot.

use std::io;
use std::path::{Path, PathBuf};

use basalt_storage::checkpoint::recovery::Birth;
use basalt_storage::disk::{Disk, LockError, RealDisk};
use basalt_storage::import::{Marker, Revisions};
use basalt_storage::mvcc::view::LogPosition;
use basalt_storage::snapshot::{DigestCheck, SnapshotError, check_digest};
use rand::{Rng, SeedableRng, rngs::StdRng};
use thiserror::Error;

use super::command_line::RestoreOptions;
use crate::apply::member_bounds::MemberBound;
use crate::apply::members::Members;
use crate::config::{Bootstrap, ConfigError, FirstMember, Url};
use crate::import::{FileSource, ImportFailure, Imported, MEMBER_FILE, Target, import_database, write_member_file};
use crate::resolution::{SystemHosts, expect_advertised};

/// Where the log of a restored member stands, as after `etcdutl snapshot restore`: behind the one entry that adds it.
const RESTORED: LogPosition = LogPosition { index: 1, term: 1 };

/// Names that a directory may have before a restore: what a lock leaves, and what makefs does.
const EMPTY_NAMES: [&str; 2] = ["lock", "lost+found"];

/// Why there was no restore.
#[derive(Debug, Error)]
pub(super) enum RestoreError {
    #[error(transparent)]
    Members(#[from] ConfigError),
    #[error("the members that --initial-cluster names")]
    MembersTooLong(#[from] MemberBound),
    #[error("cannot read the snapshot {file:?}")]
    File {
        file: PathBuf,
        #[source]
        cause: io::Error,
    },
    #[error("the snapshot {file:?} cannot be read")]
    Snapshot {
        file: PathBuf,
        #[source]
        cause: SnapshotError,
    },
    #[error(
        "the snapshot {0:?} is damaged: its SHA-256 does not match the one behind it; take another, or restore it all the same \
         with --skip-hash-check"
    )]
    Digest(PathBuf),
    #[error(
        "the snapshot {0:?} carries no SHA-256: it is cut off, or was copied from a data directory; if it was copied, use \
         --skip-hash-check"
    )]
    NoDigest(PathBuf),
    #[error("{flag} {directory:?} is not empty; choose another, or move away what is there")]
    NotEmpty { flag: &'static str, directory: PathBuf },
    #[error("cannot use {directory:?}")]
    Directory {
        directory: PathBuf,
        #[source]
        cause: io::Error,
    },
    #[error("cannot use {directory:?}; stop the other process, or choose another --data-dir")]
    Locked {
        directory: PathBuf,
        #[source]
        cause: LockError,
    },
    #[error("cannot restore {file:?}; {directory:?} was not completed and does not count")]
    Import {
        file: PathBuf,
        directory: PathBuf,
        #[source]
        cause: ImportFailure,
    },
}

/// Restores; gives what to print. Where URLs of the member have to be looked up, it waits for that, and later for the disk alone.
pub(super) async fn restore(options: &RestoreOptions) -> Result<String, RestoreError> {
    let Bootstrap { cluster_id, member_id, members, .. } = bootstrap(options).await?;
    let members = Members::first(members);
    members.check()?;
    let data_dir = options.data_dir.clone().unwrap_or_else(|| PathBuf::from(format!("{}.etcd", options.name)));
    if let Some(wal_dir) = &options.wal_dir {
        expect_empty("--wal-dir", wal_dir)?;
    }
    let source = open(options)?;

    let failed = |cause| RestoreError::Directory { directory: data_dir.clone(), cause };
    if !is_interrupted(&data_dir) {
        expect_empty("--data-dir", &data_dir)?;
    }
    let disk = RealDisk::open(&data_dir).map_err(failed)?;
    let locked = |cause| RestoreError::Locked { directory: data_dir.clone(), cause };
    let _lock = disk.lock().map_err(locked)?;
    let imported = import(&disk, source, (cluster_id, member_id), &members, options)
        .map_err(|cause| RestoreError::Import { file: options.file.clone(), directory: data_dir.clone(), cause })?;
    // The file that says that the directory counts, then the mark that it does not.
    write_member_file(&disk).and_then(|()| Marker::remove(&disk)).map_err(failed)?;
    Ok(summary(options, &data_dir, (cluster_id, member_id), &imported))
}

/// Who the restored member is, under the rules for a new cluster, as with etcdutl.
async fn bootstrap(options: &RestoreOptions) -> Result<Bootstrap, ConfigError> {
    let member = FirstMember::parse(&options.name, &options.initial_cluster, &options.initial_cluster_token)?;
    let advertised = Url::parse_list(&options.initial_advertise_peer_urls)
        .map_err(|why| ConfigError::invalid(format!("--initial-advertise-peer-urls: {why}"), "correct it"))?;
    let bootstrap = member.bootstrap()?;
    expect_advertised(&SystemHosts, &options.name, &bootstrap.own_urls, &advertised).await?;
    Ok(bootstrap)
}

/// Opens the snapshot and compares its digest, as etcdutl does.
fn open(options: &RestoreOptions) -> Result<FileSource, RestoreError> {
    let file = &options.file;
    let source = FileSource::open(file).map_err(|cause| RestoreError::File { file: file.clone(), cause })?;
    if options.skip_hash_check {
        return Ok(source);
    }
    match check_digest(&source) {
        Ok(DigestCheck::Matches) => Ok(source),
        Ok(DigestCheck::Absent) => Err(RestoreError::NoDigest(file.clone())),
        Err(SnapshotError::Digest) => Err(RestoreError::Digest(file.clone())),
        Err(cause) => Err(RestoreError::Snapshot { file: file.clone(), cause }),
    }
}

fn import(
    disk: &dyn Disk,
    source: FileSource,
    (cluster_id, member_id): (u64, u64),
    members: &Members,
    options: &RestoreOptions,
) -> Result<Imported, ImportFailure> {
    let mut seeds = StdRng::from_os_rng();
    let birth = Birth {
        cluster_id,
        member_id,
        incarnation: seeds.random(),
        conf_state: members.encode().to_vec(),
        shard_map: options.initial_shards.clone(),
    };
    let raise_by = Some(options.bump_revision).filter(|amount| *amount > 0);
    let target = Target { disk, birth, applied: RESTORED, raise_by };
    let mut report = |read: Revisions| eprintln!("{} revisions, {} MiB of values", read.entries, read.bytes >> 20);
    import_database(source, target, &mut seeds, &mut report)
}

/// Whether a restore into this directory did not come to its end: it may be repeated there.
pub(super) fn is_interrupted(directory: &Path) -> bool {
    directory.join(Marker::NAME).is_file() && !directory.join(MEMBER_FILE).exists()
}

fn expect_empty(flag: &'static str, directory: &Path) -> Result<(), RestoreError> {
    let failed = |cause| RestoreError::Directory { directory: directory.to_owned(), cause };
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    for entry in entries {
        if !EMPTY_NAMES.iter().any(|name| entry.as_ref().is_ok_and(|entry| entry.file_name() == *name)) {
            return Err(RestoreError::NotEmpty { flag, directory: directory.to_owned() });
        }
    }
    Ok(())
}

fn summary(options: &RestoreOptions, data_dir: &Path, ids: (u64, u64), imported: &Imported) -> String {
    let Imported { revision, compact_revision, revisions, bytes, leases } = imported;
    let wal_dir = options.wal_dir.as_ref().map(|wal_dir| format!(" --wal-dir {}", wal_dir.display()));
    let (data_dir, wal_dir) = (data_dir.display(), wal_dir.unwrap_or_default());
    format!(
        "restored {} into {data_dir}\n\
         revision {revision}, compacted at {compact_revision}: {revisions} stored revisions, {bytes} bytes, {leases} leases\n\
         member {:x} of cluster {:x}\n\
         start it with: basalt --name {} --data-dir {data_dir}{wal_dir}\n",
        options.file.display(),
        ids.1,
        ids.0,
        options.name,
    )
}
