//! A directory that `etcdutl snapshot restore` wrote becomes ours where it lies.

use std::io;

use basalt_storage::checkpoint::recovery::{Birth, first_remains};
use basalt_storage::disk::{Disk, Io, IoOutput};
use basalt_storage::import::{DatabaseMeta, ImportError, Marker, NameKind, Revisions, Tables, name_kind};
use basalt_storage::mvcc::shard_map::ShardMap;
use basalt_storage::mvcc::view::LogPosition;
use basalt_storage::snapshot::bbolt::{DiskSource, Reader};
use rand::{Rng, rngs::StdRng};

use super::database::{Imported, Target, import_database};
use super::error::ImportFailure;
use super::etcd_log::EtcdLog;
use crate::apply::members::Members;

/// The plain file that tells people, and genuine etcd, whose directory this is: etcd keeps a directory of that name and
/// refuses to start where it is a file (DESIGN D6).
pub const MEMBER_FILE: &str = "member";
/// What stands in it.
pub const MEMBER_TEXT: &str = "This directory holds data of basalt, not of etcd. To go back to etcd, take a snapshot with\n\
                               `etcdctl snapshot save` and restore it with `etcdutl snapshot restore`.\n";
/// etcd's database below its data directory; etcd locks it while it runs.
pub const DATABASE_NAME: &str = "member/snap/db";
const LOG_DIRECTORY: &str = "member/wal";
const IMPORTED: &str = "member.imported-";

/// The parts of a takeover. The caller holds our lock of the directory, and etcd's.
pub struct Takeover<'a> {
    /// The data directory.
    pub disk: &'a dyn Disk,
    /// The directory of `--wal-dir`, if there is one: the log may lie there.
    pub log_disk: Option<&'a dyn Disk>,
    /// How keys will be split.
    pub shard_map: &'a ShardMap,
}

/// What a takeover did.
#[derive(Clone, Debug, PartialEq)]
pub struct TakenOver {
    /// Who the member is.
    pub log: EtcdLog,
    /// What came over.
    pub imported: Imported,
    /// Where the old tree is now.
    pub old_tree: String,
}

impl Takeover<'_> {
    /// Whether the directory may be taken over; reads only.
    ///
    /// # Errors
    /// [`ImportFailure`].
    pub fn check(&self) -> Result<EtcdLog, ImportFailure> {
        self.check_alone()?;
        self.find_log()
    }

    /// Converts, exchanges `member` for the file of that name, and is done; see the room's door for what a crash leaves.
    /// `time` becomes a part of the name that the old tree gets.
    ///
    /// # Errors
    /// [`ImportFailure`]; the old tree is where it was.
    pub fn run(
        &self,
        time: &str,
        seeds: &mut StdRng,
        report: &mut dyn FnMut(Revisions),
    ) -> Result<TakenOver, ImportFailure> {
        let log = self.check()?;
        let (file, length) = open(self.disk, DATABASE_NAME).map_err(failed("open", DATABASE_NAME))?;
        let source = || DiskSource::new(self.disk, file, length);
        let reader = Reader::open(source()).map_err(ImportError::from)?;
        let meta = DatabaseMeta::read(&Tables::read(&reader)?)?;
        if meta.consistent_index < log.last_index {
            return Err(ImportFailure::Used { sign: "its log goes beyond its database" });
        }
        // etcd 3.4 stores no term.
        if meta.consistent_index > log.last_index || ![0, log.last_term].contains(&meta.term) {
            return Err(ImportFailure::Used { sign: "its database goes beyond the log of a restore" });
        }
        let members = Members::first(log.members.clone());
        members.check()?;
        let birth = Birth {
            cluster_id: log.cluster_id,
            member_id: log.member_id,
            incarnation: seeds.random(),
            conf_state: members.encode().to_vec(),
            shard_map: self.shard_map.clone(),
        };
        let applied = LogPosition { index: log.last_index, term: log.last_term };
        let target = Target { disk: self.disk, birth, applied, raise_by: None };
        let imported = import_database(source(), target, seeds, report)?;
        self.disk.perform(Io::Close { file }).map_err(failed("close", DATABASE_NAME))?;
        let old_tree = self.exchange(time)?;
        Ok(TakenOver { log, imported, old_tree })
    }

    /// Nothing of ours may lie here but what an import left that did not come to its end.
    fn check_alone(&self) -> Result<(), ImportFailure> {
        if !Marker::is_set(self.disk).map_err(failed("look at", Marker::NAME))?
            && let Some(found) = first_remains(self.disk)?
        {
            return Err(ImportFailure::BothData { found });
        }
        if let Some(found) = self.log_disk.map(first_remains).transpose()?.flatten() {
            return Err(ImportFailure::BothData { found });
        }
        Ok(())
    }

    fn find_log(&self) -> Result<EtcdLog, ImportFailure> {
        if let Some(log) = self.log_disk.map(|disk| EtcdLog::find(disk, "")).transpose()?.flatten() {
            return Ok(log);
        }
        let place = if self.log_disk.is_some() { "--wal-dir, nor in `member/wal`" } else { "`member/wal`" };
        EtcdLog::find(self.disk, LOG_DIRECTORY)?.ok_or(ImportFailure::NoLog { place: place.to_owned() })
    }

    /// The instant from which on the import counts: `member` is the plain file, and the old tree has its place.
    fn exchange(&self, time: &str) -> Result<String, ImportFailure> {
        self.remove_leftover_files()?;
        let old_tree = format!("{IMPORTED}{time}");
        write_text(self.disk, &old_tree).map_err(failed("write", &old_tree))?;
        let exchange = Io::Exchange { one: MEMBER_FILE.to_owned(), other: old_tree.clone() };
        self.disk.perform(exchange).map_err(|cause| match cause.kind() {
            io::ErrorKind::Unsupported | io::ErrorKind::InvalidInput => ImportFailure::NoExchange(cause),
            _ => ImportFailure::Io { doing: "rename", name: MEMBER_FILE.to_owned(), cause },
        })?;
        sync_root(self.disk).map_err(failed("sync", ""))?;
        Marker::remove(self.disk).map_err(failed("remove", Marker::NAME))?;
        Ok(old_tree)
    }

    /// An attempt that ended just before the exchange left its file; trees of that name are somebody's.
    fn remove_leftover_files(&self) -> Result<(), ImportFailure> {
        let listed = self.disk.perform(Io::List { directory: String::new() }).map_err(failed("list", ""))?;
        let IoOutput::Names(names) = listed else { unreachable!("a list answers Names, not {listed:?}") };
        for name in names.into_iter().filter(|name| name.starts_with(IMPORTED)) {
            if name_kind(self.disk, &name).map_err(failed("look at", &name))? == NameKind::File {
                self.disk.perform(Io::Remove { name: name.clone() }).map_err(failed("remove", &name))?;
            }
        }
        Ok(())
    }
}

fn failed<'a>(doing: &'static str, name: &'a str) -> impl FnOnce(io::Error) -> ImportFailure + 'a {
    move |cause| ImportFailure::Io { doing, name: name.to_owned(), cause }
}

/// Writes [`MEMBER_FILE`] unless it stands there.
///
/// # Errors
/// The disk's.
pub fn write_member_file(disk: &dyn Disk) -> io::Result<()> {
    write_text(disk, MEMBER_FILE)
}

fn write_text(disk: &dyn Disk, name: &str) -> io::Result<()> {
    let (file, length) = open_or_make(disk, name)?;
    if length != MEMBER_TEXT.len() as u64 {
        disk.perform(Io::Truncate { file, length: 0 })?;
        disk.perform(Io::Write { file, offset: 0, bytes: MEMBER_TEXT.into() })?;
        disk.perform(Io::Sync { file })?;
        sync_root(disk)?;
    }
    disk.perform(Io::Close { file }).map(drop)
}

fn sync_root(disk: &dyn Disk) -> io::Result<()> {
    disk.perform(Io::SyncDir { directory: String::new() }).map(drop)
}

fn open(disk: &dyn Disk, name: &str) -> io::Result<(basalt_storage::disk::FileId, u64)> {
    opened(disk.perform(Io::Open { name: name.to_owned(), create: false })?)
}

fn open_or_make(disk: &dyn Disk, name: &str) -> io::Result<(basalt_storage::disk::FileId, u64)> {
    opened(disk.perform(Io::Open { name: name.to_owned(), create: true })?)
}

fn opened(answer: IoOutput) -> io::Result<(basalt_storage::disk::FileId, u64)> {
    match answer {
        IoOutput::Opened { file, length } => Ok((file, length)),
        other => unreachable!("an open answers Opened, not {other:?}"),
    }
}
