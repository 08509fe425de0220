//! Values of a View: from its deltas at once, from its pages through a job.

use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;

use super::range::Hit;
use super::shard_map::ShardId;
use super::shard_read_error::ShardReadError;
use super::view::View;
use crate::job::{Completions, Job, Step};
use crate::pages;
use crate::revision::Revision;

/// Why a value cannot be had. Both mean damage, not load.
#[derive(Debug, Error)]
pub enum FetchError {
    /// A page could not be read or is not what was written.
    #[error(transparent)]
    Pages(#[from] ShardReadError),
    /// The index names a revision that is stored nowhere.
    #[error("revision {}.{} of shard {shard:?} is in the index but not stored", revision.main, revision.sub)]
    NotStored {
        /// Name of the shard.
        shard: String,
        /// What is missing.
        revision: Revision,
    },
}

/// Fetches the KeyValues of hits, in their order. When nothing needs a disk the first step is
/// [`Step::Done`]; budget units are not counted.
pub struct Fetch {
    view: Arc<View>,
    hits: Vec<Hit>,
    values: Vec<Bytes>,
    /// Reads that remain, by shard, with the positions that they fill.
    pending: Vec<Pending>,
    started: bool,
}

struct Pending {
    shard: ShardId,
    positions: Vec<usize>,
    fetch: pages::Fetch,
}

impl Fetch {
    /// The values of `hits`, all of `view`.
    pub fn new(view: Arc<View>, hits: Vec<Hit>) -> Self {
        Self { values: Vec::with_capacity(hits.len()), view, hits, pending: Vec::new(), started: false }
    }

    /// Takes what is in memory and sorts the rest by shard.
    fn start(&mut self) {
        self.started = true;
        let mut missing: Vec<Vec<usize>> = vec![Vec::new(); self.view.shards.len()];
        for (position, hit) in self.hits.iter().enumerate() {
            let value = self.view.resident(*hit).unwrap_or_else(|| {
                missing[hit.shard.position()].push(position);
                Bytes::new()
            });
            self.values.push(value);
        }
        for (shard, positions) in (0u32..).map(ShardId).zip(missing) {
            if !positions.is_empty() {
                let checkpointed = &self.view.shard(shard).checkpointed;
                let revisions = positions.iter().map(|position| self.hits[*position].revision).collect();
                let fetch = checkpointed.pages.fetch(checkpointed.root.clone(), revisions);
                self.pending.push(Pending { shard, positions, fetch });
            }
        }
    }
}

fn not_stored(view: &View, hit: Hit) -> FetchError {
    let shard = view.shard_map.shards()[hit.shard.position()].name.clone();
    FetchError::NotStored { shard, revision: hit.revision }
}

impl Job for Fetch {
    type Output = Vec<Bytes>;
    type Error = FetchError;

    fn step(&mut self, mut completions: Completions, budget: usize) -> Result<Step<Vec<Bytes>>, FetchError> {
        if !self.started {
            self.start();
        }
        while let Some(pending) = self.pending.last_mut() {
            let step = pending.fetch.step(std::mem::take(&mut completions), budget);
            match step.map_err(|cause| ShardReadError::new(&self.view, pending.shard, cause))? {
                Step::Again => return Ok(Step::Again),
                Step::Submit(requests) => return Ok(Step::Submit(requests)),
                Step::Done(values) => {
                    for (position, value) in pending.positions.iter().zip(values) {
                        self.values[*position] = value.ok_or_else(|| not_stored(&self.view, self.hits[*position]))?;
                    }
                    self.pending.pop();
                }
            }
        }
        Ok(Step::Done(std::mem::take(&mut self.values)))
    }
}
