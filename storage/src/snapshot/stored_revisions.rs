//! Every stored revision of a View with its value: what another member is brought up with.

use std::sync::Arc;

use bytes::Bytes;

use super::error::SnapshotError;
use super::shard_slots::Values;
use super::view_slots::ViewSlots;
use crate::job::{Completions, Job, Step};
use crate::mvcc::view::View;
use crate::revision::Revision;

/// One stored revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRevision {
    /// When it was written.
    pub revision: Revision,
    /// Whether it deletes its key.
    pub tombstone: bool,
    /// Its KeyValue as it is stored; of a tombstone, one that names the key only.
    pub key_value: Bytes,
}

/// Walks the stored revisions of a View in the order they were written, without those that are marked dead. What a
/// compaction has yet to drop is among them.
///
/// Memory: for each shard some MiB. It holds its View, and so its pages, until it is dropped.
pub struct StoredRevisions {
    slots: ViewSlots,
    after: Revision,
}

impl StoredRevisions {
    /// A walk over the revisions of `view` above `after`.
    pub fn new(view: &Arc<View>, after: Revision) -> Self {
        Self { slots: ViewSlots::new(view, after.main.max(0)..=view.revision, Values::Read), after }
    }

    /// The job that finds the next ones, at least one and about as many as its budget; `None` at the end. It holds no
    /// state of its own: a job that drives it may ask for it anew at every step.
    pub fn next_revisions(&mut self) -> NextRevisions<'_> {
        NextRevisions(self)
    }
}

/// Finds the next revisions of a [`StoredRevisions`].
pub struct NextRevisions<'a>(&'a mut StoredRevisions);

impl Job for NextRevisions<'_> {
    type Output = Option<Vec<StoredRevision>>;
    type Error = SnapshotError;

    fn step(&mut self, completions: Completions, budget: usize) -> Result<Step<Self::Output>, SnapshotError> {
        let slots = match self.0.slots.step(completions, budget)? {
            Step::Again => return Ok(Step::Again),
            Step::Submit(requests) => return Ok(Step::Submit(requests)),
            Step::Done(None) => return Ok(Step::Done(None)),
            Step::Done(Some(slots)) => slots,
        };
        let after = self.0.after;
        let stored = slots.into_iter().filter(|slot| slot.revision > after).map(|slot| StoredRevision {
            revision: slot.revision,
            tombstone: slot.tombstone,
            key_value: slot.key_value.expect("the walk reads values"),
        });
        let stored: Vec<StoredRevision> = stored.collect();
        Ok(if stored.is_empty() { Step::Again } else { Step::Done(Some(stored)) })
    }
}
