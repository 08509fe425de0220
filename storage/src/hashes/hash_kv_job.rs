//! HashKV of a View.

use std::sync::Arc;

use super::error::HashJobError;
use super::hash_kv::{HashKv, HashKvHasher, HashPurpose, HashScope, HashSlot, Superseded};
use crate::job::{Completions, Job, Step};
use crate::mvcc::view::View;
use crate::pages::ScannedSlot;
use crate::revision::{REVISION_KEY_LEN, TOMBSTONE_KEY_LEN};
use crate::snapshot::{Values, ViewSlots};

/// Hashes the revisions of a View: two walks over its slot tables, no value is read.
///
/// The first walk begins behind the last compaction that is in the pages. The answer depends on neither checkpoints nor
/// how far a compaction is. Memory: that of [`Superseded`], and some thousand slots for each shard. The budget's unit is
/// a slot.
pub struct HashKvJob {
    view: Arc<View>,
    revision: i64,
    slots: ViewSlots,
    pass: Pass,
}

enum Pass {
    Supersede(Superseded),
    Hash(HashKvHasher),
    End,
}

impl HashKvJob {
    /// The hash at `revision`, which is resolved ([`HashKvCache::resolve`](super::HashKvCache::resolve)): neither 0 nor
    /// compacted. For a request `compact_revision` is the View's. For [`HashPurpose::Compaction`] it is the one before,
    /// and the View was taken before the first [`sweep`](crate::mvcc::store::Store::sweep) of that compaction, so
    /// that its pages lack nothing that the hash covers.
    pub fn new(view: Arc<View>, revision: i64, compact_revision: i64, purpose: HashPurpose) -> Self {
        let swept_revision = view.swept_revision.min(compact_revision);
        let scope = HashScope { revision, compact_revision, swept_revision, purpose };
        let slots = ViewSlots::new(&view, scope.to_be_noted(), Values::Leave);
        Self { view, revision, slots, pass: Pass::Supersede(Superseded::new(scope)) }
    }

    /// Revisions remembered now.
    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        match &self.pass {
            Pass::Supersede(superseded) => superseded.remembered(),
            Pass::Hash(hasher) => hasher.remembered(),
            Pass::End => 0,
        }
    }

    fn take(&mut self, slots: &[ScannedSlot]) -> Result<(), HashJobError> {
        match &mut self.pass {
            Pass::Supersede(superseded) => {
                slots.iter().for_each(|slot| superseded.note(slot.revision, slot.tombstone, slot.previous));
            }
            Pass::Hash(hasher) => slots.iter().try_for_each(|slot| hasher.push(&hash_slot(slot)))?,
            Pass::End => {}
        }
        Ok(())
    }

    /// Begins the next pass, or gives the hash.
    fn end_pass(&mut self) -> Step<HashKv> {
        match std::mem::replace(&mut self.pass, Pass::End) {
            Pass::Supersede(superseded) => {
                self.slots = ViewSlots::new(&self.view, 0..=self.revision, Values::Leave);
                self.pass = Pass::Hash(superseded.into_hasher());
                Step::Again
            }
            Pass::Hash(hasher) => Step::Done(hasher.finish()),
            Pass::End => unreachable!("a job is not stepped after its end"),
        }
    }
}

impl Job for HashKvJob {
    type Output = HashKv;
    type Error = HashJobError;

    fn step(&mut self, completions: Completions, budget: usize) -> Result<Step<HashKv>, HashJobError> {
        match self.slots.step(completions, budget)? {
            Step::Again => Ok(Step::Again),
            Step::Submit(requests) => Ok(Step::Submit(requests)),
            Step::Done(Some(slots)) => self.take(&slots).map(|()| Step::Again),
            Step::Done(None) => Ok(self.end_pass()),
        }
    }
}

fn hash_slot(slot: &ScannedSlot) -> HashSlot {
    HashSlot {
        revision: slot.revision,
        tombstone: slot.tombstone,
        previous: slot.previous,
        crc: slot.crc32c,
        length: stored_length(slot),
    }
}

/// Bytes of a slot's revision key and KeyValue. A leaf's length, head included, is below 2^32, so the sum is too.
pub(super) fn stored_length(slot: &ScannedSlot) -> u32 {
    slot.length + if slot.tombstone { TOMBSTONE_KEY_LEN } else { REVISION_KEY_LEN } as u32
}
