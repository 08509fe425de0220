//! The records of one block: each key without what it shares with the one before.

use std::ops::Range;

use bytes::Bytes;

use super::format::{BLOCK_BYTES, PAYLOAD_BYTES_MAX};
use super::record::Record;

/// The fewest bytes of a record: its three lengths.
const RECORD_BYTES_MIN: usize = 3;

/// A block in the making.
#[derive(Default)]
pub(super) struct BlockBuilder {
    payload: Vec<u8>,
    records: u32,
    last_key: Vec<u8>,
    /// Bytes of all records, keys in full.
    unfolded: usize,
}

impl BlockBuilder {
    /// Appends a record, whose key is above all others.
    pub(super) fn push(&mut self, record: &Record) {
        let shared = self.last_key.iter().zip(&record.key).take_while(|(one, other)| one == other).count();
        let suffix = &record.key[shared..];
        put_varint(&mut self.payload, shared);
        put_varint(&mut self.payload, suffix.len());
        put_varint(&mut self.payload, record.value.as_ref().map_or(0, |value| value.len() + 1));
        self.payload.extend_from_slice(suffix);
        self.payload.extend_from_slice(record.value.as_deref().unwrap_or_default());
        self.last_key.truncate(shared);
        self.last_key.extend_from_slice(suffix);
        self.records += 1;
        self.unfolded += record.bytes();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Whether it is as long as a block should be. Empty records count by their lengths' bytes.
    pub(super) fn is_full(&self) -> bool {
        self.unfolded.max(self.payload.len()) >= BLOCK_BYTES
    }

    /// Payload and number of records; the builder starts over.
    pub(super) fn take(&mut self) -> (Vec<u8>, u32) {
        let block = std::mem::take(self);
        (block.payload, block.records)
    }
}

/// Reads the records of a block; values are slices of `payload`.
///
/// # Errors
/// What does not hold.
pub(super) fn decode_block(payload: &Bytes, records: u32) -> Result<Vec<Record>, &'static str> {
    let records = records as usize;
    if records == 0 || records > payload.len() / RECORD_BYTES_MIN {
        return Err("impossible number of records");
    }
    let mut keys = Vec::with_capacity(payload.len());
    let mut spans: Vec<(Range<usize>, Option<Range<usize>>)> = Vec::with_capacity(records);
    let mut at = 0;
    for number in 0..records {
        let shared = take_varint(payload, &mut at)?;
        let suffix = take_varint(payload, &mut at)?;
        let value = take_varint(payload, &mut at)?;
        let previous = spans.last().map_or(0..0, |(key, _)| key.clone());
        if shared > previous.len() {
            return Err("a key shares more than there is");
        }
        let suffix = take_span(payload, &mut at, suffix)?;
        let start = keys.len();
        if start + shared + suffix.len() > PAYLOAD_BYTES_MAX {
            return Err("keys unfold to too much");
        }
        keys.extend_from_within(previous.start..previous.start + shared);
        keys.extend_from_slice(&payload[suffix]);
        if number > 0 && keys[start..] <= keys[previous] {
            return Err("keys do not ascend");
        }
        let value = value.checked_sub(1).map(|length| take_span(payload, &mut at, length)).transpose()?;
        spans.push((start..keys.len(), value));
    }
    if at != payload.len() {
        return Err("bytes after the last record");
    }
    let keys = Bytes::from(keys);
    let record =
        |(key, value): (_, Option<_>)| Record { key: keys.slice(key), value: value.map(|span| payload.slice(span)) };
    Ok(spans.into_iter().map(record).collect())
}

/// The next `length` bytes, if there are so many.
fn take_span(payload: &[u8], at: &mut usize, length: usize) -> Result<Range<usize>, &'static str> {
    let start = *at;
    if length > payload.len() - start {
        return Err("a record leaves its block");
    }
    *at = start + length;
    Ok(start..*at)
}

/// Seven bits a byte, lowest first; the high bit says that more follow.
fn put_varint(bytes: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn take_varint(bytes: &[u8], at: &mut usize) -> Result<usize, &'static str> {
    let mut number = 0;
    // Five bytes hold 35 bits, more than any length within a block.
    for shift in (0..35).step_by(7) {
        let byte = *bytes.get(*at).ok_or("a length leaves its block")?;
        *at += 1;
        number |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err("a length is too long")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn reads_back_what_was_built(
            records in prop::collection::btree_map(
                prop::collection::vec(0..3u8, 0..12),
                prop::option::of(prop::collection::vec(any::<u8>(), 0..300)),
                1..50,
            ),
        ) {
            let records: Vec<_> = records.into_iter()
                .map(|(key, value)| Record { key: key.into(), value: value.map(Bytes::from) }).collect();
            let mut builder = BlockBuilder::default();
            records.iter().for_each(|record| builder.push(record));
            let (payload, count) = builder.take();
            prop_assert_eq!(decode_block(&payload.into(), count), Ok(records));
        }

        #[test]
        fn hostile_bytes_are_an_error_or_ascending_records(
            payload in prop::collection::vec(prop_oneof![0..6u8, any::<u8>()], 0..200), count in 0..80u32,
        ) {
            if let Ok(records) = decode_block(&payload.into(), count) {
                prop_assert!(records.is_sorted_by(|one, other| one.key < other.key));
            }
        }
    }

    #[test]
    fn a_small_block_cannot_unfold_without_bound() {
        let long = vec![7; PAYLOAD_BYTES_MAX / 40];
        let mut payload = Vec::new();
        put_varint(&mut payload, 0);
        put_varint(&mut payload, long.len());
        put_varint(&mut payload, 1);
        payload.extend_from_slice(&long);
        let count = 60;
        for number in 1..count {
            put_varint(&mut payload, long.len() + number - 1);
            put_varint(&mut payload, 1);
            put_varint(&mut payload, 1);
            payload.push(7);
        }
        assert_eq!(decode_block(&payload.into(), count as u32), Err("keys unfold to too much"));
    }
}
