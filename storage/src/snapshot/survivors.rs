//! What a finished compaction leaves of the stored revisions, however far this member's own one is (etcd-contract 13).
//!
//! | slot, of the compact revision C | |
//! | --- | --- |
//! | superseded by a slot up to C | dropped |
//! | tombstone below C | dropped |
//! | tombstone at C | left, for watches from C on |
//! | else | left |

use std::sync::Arc;

use super::shard_slots::Values;
use super::view_slots::ViewSlots;
use crate::mvcc::view::View;
use crate::pages::ScannedSlot;
use crate::revision::Revision;

/// Gathers which slots are superseded. A slot comes before the one that supersedes it, so that this takes a walk of its
/// own, over the slots up to the compact revision and above what pages lack already ([`View::swept_revision`]).
#[derive(Debug)]
pub(crate) struct Compaction {
    revision: i64,
    swept_revision: i64,
    superseded: Vec<Revision>,
}

/// The slots that stay. Memory: 16 bytes for each slot that changed an existing key between the last compaction whose
/// work is done and the compact revision; none while that is the same.
#[derive(Debug)]
pub(crate) struct Survivors {
    compact_revision: i64,
    superseded: Vec<Revision>,
    /// Those before were passed.
    position: usize,
}

impl Compaction {
    /// The last compaction of `view`.
    pub fn new(view: &View) -> Self {
        Self { revision: view.compact_revision, swept_revision: view.swept_revision, superseded: Vec::new() }
    }

    /// The walk that gathers.
    pub fn slots(view: &Arc<View>) -> ViewSlots {
        ViewSlots::new(view, view.swept_revision + 1..=view.compact_revision, Values::Leave)
    }

    /// Takes a slot; those outside of that walk do no harm.
    pub fn note(&mut self, slot: &ScannedSlot) {
        if slot.revision.main > self.swept_revision && slot.revision.main <= self.revision {
            self.superseded.extend(slot.previous);
        }
    }

    /// What it leaves.
    pub fn finish(mut self) -> Survivors {
        self.superseded.sort_unstable();
        Survivors { compact_revision: self.revision, superseded: self.superseded, position: 0 }
    }
}

impl Survivors {
    /// Whether `slot` stays. Slots come in ascending order, until [`Self::restart`].
    pub fn contains(&mut self, slot: &ScannedSlot) -> bool {
        while self.superseded.get(self.position).is_some_and(|superseded| *superseded < slot.revision) {
            self.position += 1;
        }
        let superseded = self.superseded.get(self.position) == Some(&slot.revision);
        let old_tombstone = slot.tombstone && slot.revision.main < self.compact_revision;
        !superseded && !old_tombstone
    }

    /// Begins another walk.
    pub fn restart(&mut self) {
        self.position = 0;
    }
}
