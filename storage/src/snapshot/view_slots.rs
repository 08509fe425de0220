//! The stored revisions of a whole View in the order they were written: what hashes and snapshots are made of.

use std::ops::RangeInclusive;
use std::sync::Arc;

use super::shard_slots::{Advance, ShardSlots, Values};
use crate::job::{Completions, Step};
use crate::mvcc::shard_map::ShardId;
use crate::mvcc::shard_read_error::ShardReadError;
use crate::mvcc::view::View;
use crate::pages::ScannedSlot;
use crate::revision::Revision;

/// Merges the shards of a View by revision. Slots that are marked dead are left out.
///
/// Two walks over one View give the same slots. Memory: for each shard some thousand slots, with values some MiB.
pub(crate) struct ViewSlots {
    shards: Vec<ShardSlots>,
}

impl ViewSlots {
    /// A walk over these main revisions.
    pub fn new(view: &Arc<View>, mains: RangeInclusive<i64>, values: Values) -> Self {
        let (from, to) = (Revision::new(*mains.start(), 0), Revision::new(*mains.end(), i64::MAX));
        let shards = (0..).map(ShardId).take(view.shards.len());
        Self { shards: shards.map(|shard| ShardSlots::new(view.clone(), shard, from, to, values)).collect() }
    }

    /// Steps towards the next slots, as a [`Job`](crate::job::Job) whose result is at least one slot and at most
    /// `budget`, or `None` at the end; then it is stepped anew.
    ///
    /// # Errors
    /// [`ShardReadError`]: a page could not be read or is damaged. The walk is over.
    pub fn step(
        &mut self,
        completions: Completions,
        budget: usize,
    ) -> Result<Step<Option<Vec<ScannedSlot>>>, ShardReadError> {
        let mut completions = completions.into_iter();
        let mut requests = Vec::new();
        for shard in self.shards.iter_mut().filter(|shard| shard.is_starved()) {
            let answers = completions.by_ref().take(shard.requested).collect();
            shard.requested = 0;
            if let Advance::Submit(more) = shard.advance(answers, budget)? {
                shard.requested = more.len();
                requests.extend(more);
            }
        }
        assert!(completions.next().is_none(), "one completion for each request");
        if !requests.is_empty() {
            return Ok(Step::Submit(requests));
        }
        if self.is_starved() {
            return Ok(Step::Again);
        }
        let slots = self.merge(budget.max(1));
        Ok(Step::Done(Some(slots).filter(|slots| !slots.is_empty())))
    }

    /// Whether the lowest revision is not known yet.
    fn is_starved(&self) -> bool {
        self.shards.iter().any(ShardSlots::is_starved)
    }

    /// Takes up to `slots_max` slots, until a shard starves.
    fn merge(&mut self, slots_max: usize) -> Vec<ScannedSlot> {
        let mut slots = Vec::new();
        while slots.len() < slots_max && !self.is_starved() {
            let ahead = self.shards.iter_mut().filter(|shard| shard.head().is_some());
            let Some(slot) = ahead.min_by_key(|shard| shard.head()).and_then(ShardSlots::pop) else { break };
            slots.push(slot);
        }
        slots
    }
}
