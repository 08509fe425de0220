//! Opening a simulated data directory: what `basalt_server::node::start` does on a real one, without its threads, its
//! lock and its `member` file.

use std::sync::Arc;
use std::time::Duration;

use basalt_proto::members::Member;
use basalt_server::apply::members::Members;
use basalt_server::node::log_store::LogStore;
use basalt_server::node::start::{self, StartError};
use basalt_storage::checkpoint::recovery::{self, Birth, Opened, RecoveryError};
use basalt_storage::checkpoint::{Checkpointer, Salt};
use basalt_storage::disk::SimulatedDisk;
use basalt_storage::mvcc::shard_map::ShardMap;
use basalt_storage::mvcc::store::Store;
use basalt_storage::mvcc::view::LogPosition;
use basalt_storage::pages::PageCache;
use basalt_storage::wal::{Log, LogOptions};
use rand::Rng;
use rand::rngs::StdRng;
use thiserror::Error;

use crate::node_sim::MemberClock;
use crate::over::{Over, over};

/// The member of all simulated nodes.
pub const MEMBER_ID: u64 = 7;
/// The cluster of all simulated nodes.
pub const CLUSTER_ID: u64 = 11;

/// Small, so that a short run has many segments.
const SEGMENT_BYTES: u64 = 24 << 10;
const FIRST_SEGMENT_BYTES: u64 = 16 << 10;

/// A few pages, so that reads reach the disk.
const CACHE_BYTES: usize = 64 << 10;

/// Who a simulated node is.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its id.
    pub member_id: u64,
    /// Who votes.
    pub voters: Vec<u64>,
    /// Whether it asks for votes before an election.
    pub pre_vote: bool,
    /// Entries that it keeps for members that lag behind.
    pub catchup_entries: u64,
    /// Whether it joins a cluster of these, of whom it knows no more than who they are.
    pub joins: bool,
    /// Length of its log's segments; small, so that a short run has many.
    pub segment_bytes: u64,
    /// How its clocks go.
    pub clock: MemberClock,
    /// Pause between records of how long a lease still lives; `None` for the server's.
    pub lease_checkpoint_interval: Option<Duration>,
    /// Whether anybody watches.
    pub is_watched: bool,
    /// Whether anybody has users.
    pub has_users: bool,
}

impl Place {
    /// The entry behind which its log begins.
    fn begins_after(&self) -> LogPosition {
        match self.voters.len() {
            1 => LogPosition::default(),
            _ if self.joins => LogPosition::default(),
            count => LogPosition { index: count as u64, term: 1 },
        }
    }
}

impl Default for Place {
    /// The only member.
    fn default() -> Self {
        Self {
            member_id: MEMBER_ID,
            voters: vec![MEMBER_ID],
            pre_vote: true,
            catchup_entries: 0,
            joins: false,
            segment_bytes: SEGMENT_BYTES,
            clock: MemberClock::default(),
            lease_checkpoint_interval: None,
            is_watched: false,
            has_users: false,
        }
    }
}

/// The parts of a recovered node.
pub struct Parts {
    /// The state of the last checkpoint.
    pub store: Store,
    /// Makes the next ones.
    pub checkpointer: Checkpointer,
    /// Writes the log.
    pub log: Log,
    /// What the log held.
    pub log_store: LogStore,
    /// The number of the data directory.
    pub incarnation: u128,
}

/// Why a directory was refused.
#[derive(Debug, Error)]
pub enum OpenError {
    /// By what stands in checkpoints.
    #[error(transparent)]
    Store(#[from] RecoveryError),
    /// By what stands in the log.
    #[error(transparent)]
    Log(#[from] StartError),
}

/// Opens the data directory, or makes it.
///
/// # Errors
/// [`Over`] when an injected fault is met on the way.
///
/// # Panics
/// When what is on the disk is refused.
pub fn open(disk: &SimulatedDisk, seeds: &mut StdRng) -> Result<Parts, Over> {
    open_as(&Place::default(), disk, seeds)
}

/// Opens the data directory of one of several members, or makes it.
///
/// # Errors
/// [`Over`] when an injected fault is met on the way.
///
/// # Panics
/// When what is on the disk is refused.
pub fn open_as(place: &Place, disk: &SimulatedDisk, seeds: &mut StdRng) -> Result<Parts, Over> {
    try_open_as(place, disk, seeds).map_err(|error| over("opening the data directory", &error))
}

/// Opens the data directory, or makes it, or says why not.
///
/// # Errors
/// [`OpenError`].
pub fn try_open(disk: &SimulatedDisk, seeds: &mut StdRng) -> Result<Parts, OpenError> {
    try_open_as(&Place::default(), disk, seeds)
}

fn try_open_as(place: &Place, disk: &SimulatedDisk, seeds: &mut StdRng) -> Result<Parts, OpenError> {
    let opened = open_store(place, disk, seeds)?;
    let options = LogOptions { segment_bytes: place.segment_bytes, first_segment_bytes: FIRST_SEGMENT_BYTES };
    let recovered = start::open_log(disk, &opened, options, seeds.random())?;
    let Opened { store, mut checkpointer, .. } = opened;
    recovery::settle(disk, &mut checkpointer)?;
    let members = Members::decode(&store.conf_state).expect("every manifest names its members");
    let log_store = start::log_store(&recovered, members.conf_state(), store.applied.index);
    let incarnation = checkpointer.manifest().incarnation;
    Ok(Parts { store, checkpointer, log: recovered.log, log_store, incarnation })
}

/// Pages of one node's files.
pub fn page_cache() -> Arc<PageCache> {
    Arc::new(PageCache::new(CACHE_BYTES))
}

/// An empty store on a disk of its own.
pub fn empty_store() -> Store {
    let (disk, cache) = (SimulatedDisk::new(0), page_cache());
    recovery::create(&disk, &cache, Salt::new(0), birth(&Place::default(), 0)).expect("the disk does not fail").store
}

fn birth(place: &Place, incarnation: u128) -> Birth {
    let member = |id: &u64| Member { id: *id, ..Member::default() };
    let mut members = Members::first(place.voters.iter().map(member).collect());
    if place.joins {
        members = Members::joining(members.membership().clone());
    }
    Birth {
        cluster_id: CLUSTER_ID,
        member_id: place.member_id,
        incarnation,
        conf_state: members.encode().to_vec(),
        shard_map: ShardMap::default(),
    }
}

fn open_store(place: &Place, disk: &SimulatedDisk, seeds: &mut StdRng) -> Result<Opened, RecoveryError> {
    let cache = page_cache();
    if let Some(opened) = recovery::open(disk, &cache, Salt::new(seeds.random()))? {
        return Ok(opened);
    }
    recovery::check_nothing_remains(disk)?;
    let birth = birth(place, seeds.random());
    recovery::create_after(disk, &cache, Salt::new(seeds.random()), birth, place.begins_after())
}
