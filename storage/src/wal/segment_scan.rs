//! Reading one segment: which batches are valid, where they end, and whether that end can be trusted.

use super::batch::{self, Batch};
use super::error::WalError;
use super::segment_head::{BLOCK_BYTES, HEAD_AREA_BYTES, HEAD_COPIES, HeadBlock, SegmentHead};

/// What a segment's file holds.
#[derive(Debug)]
pub(super) enum SegmentScan<'a> {
    /// Nothing that was ever acknowledged: pre-written, recycled, or cut off while its head was written.
    NotBegun,
    Begun(BegunSegment<'a>),
}

#[derive(Debug)]
pub(super) struct BegunSegment<'a> {
    pub(super) head: SegmentHead,
    /// Valid batches, numbered without a gap from the head's first.
    pub(super) batches: Vec<Batch<'a>>,
    /// Offset of the first block that is no valid batch.
    pub(super) end: usize,
    /// Whether a batch of this segment was begun at `end` and did not get there whole.
    pub(super) torn: bool,
}

/// Reads the file of segment `sequence`. Any bytes are survived.
///
/// A batch is written only after the one before it is durable, so the first that is not valid may be torn, and is
/// the end. But if a valid one with a higher number follows, then this one was durable once, and is damaged.
/// Sectors that look valid *inside* a torn batch prove nothing; only a whole batch with its CRC does.
///
/// # Errors
/// [`WalError::Corrupt`] and [`WalError::NewerVersion`].
pub(super) fn scan(bytes: &[u8], sequence: u64) -> Result<SegmentScan<'_>, WalError> {
    let Some(head) = find_head(bytes, sequence)? else { return Ok(SegmentScan::NotBegun) };
    let ours = |batch: &Batch<'_>| (batch.place.salt, batch.place.sequence) == (head.salt, sequence);
    let mut batches = Vec::new();
    let (mut end, mut number) = (HEAD_AREA_BYTES, head.first_batch);
    while let Some(batch) = batch::find(bytes, end, number).filter(|batch| ours(batch) && batch.number == number) {
        batches.push(batch);
        end = batch.end;
        number = number.checked_add(1).ok_or_else(|| corrupt(sequence, end, "batch numbers exhausted"))?;
    }
    let later = |offset| batch::find(bytes, offset, number).is_some_and(|batch| ours(&batch) && batch.number > number);
    if (end..bytes.len()).step_by(BLOCK_BYTES).any(later) {
        return Err(corrupt(sequence, end, "a damaged batch is followed by a valid one"));
    }
    let claimed = batch::claimed_place(bytes, end);
    let torn = claimed.is_some_and(|place| (place.salt, place.sequence) == (head.salt, sequence));
    Ok(SegmentScan::Begun(BegunSegment { head, batches, end, torn }))
}

fn find_head(bytes: &[u8], sequence: u64) -> Result<Option<SegmentHead>, WalError> {
    let mut newer = None;
    let mut recycled = false;
    for block in bytes.chunks(BLOCK_BYTES).take(HEAD_COPIES) {
        match SegmentHead::decode(block) {
            HeadBlock::Valid(head) if head.sequence == sequence => return Ok(Some(head)),
            HeadBlock::Valid(_) => recycled = true,
            HeadBlock::Newer { version, features } => newer = Some((version, features)),
            HeadBlock::Invalid => {}
        }
    }
    if let Some((version, features)) = newer {
        return Err(WalError::NewerVersion { segment: sequence, version, features });
    }
    // A head is durable before the first batch is written: a batch without one says that all copies were lost.
    let own = |offset| batch::find(bytes, offset, 0).is_some_and(|batch| batch.place.sequence == sequence);
    if !recycled && (HEAD_AREA_BYTES..bytes.len()).step_by(BLOCK_BYTES).any(own) {
        return Err(corrupt(sequence, 0, "batches without a segment head"));
    }
    Ok(None)
}

fn corrupt(segment: u64, offset: usize, reason: &'static str) -> WalError {
    WalError::Corrupt { segment, offset: offset as u64, reason }
}
