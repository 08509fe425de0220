//! The receiving side: chunks become fresh files beside those of the store that goes on meanwhile.

use std::sync::Arc;

use basalt_proto::snapshot::chunk::Kind;
use basalt_proto::snapshot::{Chunk, Head, Record, Revision as WireRevision, Shard};
use basalt_storage::checkpoint::manifest::{MEMBERSHIP_BYTES_MAX, Manifest, ShardManifest};
use basalt_storage::checkpoint::recovery::{Birth, RecoveryError};
use basalt_storage::checkpoint::{Figures, FillError, Filled, Filling, Salt};
use basalt_storage::disk::Disk;
use basalt_storage::mvcc::effect_sum::EffectSum;
use basalt_storage::mvcc::shard_map::{ShardMap, ShardSpec};
use basalt_storage::mvcc::system::{Table, split_key};
use basalt_storage::mvcc::view::LogPosition;
use basalt_storage::pages::PageCache;
use basalt_storage::planted::{Bug, is_planted};
use basalt_storage::revision::Revision;
use bytes::Bytes;
use prost::Message;
use raft::prelude::Snapshot;
use thiserror::Error;

use super::FORMAT_VERSION;
use crate::apply::auth::bounds::ALL_BYTES_MAX;
use crate::apply::auth::state::AuthRecord;
use crate::apply::downgrade::Downgrade;
use crate::apply::machine::APPLY_VERSION;
use crate::apply::members::Members;

/// Pages that writing keeps: those it has just written are never read again.
const PAGE_CACHE_BYTES: usize = 8 << 20;
/// Bytes that all records may have: over a hundred million leases, which is more than the other member holds in memory.
const RECORD_BYTES_MAX: usize = 4 << 30;
const _: () = assert!(ALL_BYTES_MAX <= RECORD_BYTES_MAX / 4, "users and roles leave room for leases");

/// Why a snapshot of another member is not taken. Nothing of it counts.
#[derive(Debug, Error)]
pub enum ReceiveError {
    /// It is of another cluster.
    #[error("it is of cluster {found:x}; this member belongs to {own:x}")]
    Cluster {
        /// Ours.
        own: u64,
        /// Its.
        found: u64,
    },
    /// A newer release made it.
    #[error("it is in format {found}, this release knows {FORMAT_VERSION}: upgrade this member")]
    Newer {
        /// Its version.
        found: u32,
    },
    /// Keys are split differently there.
    #[error("its shards are {found:?}, those of this member {own:?}: members of a cluster have the same")]
    Shards {
        /// Ours.
        own: String,
        /// Its.
        found: String,
    },
    /// It says what cannot be.
    #[error("{0}")]
    Impossible(&'static str),
    /// It is another than was announced.
    #[error("it is of log entry {found}, announced was {announced}")]
    Another {
        /// By Raft.
        announced: u64,
        /// In its head.
        found: u64,
    },
    /// The files cannot be written, or a revision cannot be stored.
    #[error(transparent)]
    Fill(#[from] FillError),
}

/// What a receiver is and expects.
pub struct Expected<'a> {
    /// The last durable manifest.
    pub live: &'a Manifest,
    /// What Raft was told of the snapshot.
    pub announced: &'a Snapshot,
    /// Of salts.
    pub seed: u64,
}

/// A snapshot that arrives. Every call is to be given the same disk.
pub struct Receiving {
    head: Head,
    applied: LogPosition,
    filling: Filling,
    record_bytes: usize,
    /// In this stream.
    revisions: u64,
    is_whole: bool,
}

impl Receiving {
    /// Begins with the first chunk, which is the head.
    ///
    /// # Errors
    /// [`ReceiveError`].
    pub fn begin(disk: &dyn Disk, expected: &Expected<'_>, chunk: Bytes) -> Result<Self, ReceiveError> {
        let head = read_head(chunk)?;
        let Expected { live, announced, seed } = expected;
        if head.cluster_id != live.cluster_id {
            return Err(ReceiveError::Cluster { own: live.cluster_id, found: head.cluster_id });
        }
        let metadata = announced.get_metadata();
        if (head.index, head.term) != (metadata.index, metadata.term) {
            return Err(ReceiveError::Another { announced: metadata.index, found: head.index });
        }
        let members = Members::decode(&head.members);
        let members = members.map_err(|_| ReceiveError::Impossible("its members cannot be read"))?;
        if head.members.len() > MEMBERSHIP_BYTES_MAX {
            return Err(ReceiveError::Impossible("its members take more room than a manifest has"));
        }
        if members.apply_version() > APPLY_VERSION {
            return Err(ReceiveError::Impossible(
                "all members apply by newer rules than this release knows: update it",
            ));
        }
        if members.conf_state() != *metadata.get_conf_state() {
            return Err(ReceiveError::Impossible("its members are not those that were announced"));
        }
        let own: Vec<ShardSpec> = live.shards.iter().map(own_shard).collect();
        let found: Vec<ShardSpec> = head.shards.iter().map(found_shard).collect();
        if own != found {
            return Err(ReceiveError::Shards { own: names(&own), found: names(&found) });
        }
        if head.compact_revision > head.revision || head.revision < 1 || head.revision == i64::MAX {
            return Err(ReceiveError::Impossible("its revisions cannot be"));
        }
        let birth = Birth {
            cluster_id: live.cluster_id,
            member_id: live.member_id,
            incarnation: live.incarnation,
            conf_state: head.members.to_vec(),
            shard_map: ShardMap::new(own),
        };
        let cache = Arc::new(PageCache::new(PAGE_CACHE_BYTES));
        let filling = Filling::begin_beside(disk, &cache, Salt::new(*seed), live, birth)?;
        let applied = LogPosition { index: head.index, term: head.term };
        Ok(Self { head, applied, filling, record_bytes: 0, revisions: 0, is_whole: false })
    }

    /// The last entry that is in the snapshot.
    pub fn applied(&self) -> LogPosition {
        self.applied
    }

    /// The last revision that arrived; `None` before the first.
    pub fn last(&self) -> Option<Revision> {
        Some(self.filling.last()).filter(|last| *last != Revision::default())
    }

    /// Goes on with the first chunk of another stream of the same snapshot, which sends what is above [`Self::last`].
    ///
    /// # Errors
    /// [`ReceiveError`].
    pub fn go_on(&mut self, chunk: Bytes) -> Result<(), ReceiveError> {
        if read_head(chunk)? != self.head {
            return Err(ReceiveError::Impossible("another snapshot under the same id"));
        }
        self.revisions = 0;
        Ok(())
    }

    /// Takes the next chunk; says whether it was the last.
    ///
    /// # Errors
    /// [`ReceiveError`].
    pub fn take(&mut self, disk: &dyn Disk, chunk: Bytes) -> Result<bool, ReceiveError> {
        if self.is_whole {
            return Err(ReceiveError::Impossible("a chunk behind the end"));
        }
        match read(chunk)? {
            Kind::Head(_) => return Err(ReceiveError::Impossible("a second head")),
            Kind::Records(records) => records.records.into_iter().try_for_each(|record| self.record(record))?,
            Kind::Revisions(revisions) => {
                for revision in revisions.revisions {
                    self.revision(disk, &revision)?;
                }
            }
            Kind::End(end) if end.revisions == self.revisions => self.is_whole = true,
            Kind::End(_) => return Err(ReceiveError::Impossible("revisions are missing")),
        }
        Ok(self.is_whole)
    }

    fn record(&mut self, record: Record) -> Result<(), ReceiveError> {
        self.record_bytes += record.key.len() + record.value.len();
        if self.record_bytes > RECORD_BYTES_MAX || self.last().is_some() {
            return Err(ReceiveError::Impossible("records that are too many, or too late"));
        }
        if !may_be_of_users(&record) {
            return Err(ReceiveError::Impossible("a record of users or roles that is none"));
        }
        if !may_be_a_downgrade(&record) {
            return Err(ReceiveError::Impossible("a downgrade that this release knows nothing of"));
        }
        if is_planted(Bug::StateWithoutUsers) && is_of_users(&record) {
            return Ok(());
        }
        let is_known = self.filling.restore_record(&record.key, Bytes::copy_from_slice(&record.value));
        if is_known { Ok(()) } else { Err(ReceiveError::Impossible("a record of no table that this release knows")) }
    }

    fn revision(&mut self, disk: &dyn Disk, wire: &WireRevision) -> Result<(), ReceiveError> {
        if wire.main > self.head.revision {
            return Err(ReceiveError::Impossible("a revision above the last"));
        }
        let revision = Revision::new(wire.main, wire.sub);
        self.filling.push_stored(disk, revision, wire.tombstone, &wire.key_value)?;
        self.revisions += 1;
        Ok(())
    }

    /// Removes what was written.
    ///
    /// # Errors
    /// The disk's; what is left, the next attempt or start removes.
    pub fn discard(self, disk: &dyn Disk) -> Result<(), RecoveryError> {
        self.filling.discard_beside(disk)
    }

    /// Writes what is left, durably; for a snapshot that arrived whole.
    ///
    /// # Errors
    /// [`ReceiveError`].
    ///
    /// # Panics
    /// If it is not whole.
    pub fn finish(self, disk: &dyn Disk) -> Result<Filled, ReceiveError> {
        assert!(self.is_whole, "a snapshot without its end");
        let Head { revision, compact_revision, time_unix_ns, shards, system_sum, .. } = self.head;
        let figures = Figures { revision, compact_revision, applied: self.applied };
        let sums = shards.iter().map(|shard| sum(&shard.sum)).collect::<Result<Vec<_>, _>>()?;
        Ok(self.filling.finish_beside(disk, figures, time_unix_ns, (sums, sum(&system_sum)?))?)
    }
}

fn read(chunk: Bytes) -> Result<Kind, ReceiveError> {
    let chunk = Chunk::decode(chunk).map_err(|_| ReceiveError::Impossible("a chunk that cannot be read"))?;
    chunk.kind.ok_or(ReceiveError::Impossible("a chunk of a kind that this release does not know"))
}

fn read_head(chunk: Bytes) -> Result<Head, ReceiveError> {
    match read(chunk)? {
        Kind::Head(head) if head.format_version > FORMAT_VERSION => {
            Err(ReceiveError::Newer { found: head.format_version })
        }
        Kind::Head(head) => {
            // All of it, before anything is written.
            head.shards
                .iter()
                .map(|shard| &shard.sum)
                .chain([&head.system_sum])
                .try_for_each(|it| sum(it).map(drop))?;
            Ok(head)
        }
        _ => Err(ReceiveError::Impossible("it does not begin with a head")),
    }
}

fn own_shard(shard: &ShardManifest) -> ShardSpec {
    ShardSpec { name: shard.name.clone(), prefixes: shard.prefixes.clone() }
}

fn found_shard(shard: &Shard) -> ShardSpec {
    ShardSpec { name: shard.name.clone(), prefixes: shard.prefixes.iter().map(|prefix| prefix.to_vec()).collect() }
}

fn names(shards: &[ShardSpec]) -> String {
    let name = |shard: &ShardSpec| {
        let prefixes: Vec<_> = shard.prefixes.iter().map(|prefix| String::from_utf8_lossy(prefix)).collect();
        format!("{}={}", shard.name, prefixes.join(","))
    };
    shards.iter().map(name).collect::<Vec<_>>().join(";")
}

fn sum(bytes: &[u8]) -> Result<EffectSum, ReceiveError> {
    let bytes = bytes.try_into().map_err(|_| ReceiveError::Impossible("a sum that is none"))?;
    Ok(EffectSum(u128::from_le_bytes(bytes)))
}

/// Whether a record is of another table than those of users and roles, or can be read as one of them: nobody is let in by
/// what cannot.
fn may_be_of_users(record: &Record) -> bool {
    match split_key(&record.key) {
        Some((table, key)) if is_table_of_users(table) => {
            let value = Some(Bytes::copy_from_slice(&record.value));
            AuthRecord { table, key, value }.is_well_formed()
        }
        _ => true,
    }
}

/// Whether a record is of something else, or a downgrade that this release can be in: it could not start with another.
fn may_be_a_downgrade(record: &Record) -> bool {
    match split_key(&record.key) {
        Some((Table::Cluster, key)) if Downgrade::is_key(&key) => {
            Downgrade::to(Some(&String::from_utf8_lossy(&record.value))).is_ok()
        }
        _ => true,
    }
}

fn is_of_users(record: &Record) -> bool {
    split_key(&record.key).is_some_and(|(table, _)| is_table_of_users(table))
}

fn is_table_of_users(table: Table) -> bool {
    matches!(table, Table::Auth | Table::AuthUser | Table::AuthRole)
}
