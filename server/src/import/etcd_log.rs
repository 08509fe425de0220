//! etcd's log, as far as `etcdutl snapshot restore` writes one: who the member is, and that nothing came after.
//!
//! A file is a row of frames: length (the low 56 bits; the high byte tells the padding to 8 bytes), then a record
//! {type 1, crc 2, data 3}. The CRC-32C of a record goes over the data of all records up to it. Zeros follow
//! (etcd `server/storage/wal`).

use std::io;

use basalt_proto::members::Member;
use basalt_storage::disk::{Disk, Io, IoOutput};
use prost::Message;
use serde::Deserialize;

use super::error::ImportFailure;

/// Bytes of a log that is looked at. A restore writes a few hundred for each member.
const LOG_BYTES_MAX: usize = 1 << 20;
const FRAME_BYTES: usize = 8;
const TERM_OF_RESTORE: u64 = 1;

const METADATA: i64 = 1;
const ENTRY: i64 = 2;
const HARD_STATE: i64 = 3;
const CRC: i64 = 4;
const SNAPSHOT: i64 = 5;

/// `raftpb.ConfChangeAddNode`.
const CONF_CHANGE_ADD_NODE: i32 = 0;
/// `raftpb.EntryConfChange`.
const ENTRY_CONF_CHANGE: i32 = 1;

#[derive(Clone, PartialEq, Message)]
pub(super) struct Record {
    #[prost(int64, tag = "1")]
    pub kind: i64,
    #[prost(uint32, tag = "2")]
    pub crc: u32,
    #[prost(bytes = "vec", tag = "3")]
    pub data: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Metadata {
    #[prost(uint64, tag = "1")]
    pub node_id: u64,
    #[prost(uint64, tag = "2")]
    pub cluster_id: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Entry {
    #[prost(int32, tag = "1")]
    pub kind: i32,
    #[prost(uint64, tag = "2")]
    pub term: u64,
    #[prost(uint64, tag = "3")]
    pub index: u64,
    #[prost(bytes = "vec", tag = "4")]
    pub data: Vec<u8>,
}

/// `raftpb.ConfChange`; its context is a member in JSON.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ConfChange {
    #[prost(int32, tag = "2")]
    pub kind: i32,
    #[prost(uint64, tag = "3")]
    pub node_id: u64,
    #[prost(bytes = "vec", tag = "4")]
    pub context: Vec<u8>,
}

/// Of the context, what a restore writes.
#[derive(Deserialize)]
struct Context {
    #[serde(default, rename = "peerURLs")]
    peer_urls: Vec<String>,
    #[serde(default)]
    name: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct HardState {
    #[prost(uint64, tag = "1")]
    pub term: u64,
    #[prost(uint64, tag = "3")]
    pub commit: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Snapshot {
    #[prost(uint64, tag = "1")]
    pub index: u64,
    #[prost(uint64, tag = "2")]
    pub term: u64,
}

/// What the log of a restored member says.
#[derive(Clone, Debug, PartialEq)]
pub struct EtcdLog {
    /// Id of the member.
    pub member_id: u64,
    /// Id of its cluster.
    pub cluster_id: u64,
    /// The last entry; one was written for each member.
    pub last_index: u64,
    /// Its term.
    pub last_term: u64,
    /// All members of the cluster, this one too.
    pub members: Vec<Member>,
}

/// Whether a file has a name that etcd gives a segment of its log: two numbers of 16 hexadecimal digits.
pub fn is_segment_name(name: &str) -> bool {
    let number = |digits: &str| digits.len() == 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let numbers = name.strip_suffix(".wal").and_then(|name| name.split_once('-'));
    numbers.is_some_and(|(sequence, index)| number(sequence) && number(index))
}

impl EtcdLog {
    /// Reads the log in `directory`, if there is one.
    ///
    /// # Errors
    /// [`ImportFailure::Used`] for what a restore does not write, [`ImportFailure::DamagedLog`], [`ImportFailure::Io`].
    pub fn find(disk: &dyn Disk, directory: &str) -> Result<Option<Self>, ImportFailure> {
        let names = match disk.perform(Io::List { directory: directory.to_owned() }) {
            Ok(IoOutput::Names(names)) => names,
            Ok(other) => unreachable!("a list answers Names, not {other:?}"),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Vec::new(),
            Err(cause) => return Err(ImportFailure::Io { doing: "list", name: directory.to_owned(), cause }),
        };
        let segments: Vec<_> = names.iter().filter(|name| is_segment_name(name)).collect();
        match segments[..] {
            [] => Ok(None),
            [only] => {
                let name = if directory.is_empty() { only.clone() } else { format!("{directory}/{only}") };
                let bytes = read_beginning(disk, &name).map_err(|cause| ImportFailure::Io {
                    doing: "read",
                    name: name.clone(),
                    cause,
                })?;
                Self::parse(&name, &bytes).map(Some)
            }
            _ => Err(ImportFailure::Used { sign: "its log has several segments" }),
        }
    }

    /// Reads the beginning of a segment.
    pub(super) fn parse(name: &str, bytes: &[u8]) -> Result<Self, ImportFailure> {
        let mut reading = Reading::default();
        let mut at = 0;
        while let Some(frame) = bytes.get(at..at + FRAME_BYTES) {
            let damaged = |flaw| ImportFailure::DamagedLog { name: name.to_owned(), offset: at, flaw };
            let field = u64::from_le_bytes(frame.try_into().expect("eight bytes"));
            if field == 0 {
                return reading.finish().map_err(damaged);
            }
            let length = usize::try_from(field & (u64::MAX >> 8)).unwrap_or(usize::MAX);
            let padding = if field >> 63 == 1 { (field >> 56 & 7) as usize } else { 0 };
            let end = at.checked_add(FRAME_BYTES).and_then(|start| start.checked_add(length));
            let Some(record) = end.and_then(|end| bytes.get(at + FRAME_BYTES..end)) else {
                return Err(if length < LOG_BYTES_MAX && bytes.len() < LOG_BYTES_MAX {
                    damaged("a record leaves the file")
                } else {
                    ImportFailure::Used { sign: "its log has a long record" }
                });
            };
            let record = Record::decode(record).map_err(|_| damaged("malformed record"))?;
            reading.take(&record).map_err(|problem| match problem {
                Problem::Damage(flaw) => damaged(flaw),
                Problem::Used(sign) => ImportFailure::Used { sign },
            })?;
            at += FRAME_BYTES + length + padding;
        }
        if bytes.len() >= LOG_BYTES_MAX {
            return Err(ImportFailure::Used { sign: "its log is long" });
        }
        let offset = bytes.len();
        reading.finish().map_err(|flaw| ImportFailure::DamagedLog { name: name.to_owned(), offset, flaw })
    }
}

enum Problem {
    Damage(&'static str),
    Used(&'static str),
}

/// The records so far.
#[derive(Default)]
struct Reading {
    crc: u32,
    metadata: Option<Metadata>,
    last_index: u64,
    members: Vec<Member>,
    hard_state: HardState,
    snapshot: Snapshot,
}

impl Reading {
    fn take(&mut self, record: &Record) -> Result<(), Problem> {
        let malformed = |_| Problem::Damage("malformed content of a record");
        if record.kind == CRC {
            return if record.crc == self.crc { Ok(()) } else { Err(Problem::Damage("CRC mismatch")) };
        }
        self.crc = crc32c::crc32c_append(self.crc, &record.data);
        if record.crc != self.crc {
            return Err(Problem::Damage("CRC mismatch"));
        }
        let data = record.data.as_slice();
        match record.kind {
            METADATA if self.metadata.is_none() => self.metadata = Some(Metadata::decode(data).map_err(malformed)?),
            ENTRY => self.entry(&Entry::decode(data).map_err(malformed)?)?,
            HARD_STATE => {
                self.hard_state = HardState::decode(data).map_err(malformed)?;
                if self.hard_state.term != TERM_OF_RESTORE {
                    return Err(Problem::Used("there was an election"));
                }
            }
            SNAPSHOT => {
                self.snapshot = Snapshot::decode(data).map_err(malformed)?;
                if self.snapshot.term > TERM_OF_RESTORE {
                    return Err(Problem::Used("there was an election"));
                }
            }
            METADATA => return Err(Problem::Damage("two records of metadata")),
            _ => return Err(Problem::Damage("unknown type of record")),
        }
        Ok(())
    }

    fn entry(&mut self, entry: &Entry) -> Result<(), Problem> {
        if entry.kind != ENTRY_CONF_CHANGE || entry.term != TERM_OF_RESTORE {
            return Err(Problem::Used("its log has entries of requests"));
        }
        if entry.index != self.last_index + 1 {
            return Err(Problem::Damage("entries do not follow one another"));
        }
        self.last_index = entry.index;
        let change = ConfChange::decode(&*entry.data).map_err(|_| Problem::Damage("malformed change of members"))?;
        let context = serde_json::from_slice::<Context>(&change.context);
        let context = context.map_err(|_| Problem::Damage("a change of members without a member"))?;
        if change.kind != CONF_CHANGE_ADD_NODE || self.members.iter().any(|member| member.id == change.node_id) {
            return Err(Problem::Used("its members changed"));
        }
        let Context { peer_urls, name } = context;
        self.members.push(Member { id: change.node_id, name, peer_urls, ..Member::default() });
        Ok(())
    }

    fn finish(self) -> Result<EtcdLog, &'static str> {
        let Metadata { node_id, cluster_id } = self.metadata.ok_or("no record of metadata")?;
        if node_id == 0 || cluster_id == 0 {
            return Err("ids of member and cluster are missing");
        }
        if self.last_index == 0 || self.hard_state.commit != self.last_index || self.snapshot.index != self.last_index {
            return Err("it ends before all that a restore writes");
        }
        if !self.members.iter().any(|member| member.id == node_id) {
            return Err("the member is not among those of its cluster");
        }
        let (last_index, members) = (self.last_index, self.members);
        Ok(EtcdLog { member_id: node_id, cluster_id, last_index, last_term: TERM_OF_RESTORE, members })
    }
}

fn read_beginning(disk: &dyn Disk, name: &str) -> io::Result<bytes::Bytes> {
    let opened = disk.perform(Io::Open { name: name.to_owned(), create: false })?;
    let IoOutput::Opened { file, length } = opened else { unreachable!("an open answers Opened, not {opened:?}") };
    let length = usize::try_from(length).unwrap_or(usize::MAX).min(LOG_BYTES_MAX);
    let read = disk.perform(Io::Read { file, offset: 0, length });
    disk.perform(Io::Close { file })?;
    match read? {
        IoOutput::Read(bytes) => Ok(bytes),
        other => unreachable!("a read answers Read, not {other:?}"),
    }
}
