//! A snapshot of a View, pulled chunk by chunk.

use std::sync::Arc;

use bytes::Bytes;

use super::error::SnapshotError;
use super::shard_slots::Values;
use super::stream::{SnapshotPlan, SnapshotWriter};
use super::survivors::{Compaction, Survivors};
use super::system_tables::SystemTables;
use super::view_slots::ViewSlots;
use crate::job::{Completions, Job, Step};
use crate::mvcc::view::View;
use crate::pages::ScannedSlot;

/// Streams the bbolt file of a View: three walks over its slots, the last one with values.
///
/// ```text
///   Gather, what a compaction has yet to do ─► Plan ─► size, first chunk ─► Write ─► chunks ─► last chunk, digest
/// ```
///
/// It leaves out what a finished compaction at the View's compact revision would have dropped. Memory: the plan, some
/// 25 bytes for each 32 KiB of the file; 16 bytes for each revision that changed an existing key between the last
/// compaction that is in the pages and the compact revision; and some MiB for each shard. It holds its View, and so its pages, until it is dropped.
pub struct SnapshotJob {
    view: Arc<View>,
    slots: ViewSlots,
    pass: Pass,
    file_bytes: Option<u64>,
    digest: Option<[u8; 32]>,
}

enum Pass {
    Gather { compaction: Compaction, tables: SystemTables },
    Plan { survivors: Survivors, plan: SnapshotPlan },
    Write { survivors: Survivors, writer: SnapshotWriter },
    End,
}

impl SnapshotJob {
    /// A snapshot of `view` with `tables`, which must be of the same log index: this does not look into them.
    pub fn new(view: Arc<View>, tables: SystemTables) -> Self {
        let compaction = Compaction::new(&view);
        let slots = Compaction::slots(&view);
        Self { view, slots, pass: Pass::Gather { compaction, tables }, file_bytes: None, digest: None }
    }

    /// The job that makes the next bytes of the file, at least one; `None` at the end. It holds no state of its own: a
    /// job that drives it may ask for it anew at every step. The budget's unit is a slot.
    pub fn next_chunk(&mut self) -> NextChunk<'_> {
        NextChunk { snapshot: self }
    }

    /// Bytes of the whole file, without the digest behind it; known from the first chunk on.
    pub fn file_bytes(&self) -> Option<u64> {
        self.file_bytes
    }

    /// SHA-256 of the whole file, once its last chunk was made. A stream that failed has none and must end without.
    pub fn digest(&self) -> Option<[u8; 32]> {
        self.digest
    }

    fn step(&mut self, completions: Completions, budget: usize) -> Result<Step<Option<Vec<Bytes>>>, SnapshotError> {
        if matches!(self.pass, Pass::End) {
            return Ok(Step::Done(None));
        }
        let chunks = match self.slots.step(completions, budget)? {
            Step::Again => return Ok(Step::Again),
            Step::Submit(requests) => return Ok(Step::Submit(requests)),
            Step::Done(Some(slots)) => self.take(slots)?,
            Step::Done(None) => self.end_pass()?,
        };
        Ok(if chunks.is_empty() { Step::Again } else { Step::Done(Some(chunks)) })
    }

    fn take(&mut self, slots: Vec<ScannedSlot>) -> Result<Vec<Bytes>, SnapshotError> {
        let mut chunks = Vec::new();
        for slot in slots {
            match &mut self.pass {
                Pass::Gather { compaction, .. } => compaction.note(&slot),
                Pass::Plan { survivors, plan } => {
                    if survivors.contains(&slot) {
                        plan.push_key(slot.revision, slot.tombstone, slot.length as usize)?;
                    }
                }
                Pass::Write { survivors, writer } => {
                    if survivors.contains(&slot) {
                        let key_value = slot.key_value.expect("the last walk reads values");
                        chunks.extend(writer.push_key(slot.revision, slot.tombstone, key_value)?);
                    }
                }
                Pass::End => {}
            }
        }
        Ok(chunks)
    }

    /// Begins the next pass; gives the chunks that this makes.
    fn end_pass(&mut self) -> Result<Vec<Bytes>, SnapshotError> {
        match std::mem::replace(&mut self.pass, Pass::End) {
            Pass::Gather { compaction, tables } => {
                self.slots = ViewSlots::new(&self.view, 0..=self.view.revision, Values::Leave);
                self.pass = Pass::Plan { survivors: compaction.finish(), plan: SnapshotPlan::new(tables)? };
                Ok(Vec::new())
            }
            Pass::Plan { mut survivors, plan } => {
                let layout = plan.finish()?;
                self.file_bytes = Some(layout.file_bytes());
                let (writer, chunks) = SnapshotWriter::start(layout)?;
                survivors.restart();
                self.slots = ViewSlots::new(&self.view, 0..=self.view.revision, Values::Read);
                self.pass = Pass::Write { survivors, writer };
                Ok(chunks)
            }
            Pass::Write { writer, .. } => {
                let end = writer.finish()?;
                self.digest = Some(end.digest);
                Ok(end.chunks)
            }
            Pass::End => Ok(Vec::new()),
        }
    }
}

/// Makes the next chunks of a [`SnapshotJob`].
pub struct NextChunk<'a> {
    snapshot: &'a mut SnapshotJob,
}

impl Job for NextChunk<'_> {
    type Output = Option<Vec<Bytes>>;
    type Error = SnapshotError;

    fn step(&mut self, completions: Completions, budget: usize) -> Result<Step<Self::Output>, SnapshotError> {
        self.snapshot.step(completions, budget)
    }
}
