//! The hash over everything that a snapshot of a View would hold.

use std::sync::Arc;

use super::content_hash::{ContentHash, HashedContent};
use super::error::HashJobError;
use super::hash_kv_job::stored_length;
use crate::job::{Completions, Job, Step};
use crate::mvcc::view::View;
use crate::pages::ScannedSlot;
use crate::snapshot::{Compaction, KEY_BUCKET, Survivors, SystemTables, Table, Values, ViewSlots};

/// Hashes the content of the snapshot that [`SnapshotJob`](crate::snapshot::SnapshotJob) makes of the same View and
/// tables, from slot tables: one walk over what a compaction has yet to do, one over all; no value is read.
///
/// Memory: 16 bytes for each revision that changed an existing key between the last compaction that is in the pages and
/// the compact revision, and some thousand slots for each shard. The budget's unit is a slot.
pub struct ContentHashJob {
    view: Arc<View>,
    tables: SystemTables,
    content: HashedContent,
    slots: ViewSlots,
    pass: Pass,
}

enum Pass {
    Gather(Compaction),
    Hash(Survivors, ContentHash),
    End,
}

impl ContentHashJob {
    /// The hash of `view` with `tables`, which must be of the same log index.
    pub fn new(view: Arc<View>, tables: SystemTables, content: HashedContent) -> Self {
        let pass = Pass::Gather(Compaction::new(&view));
        let slots = Compaction::slots(&view);
        Self { view, tables, content, slots, pass }
    }

    fn take(&mut self, slots: &[ScannedSlot]) {
        match &mut self.pass {
            Pass::Gather(compaction) => slots.iter().for_each(|slot| compaction.note(slot)),
            Pass::Hash(survivors, hash) => {
                for slot in slots.iter().filter(|slot| survivors.contains(slot)) {
                    hash.slot(slot.crc32c, stored_length(slot));
                }
            }
            Pass::End => {}
        }
    }

    /// Begins the next pass, or gives the hash.
    fn end_pass(&mut self) -> Step<u32> {
        match std::mem::replace(&mut self.pass, Pass::End) {
            Pass::Gather(compaction) => {
                let mut hash = ContentHash::new(self.content);
                hash_tables(&mut hash, self.tables.iter().filter(|(name, _)| *name < KEY_BUCKET));
                hash.bucket(KEY_BUCKET.as_bytes());
                self.slots = ViewSlots::new(&self.view, 0..=self.view.revision, Values::Leave);
                self.pass = Pass::Hash(compaction.finish(), hash);
                Step::Again
            }
            Pass::Hash(_, mut hash) => {
                hash_tables(&mut hash, self.tables.iter().filter(|(name, _)| *name > KEY_BUCKET));
                Step::Done(hash.finish())
            }
            Pass::End => unreachable!("a job is not stepped after its end"),
        }
    }
}

impl Job for ContentHashJob {
    type Output = u32;
    type Error = HashJobError;

    fn step(&mut self, completions: Completions, budget: usize) -> Result<Step<u32>, HashJobError> {
        match self.slots.step(completions, budget)? {
            Step::Again => Ok(Step::Again),
            Step::Submit(requests) => Ok(Step::Submit(requests)),
            Step::Done(Some(slots)) => {
                self.take(&slots);
                Ok(Step::Again)
            }
            Step::Done(None) => Ok(self.end_pass()),
        }
    }
}

fn hash_tables<'a>(hash: &mut ContentHash, tables: impl Iterator<Item = (&'static str, &'a Table)>) {
    for (name, table) in tables {
        hash.bucket(name.as_bytes());
        table.iter().for_each(|(key, value)| hash.entry(key, value));
    }
}
