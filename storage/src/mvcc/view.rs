//! All shards at one instant: what every read, hash and snapshot looks at (DESIGN 2, "The View").
//!
//! A View is immutable and holds what it needs: index roots, deltas and pinned page roots. Reading it takes no lock
//! and waits for nobody; a value that is in no memory comes from a [`Fetch`](super::fetch::Fetch).

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;

use super::delta::{DeltaEntry, DeltaView};
use super::key_index::IndexRoot;
use super::range::{Hit, RangePlan, RangeQuery, RevisionError};
use super::shard_map::{ShardId, ShardMap};
use crate::pages::{Pages, PinnedRoot};
use crate::revision::Revision;

/// An entry of the Raft log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogPosition {
    /// Its index, from 1; 0 before the first.
    pub index: u64,
    /// The term that wrote it.
    pub term: u64,
}

/// The checkpointed part of a shard.
#[derive(Clone)]
pub struct Checkpointed {
    /// The page file.
    pub pages: Pages,
    /// The tree in it.
    pub root: Arc<PinnedRoot>,
}

/// One shard at an instant. Revisions of `checkpointed` lie below those of `frozen`, these below those of `delta`.
#[derive(Clone)]
pub struct ShardView {
    /// Which revisions of which keys there are.
    pub index: IndexRoot,
    /// Revisions since the last freeze.
    pub delta: DeltaView,
    /// Revisions that a checkpoint is writing; empty when none runs.
    pub frozen: DeltaView,
    /// Revisions in pages.
    pub checkpointed: Checkpointed,
}

/// The store at one instant. A clone costs a few reference counts a shard.
#[derive(Clone)]
pub struct View {
    /// How keys are split.
    pub shard_map: Arc<ShardMap>,
    /// The store's revision.
    pub revision: i64,
    /// Revisions below it cannot be read; -1 before the first compaction (etcd-contract 13).
    pub compact_revision: i64,
    /// A revision, at most `compact_revision`, at which the work of a compaction is done in the pages: none holds a
    /// revision, not marked dead, that another one at or below this supersedes. -1 before the first.
    pub swept_revision: i64,
    /// The log entry whose effects are the last contained.
    pub applied: LogPosition,
    /// One for each shard of the map.
    pub shards: Vec<ShardView>,
}

impl ShardView {
    /// The entry of `revision` if it is in memory.
    pub fn resident(&self, revision: Revision) -> Option<&DeltaEntry> {
        self.delta.get(revision).or_else(|| self.frozen.get(revision))
    }

    /// Bytes of the deltas.
    pub fn delta_bytes(&self) -> usize {
        self.delta.bytes() + self.frozen.bytes()
    }
}

impl View {
    /// The revision to read at, for one that a client names: 0 or less is the latest.
    ///
    /// # Errors
    /// [`RevisionError`] when it is compacted or was not written yet.
    pub fn readable(&self, revision: i64) -> Result<i64, RevisionError> {
        if revision > self.revision {
            return Err(RevisionError::Future);
        }
        let at = if revision <= 0 { self.revision } else { revision };
        if at < self.compact_revision { Err(RevisionError::Compacted) } else { Ok(at) }
    }

    /// Names the revisions that answer `query`. Reads no page.
    ///
    /// # Errors
    /// [`RevisionError`] as [`Self::readable`].
    pub fn plan(&self, query: &RangeQuery) -> Result<RangePlan, RevisionError> {
        let at = self.readable(query.revision)?;
        let shards = self.shard_map.shards_of(&query.range);
        let count = shards.iter().map(|shard| self.shard(*shard).index.count(&query.range, at)).sum();
        if query.count_only {
            return Ok(query.planned(self.revision, count, Vec::new()));
        }
        let hits_max = query.hits_max();
        let hits = match shards[..] {
            [shard] => self.hits_of_shard(shard, query, at, hits_max),
            _ => self.hits_merged(&shards, query, at, hits_max),
        };
        Ok(query.planned(self.revision, count, hits))
    }

    /// One shard.
    pub fn shard(&self, shard: ShardId) -> &ShardView {
        &self.shards[shard.position()]
    }

    /// The value of a hit if it needs no disk.
    pub fn resident(&self, hit: Hit) -> Option<Bytes> {
        self.shard(hit.shard).resident(hit.revision).map(|entry| entry.key_value.clone())
    }

    fn hits_of_shard(&self, shard: ShardId, query: &RangeQuery, at: i64, hits_max: usize) -> Vec<Hit> {
        let mut hits = Vec::new();
        let _: ControlFlow<()> = self.shard(shard).index.scan(&query.range, at, |_, revision| {
            hits.push(Hit { shard, revision });
            if hits.len() >= hits_max { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        hits
    }

    /// Merges shards by key. Each shard contributes at most what the whole needs.
    fn hits_merged(&self, shards: &[ShardId], query: &RangeQuery, at: i64, hits_max: usize) -> Vec<Hit> {
        let mut found: Vec<(Box<[u8]>, Hit)> = Vec::new();
        for shard in shards {
            let before = found.len();
            let _: ControlFlow<()> = self.shard(*shard).index.scan(&query.range, at, |key, revision| {
                found.push((key.into(), Hit { shard: *shard, revision }));
                if found.len() - before >= hits_max { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
        }
        found.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        found.truncate(hits_max);
        found.into_iter().map(|(_, hit)| hit).collect()
    }
}
