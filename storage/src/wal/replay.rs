//! What the batches of all segments, in order, amount to.

use super::batch::Batch;
use super::error::WalError;
use super::record::{Entry, HardState, StoredRecord};
use super::segment_head::{Identity, Position};
use super::segment_scan::BegunSegment;
use super::term_runs::{Misplaced, TermRuns};

/// A begun segment that will not be written again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClosedSegment {
    pub(super) sequence: u64,
    /// Length of its file.
    pub(super) length: u64,
    /// No entry in it has a higher index, nor has the one before its first.
    pub(super) index_max: u64,
}

/// A copy of the newest valid batch, to be written again.
#[derive(Debug)]
pub(super) struct LastBatch {
    pub(super) number: u64,
    pub(super) manifest_generation: u64,
    pub(super) record_count: u32,
    pub(super) records: Vec<u8>,
    /// Highest index of its entries, 0 without any.
    pub(super) index_max: u64,
    /// The log before it.
    pub(super) before: Position,
}

/// Where the batches of a segment end.
#[derive(Clone, Copy, Debug)]
pub(super) struct SegmentEnd {
    pub(super) segment: u64,
    pub(super) offset: u64,
    pub(super) torn: bool,
}

/// The state of the log after the segments seen so far, at least one.
///
/// Invariant: `entries` are those between the base and the last of `terms`, without a gap.
#[derive(Debug)]
pub(super) struct Replay {
    pub(super) identity: Identity,
    pub(super) hard_state: HardState,
    pub(super) terms: TermRuns,
    pub(super) entries: Vec<Entry>,
    pub(super) manifest_generation: u64,
    /// Number of the batch that would come next.
    pub(super) next_batch: u64,
    pub(super) last_batch: Option<LastBatch>,
    pub(super) closed: Vec<ClosedSegment>,
    pub(super) end: SegmentEnd,
}

impl Replay {
    /// The log before the first batch of the oldest begun segment.
    pub(super) fn before(segment: &BegunSegment<'_>) -> Self {
        let head = &segment.head;
        Self {
            identity: head.identity,
            hard_state: head.position.hard_state,
            terms: TermRuns::after(head.position.last_index, head.position.last_term),
            entries: Vec::new(),
            manifest_generation: 0,
            next_batch: head.first_batch,
            last_batch: None,
            closed: Vec::new(),
            end: SegmentEnd { segment: head.sequence, offset: 0, torn: false },
        }
    }

    /// Takes in the next segment, whose file has `length` bytes. Batches that an earlier one had already, because
    /// a start copied them, are passed over.
    ///
    /// # Errors
    /// [`WalError::ForeignIdentity`], and [`WalError::Corrupt`] when a batch is missing before this segment: its
    /// head was written after that batch was durable.
    pub(super) fn segment(&mut self, segment: &BegunSegment<'_>, length: u64) -> Result<(), WalError> {
        let head = &segment.head;
        if head.identity != self.identity {
            return Err(WalError::ForeignIdentity { found: head.identity, expected: self.identity });
        }
        if head.first_batch > self.next_batch {
            let SegmentEnd { segment, offset, .. } = self.end;
            return Err(WalError::Corrupt {
                segment,
                offset,
                reason: "a later segment exists, batches before it do not",
            });
        }
        if head.first_batch == self.next_batch && head.position != self.position() {
            let reason = "segment head contradicts the log before it";
            return Err(WalError::Corrupt { segment: head.sequence, offset: 0, reason });
        }
        let mut index_max = head.position.last_index;
        for batch in &segment.batches {
            index_max = index_max.max(self.batch(batch)?);
        }
        self.closed.push(ClosedSegment { sequence: head.sequence, length, index_max });
        self.end = SegmentEnd { segment: head.sequence, offset: segment.end as u64, torn: segment.torn };
        Ok(())
    }

    pub(super) fn position(&self) -> Position {
        let (last_index, last_term) = self.terms.last();
        Position { hard_state: self.hard_state, last_index, last_term }
    }

    /// Applies a batch unless it is known; returns the highest index in it.
    fn batch(&mut self, batch: &Batch<'_>) -> Result<u64, WalError> {
        let corrupt = |reason| WalError::Corrupt { segment: batch.place.sequence, offset: batch.place.offset, reason };
        let known = batch.number < self.next_batch;
        let before = self.position();
        let (mut index_max, mut rest) = (0, batch.records);
        for _ in 0..batch.record_count {
            let record = StoredRecord::decode(&mut rest).map_err(corrupt)?;
            if let StoredRecord::Entry(entry) = &record {
                index_max = index_max.max(entry.index);
            }
            if !known {
                self.record(record).map_err(|Misplaced(reason)| corrupt(reason))?;
            }
        }
        if !rest.is_empty() {
            return Err(corrupt("bytes behind the last record"));
        }
        if known {
            return Ok(index_max);
        }
        self.next_batch = batch.number + 1;
        self.manifest_generation = self.manifest_generation.max(batch.manifest_generation);
        self.last_batch = Some(LastBatch {
            number: batch.number,
            manifest_generation: batch.manifest_generation,
            record_count: batch.record_count,
            records: batch.records.to_vec(),
            index_max,
            before,
        });
        Ok(index_max)
    }

    fn record(&mut self, record: StoredRecord) -> Result<(), Misplaced> {
        match record {
            StoredRecord::Entry(entry) => {
                self.terms.push(entry.index, entry.term)?;
                self.entries.push(entry);
            }
            StoredRecord::HardState(state) => self.hard_state = state,
            StoredRecord::TruncateFrom { index: 0, .. } => return Err(Misplaced("truncation outside of the log")),
            // The entries that it dropped stood in segments that are recycled by now.
            StoredRecord::TruncateFrom { index, previous_term } if index <= self.terms.base().0 => {
                self.restart(index - 1, previous_term);
            }
            StoredRecord::TruncateFrom { index, previous_term } => {
                if self.terms.truncate_from(index)? != previous_term {
                    return Err(Misplaced("truncation contradicts the log before it"));
                }
                let kept = index - self.terms.base().0 - 1;
                self.entries.truncate(usize::try_from(kept).unwrap_or(usize::MAX));
            }
            StoredRecord::StartAfter { index, term } => self.restart(index, term),
        }
        Ok(())
    }

    fn restart(&mut self, index: u64, term: u64) {
        self.terms = TermRuns::after(index, term);
        self.entries.clear();
    }
}
