//! The stored revisions of one shard in the order they were written: what a watch resumes from.

use std::sync::Arc;

use super::delta::DeltaEntry;
use super::shard_map::ShardId;
use super::shard_read_error::ShardReadError;
use super::view::View;
use crate::job::{Completions, Job, Step};
use crate::pages;
use crate::revision::Revision;

/// A piece of history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistoryChunk {
    /// Stored revisions, ascending.
    pub entries: Vec<DeltaEntry>,
    /// Where to go on; `None` when the wanted revisions are all there.
    pub next: Option<Revision>,
}

/// Reads up to `limit` stored revisions of a shard from `from` to `to`, both included. Dead ones are left out: above
/// the compact revision there are none.
pub struct History {
    view: Arc<View>,
    shard: ShardId,
    from: Revision,
    to: Revision,
    limit: usize,
    scan: Option<pages::Scan>,
}

impl History {
    /// A read of `shard` in `view`.
    pub fn new(view: Arc<View>, shard: ShardId, from: Revision, to: Revision, limit: usize) -> Self {
        let checkpointed = &view.shard(shard).checkpointed;
        let scan = checkpointed.pages.scan(checkpointed.root.clone(), from, to, limit, true);
        Self { view, shard, from, to, limit, scan: Some(scan) }
    }

    /// Goes on in memory where the pages end.
    fn append_resident(&self, chunk: &mut HistoryChunk) {
        let shard = self.view.shard(self.shard);
        for entry in shard.frozen.from(self.from).chain(shard.delta.from(self.from)) {
            if entry.revision > self.to {
                return;
            }
            if chunk.entries.len() >= self.limit {
                chunk.next = Some(entry.revision);
                return;
            }
            chunk.entries.push(entry.clone());
        }
    }
}

impl Job for History {
    type Output = HistoryChunk;
    type Error = ShardReadError;

    fn step(&mut self, completions: Completions, budget: usize) -> Result<Step<HistoryChunk>, ShardReadError> {
        let mut chunk = HistoryChunk::default();
        if let Some(scan) = &mut self.scan {
            let step = scan.step(completions, budget);
            let scanned = match step.map_err(|cause| ShardReadError::new(&self.view, self.shard, cause))? {
                Step::Again => return Ok(Step::Again),
                Step::Submit(requests) => return Ok(Step::Submit(requests)),
                Step::Done(scanned) => scanned,
            };
            self.scan = None;
            chunk.next = scanned.next;
            chunk.entries.extend(scanned.slots.into_iter().filter(|slot| !slot.dead).filter_map(|slot| {
                let key_value = slot.key_value?;
                Some(DeltaEntry {
                    revision: slot.revision,
                    tombstone: slot.tombstone,
                    previous: slot.previous,
                    key_value,
                })
            }));
        }
        if chunk.next.is_none() {
            self.append_resident(&mut chunk);
        }
        Ok(Step::Done(chunk))
    }
}
