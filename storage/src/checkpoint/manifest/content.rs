//! What a manifest says.

use super::codec::{FIXED_LEN, HEADER_LEN, LENGTH_LEN, SHARD_FIXED_LEN};
use super::slots::SLOT_BYTES;
use crate::checkpoint::merge_rule::RUNS_MAX;
use crate::mvcc::shard_map::ShardSpec;
use crate::mvcc::shard_map_text::{NAME_BYTES_MAX, PREFIX_BYTES_MAX, PREFIXES_MAX, SHARDS_MAX};
use crate::pages::allocator::{MAP_ROOT_LEN, TransactionId};
use crate::runs::{RUN_META_LEN, RunMeta};

/// Limit of [`ShardManifest::tree_root`].
pub const TREE_ROOT_BYTES_MAX: usize = 256;
/// Limit of [`ShardManifest::map_root`].
pub const MAP_ROOT_BYTES_MAX: usize = 64;

/// Bytes of [`Manifest::conf_state`] for which a slot has room, whatever else a manifest names. Who changes the members must
/// keep to it: a manifest that does not fit is a checkpoint that cannot be written, on every member.
pub const MEMBERSHIP_BYTES_MAX: usize = 24 << 10;

const _: () = assert!(MAP_ROOT_LEN <= MAP_ROOT_BYTES_MAX);

/// Bytes of all runs of a list.
const RUNS_LEN_MAX: usize = RUNS_MAX * RUN_META_LEN;
const SHARD_LEN_MAX: usize = SHARD_FIXED_LEN + NAME_BYTES_MAX + TREE_ROOT_BYTES_MAX + MAP_ROOT_BYTES_MAX + RUNS_LEN_MAX;
/// Of all shards together.
const PREFIXES_LEN_MAX: usize = PREFIXES_MAX * (LENGTH_LEN + PREFIX_BYTES_MAX);
/// The longest manifest.
const MANIFEST_LEN_MAX: usize =
    HEADER_LEN + FIXED_LEN + MEMBERSHIP_BYTES_MAX + RUNS_LEN_MAX + SHARDS_MAX * SHARD_LEN_MAX + PREFIXES_LEN_MAX;
const _: () = assert!(MANIFEST_LEN_MAX <= SLOT_BYTES, "a slot holds every manifest");

/// The state of a data directory at one log index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// The form that it is written in, from [`VERSION_FIRST`](super::VERSION_FIRST): a newer one only when all members of the
    /// cluster know it, so that until then an older release can go on.
    pub version: u16,
    /// Counts manifests of this directory, from 1.
    pub generation: u64,
    /// Whose directory it is; id of the cluster.
    pub cluster_id: u64,
    /// Id of the member.
    pub member_id: u64,
    /// Drawn when the directory was born.
    pub incarnation: u128,
    /// The last log entry that is in the state.
    pub applied_index: u64,
    /// Its term.
    pub applied_term: u64,
    /// The members at that entry, in their own form; at most [`MEMBERSHIP_BYTES_MAX`].
    pub conf_state: Vec<u8>,
    /// The store-wide revision at that entry.
    pub revision: i64,
    /// The last compaction of the log at or before that entry.
    pub compact_revision: i64,
    /// The last time stamp of the log, in nanoseconds since 1970; later ones are not below it.
    pub time_unix_ns: u64,
    /// Order-free sum of all effects on `system` since birth.
    pub system_sum: u128,
    /// `system`'s records: a base run and the runs on top of it.
    pub system_runs: Vec<RunMeta>,
    /// The shards, by ascending number.
    pub shards: Vec<ShardManifest>,
    /// Whether the state is another member's, and the log goes on behind its last entry: what the log holds before or
    /// instead of that counts no more.
    pub log_restarts: bool,
}

/// The state of one shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardManifest {
    /// The shard's number; what it is called may change.
    pub shard: u32,
    /// What metrics and operators call it.
    pub name: String,
    /// Keys with these prefixes are its own; none for the shard of all the rest.
    pub prefixes: Vec<Vec<u8>>,
    /// Order-free sum of all effects on it since birth.
    pub sum: u128,
    /// The number in its page file's name.
    pub page_file: u64,
    /// The transaction of the page file that this is.
    pub transaction: TransactionId,
    /// The root of its page tree, in the tree's own form; at most [`TREE_ROOT_BYTES_MAX`].
    pub tree_root: Vec<u8>,
    /// The root of its free-page map, in the allocator's form; at most [`MAP_ROOT_BYTES_MAX`].
    pub map_root: Vec<u8>,
    /// Its key index: a base run and the runs on top of it, oldest first.
    pub index_runs: Vec<RunMeta>,
    /// Stored bytes of its revisions that are not marked dead.
    pub live_bytes: u64,
    /// Revisions in its page tree.
    pub entries: u64,
}

impl ShardManifest {
    /// Which keys are its own.
    pub fn spec(&self) -> ShardSpec {
        ShardSpec { name: self.name.clone(), prefixes: self.prefixes.clone() }
    }
}

impl Manifest {
    /// All runs that it names.
    pub fn runs(&self) -> impl Iterator<Item = &RunMeta> {
        self.shards.iter().flat_map(|shard| &shard.index_runs).chain(&self.system_runs)
    }

    /// What every manifest fulfils, written or read.
    ///
    /// # Errors
    /// What does not hold.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        if self.generation == 0 {
            return Err("generation 0");
        }
        if self.compact_revision > self.revision {
            return Err("compacted above the revision");
        }
        if !self.shards.is_sorted_by(|one, other| one.shard < other.shard) {
            return Err("shards do not ascend");
        }
        if self.shards.iter().any(|shard| shard.tree_root.len() > TREE_ROOT_BYTES_MAX) {
            return Err("a tree root is too long");
        }
        if self.shards.iter().any(|shard| shard.map_root.len() > MAP_ROOT_BYTES_MAX) {
            return Err("a map root is too long");
        }
        Ok(())
    }
}
