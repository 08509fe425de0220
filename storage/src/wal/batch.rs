//! The batch: what one sync makes durable, or what is torn as a whole.

use bytes::{Bytes, BytesMut};

use super::little_endian::{put, u32_at, u64_at};
use super::segment_head::BLOCK_BYTES;

pub(super) const MAGIC: u32 = u32::from_le_bytes(*b"bBAT");

pub(super) const MAGIC_AT: usize = 0;
pub(super) const LENGTH_AT: usize = MAGIC_AT + 4;
pub(super) const NUMBER_AT: usize = LENGTH_AT + 4;
pub(super) const SALT_AT: usize = NUMBER_AT + 8;
pub(super) const SEQUENCE_AT: usize = SALT_AT + 8;
pub(super) const OFFSET_AT: usize = SEQUENCE_AT + 8;
pub(super) const GENERATION_AT: usize = OFFSET_AT + 8;
pub(super) const COUNT_AT: usize = GENERATION_AT + 8;
pub(super) const CRC_AT: usize = COUNT_AT + 4;
pub(super) const HEADER_BYTES: usize = CRC_AT + 4;

/// Where a batch stands. All of it is under the CRC, so that a batch is valid in one place of one life of one
/// file only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) salt: u64,
    pub(super) sequence: u64,
    pub(super) offset: u64,
}

/// A batch that proved valid.
#[derive(Clone, Copy, Debug)]
pub(super) struct Batch<'a> {
    pub(super) place: Place,
    pub(super) number: u64,
    pub(super) manifest_generation: u64,
    pub(super) record_count: u32,
    pub(super) records: &'a [u8],
    /// Offset of the block behind it.
    pub(super) end: usize,
}

/// Bytes of a buffer that leaves room for the header, for [`seal`].
pub(super) fn unsealed() -> BytesMut {
    BytesMut::zeroed(HEADER_BYTES)
}

/// Size on disk of a batch whose header and records have `length` bytes.
pub(super) fn padded(length: usize) -> usize {
    length.next_multiple_of(BLOCK_BYTES)
}

/// Writes the header before the records that were put behind it, and zeros up to the next block.
pub(super) fn seal(mut bytes: BytesMut, place: Place, number: u64, manifest_generation: u64, count: u32) -> Bytes {
    let length = bytes.len();
    put(&mut bytes, MAGIC_AT, &MAGIC.to_le_bytes());
    put(&mut bytes, LENGTH_AT, &u32::try_from(length).expect("a batch is far below 4 GiB").to_le_bytes());
    put(&mut bytes, NUMBER_AT, &number.to_le_bytes());
    put(&mut bytes, SALT_AT, &place.salt.to_le_bytes());
    put(&mut bytes, SEQUENCE_AT, &place.sequence.to_le_bytes());
    put(&mut bytes, OFFSET_AT, &place.offset.to_le_bytes());
    put(&mut bytes, GENERATION_AT, &manifest_generation.to_le_bytes());
    put(&mut bytes, COUNT_AT, &count.to_le_bytes());
    let crc = crc_of(&bytes);
    put(&mut bytes, CRC_AT, &crc.to_le_bytes());
    bytes.resize(padded(length), 0);
    bytes.freeze()
}

fn crc_of(batch: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&batch[..CRC_AT]);
    hasher.update(&batch[HEADER_BYTES..]);
    hasher.finalize()
}

/// The place that the bytes at `offset` of a segment claim to be written for, if they claim to be a batch.
pub(super) fn claimed_place(segment: &[u8], offset: usize) -> Option<Place> {
    let header = segment.get(offset..)?.get(..HEADER_BYTES)?;
    (u32_at(header, MAGIC_AT) == MAGIC).then(|| Place {
        salt: u64_at(header, SALT_AT),
        sequence: u64_at(header, SEQUENCE_AT),
        offset: u64_at(header, OFFSET_AT),
    })
}

/// The batch at `offset` of a segment, if there is a valid one numbered at least `number_min`.
pub(super) fn find(segment: &[u8], offset: usize, number_min: u64) -> Option<Batch<'_>> {
    let place = claimed_place(segment, offset).filter(|place| place.offset == offset as u64)?;
    let rest = &segment[offset..];
    let (length, number) = (u32_at(rest, LENGTH_AT) as usize, u64_at(rest, NUMBER_AT));
    if length < HEADER_BYTES || number < number_min {
        return None;
    }
    let batch = rest.get(..length)?;
    let end = offset + padded(length);
    (u32_at(batch, CRC_AT) == crc_of(batch)).then(|| Batch {
        place,
        number,
        manifest_generation: u64_at(batch, GENERATION_AT),
        record_count: u32_at(batch, COUNT_AT),
        records: &batch[HEADER_BYTES..],
        end,
    })
}
