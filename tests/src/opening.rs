//! Opening a simulated data directory: what `basalt_server::node::start` does on a real one, without its threads, its
//! lock and its `member` file. Kept in step with it by hand.

use std::sync::Arc;

use basalt_server::node::core::Append;
use basalt_server::node::log_store::LogStore;
use basalt_storage::checkpoint::recovery::{self, Birth, Opened};
use basalt_storage::checkpoint::{Checkpointer, Salt};
use basalt_storage::disk::SimulatedDisk;
use basalt_storage::job::{BUDGET_UNLIMITED, run};
use basalt_storage::mvcc::shard_map::ShardMap;
use basalt_storage::mvcc::store::Store;
use basalt_storage::pages::PageCache;
use basalt_storage::wal::{
    Entry as LogRecord, HardState as LogHardState, Identity, Log, LogOptions, Record, Recovered,
};
use basalt_storage::wal::{Recovery, WalError};
use bytes::Bytes;
use prost::Message;
use raft::prelude::{ConfState, Entry, HardState};
use rand::Rng;
use rand::rngs::StdRng;

use crate::background::{PowerLost, power_lost};

/// The member of all simulated nodes.
pub const MEMBER_ID: u64 = 7;
const CLUSTER_ID: u64 = 11;

/// Small, so that a short run has many segments.
const LOG_OPTIONS: LogOptions = LogOptions { segment_bytes: 24 << 10, first_segment_bytes: 16 << 10 };

/// A few pages, so that reads reach the disk.
const CACHE_BYTES: usize = 64 << 10;

/// Raft's configuration as stored (field numbers of eraftpb.ConfState).
#[derive(Clone, PartialEq, Message)]
struct ConfStateRecord {
    #[prost(uint64, repeated, tag = "1")]
    voters: Vec<u64>,
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
}

/// Opens the data directory, or makes it.
///
/// # Errors
/// [`PowerLost`] when the disk is stopped on the way.
///
/// # Panics
/// When what is on the disk is refused.
pub fn open(disk: &SimulatedDisk, seeds: &mut StdRng) -> Result<Parts, PowerLost> {
    let Opened { store, mut checkpointer, .. } = open_store(disk, seeds)?;
    let recovered = open_log(disk, &checkpointer, seeds.random())?;
    recovery::settle(disk, &mut checkpointer).map_err(|error| power_lost(disk, "settling the store", &error))?;
    let log_store = log_store(&recovered, &checkpointer.manifest().conf_state, store.applied.index);
    Ok(Parts { store, checkpointer, log: recovered.log, log_store })
}

/// An empty store on a disk of its own.
pub fn empty_store() -> Store {
    let (disk, cache) = (SimulatedDisk::new(0), Arc::new(PageCache::new(CACHE_BYTES)));
    recovery::create(&disk, &cache, Salt::new(0), birth(0)).expect("the disk does not fail").store
}

fn birth(incarnation: u128) -> Birth {
    Birth {
        cluster_id: CLUSTER_ID,
        member_id: MEMBER_ID,
        incarnation,
        conf_state: ConfStateRecord { voters: vec![MEMBER_ID] }.encode_to_vec(),
        shard_map: ShardMap::default(),
    }
}

fn open_store(disk: &SimulatedDisk, seeds: &mut StdRng) -> Result<Opened, PowerLost> {
    let cache = Arc::new(PageCache::new(CACHE_BYTES));
    let opened = recovery::open(disk, &cache, Salt::new(seeds.random()));
    if let Some(opened) = opened.map_err(|error| power_lost(disk, "opening the store", &error))? {
        return Ok(opened);
    }
    let created = recovery::create(disk, &cache, Salt::new(seeds.random()), birth(seeds.random()));
    created.map_err(|error| power_lost(disk, "making the store", &error))
}

fn open_log(disk: &SimulatedDisk, checkpointer: &Checkpointer, salt_seed: u64) -> Result<Recovered, PowerLost> {
    let manifest = checkpointer.manifest();
    let identity =
        Identity { cluster: manifest.cluster_id, member: manifest.member_id, incarnation: manifest.incarnation };
    let recovered = match run(&mut Recovery::new(Some(identity), LOG_OPTIONS, salt_seed), disk, BUDGET_UNLIMITED) {
        Err(WalError::NotCreated) if manifest.generation == recovery::GENERATION_WITHOUT_LOG => {
            run(&mut Log::create(identity, LOG_OPTIONS, salt_seed), disk, BUDGET_UNLIMITED)
        }
        other => other,
    };
    let recovered = recovered.map_err(|error| power_lost(disk, "opening the log", &error))?;
    let (known, found) = (recovered.newest_manifest_generation, manifest.generation);
    assert!(known <= found, "manifest {known} was durable, {found} was found");
    let (before, applied) = (recovered.previous_index, manifest.applied_index);
    assert!(before <= applied, "the log begins after {before}, the checkpoint ends at {applied}");
    Ok(recovered)
}

fn log_store(recovered: &Recovered, conf_state: &[u8], applied: u64) -> LogStore {
    let entry = |entry: &LogRecord| Entry {
        index: entry.index,
        term: entry.term,
        entry_type: i32::from(entry.kind),
        data: entry.data.to_vec(),
        ..Entry::default()
    };
    let state = &recovered.hard_state;
    let hard_state = HardState { term: state.term, vote: state.vote, commit: state.commit.max(applied) };
    let record = ConfStateRecord::decode(conf_state).expect("the manifest holds what the birth wrote");
    let conf_state = ConfState { voters: record.voters, ..ConfState::default() };
    let before = (recovered.previous_index, recovered.previous_term);
    LogStore::new(before, recovered.entries.iter().map(entry).collect(), hard_state, conf_state)
}

/// An append in the log's words, as the log thread says it.
pub fn records(append: Append, last_index: u64) -> Vec<Record> {
    let first = append.entries.first().map(|entry| entry.index);
    let cut = first.filter(|first| *first <= last_index).map(|index| Record::TruncateFrom { index });
    let hard_state = append
        .hard_state
        .map(|state| Record::HardState(LogHardState { term: state.term, vote: state.vote, commit: state.commit }));
    let entries = append.entries.into_iter().map(|entry| {
        let kind = u8::try_from(entry.entry_type).expect("raft has three entry types");
        Record::Entry(LogRecord { index: entry.index, term: entry.term, kind, data: Bytes::from(entry.data) })
    });
    cut.into_iter().chain(entries).chain(hard_state).collect()
}
