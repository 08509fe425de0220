//! Records in, bytes of a run file out.

use bytes::Bytes;

use super::block::BlockBuilder;
use super::error::RunError;
use super::format::{FRAME_LEN, Frame, FrameKind, HEADER_LEN, Header, KEY_BYTES_MAX, PART_BYTES, TRAILER_LEN, Trailer};
use super::record::Record;
use super::run_meta::RunMeta;

/// The file as it grows: what was not taken yet is in memory, never more than asked for plus a block, or a record with a
/// long value.
pub(super) struct RunEncoder {
    header: Header,
    /// Sealed bytes that were not taken.
    buffer: Vec<u8>,
    /// Bytes taken.
    taken: u64,
    /// Of all sealed bytes.
    hasher: crc32fast::Hasher,
    block: BlockBuilder,
    last_key: Option<Bytes>,
    records: u64,
    removals: u64,
    blocks: u64,
}

impl RunEncoder {
    pub(super) fn new(header: Header) -> Self {
        let mut encoder = Self {
            header,
            buffer: Vec::new(),
            taken: 0,
            hasher: crc32fast::Hasher::new(),
            block: BlockBuilder::default(),
            last_key: None,
            records: 0,
            removals: 0,
            blocks: 0,
        };
        encoder.seal(&header.encode());
        encoder
    }

    /// Appends a record.
    ///
    /// # Errors
    /// [`RunError::NotAscending`], [`RunError::KeyTooLong`].
    pub(super) fn push(&mut self, record: &Record) -> Result<(), RunError> {
        let number = self.header.number;
        if self.last_key.as_ref().is_some_and(|last| record.key <= *last) {
            return Err(RunError::NotAscending(number));
        }
        if record.key.len() > KEY_BYTES_MAX {
            return Err(RunError::KeyTooLong { number, bytes: record.key.len() });
        }
        match &record.value {
            Some(value) if value.len() > PART_BYTES => {
                let last = self.seal_parts(value);
                self.block.push(&Record { key: record.key.clone(), value: Some(last) });
            }
            _ => self.block.push(record),
        }
        self.records += 1;
        self.removals += u64::from(record.value.is_none());
        self.last_key = Some(record.key.clone());
        if self.block.is_full() {
            self.seal_block();
        }
        Ok(())
    }

    /// Bytes that [`Self::take`] would return.
    pub(super) fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// The next bytes of the file, and where they stand.
    pub(super) fn take(&mut self) -> (u64, Bytes) {
        let (offset, bytes) = (self.taken, std::mem::take(&mut self.buffer));
        self.taken += bytes.len() as u64;
        (offset, bytes.into())
    }

    /// Seals the file; what [`Self::take`] returns next are its last bytes.
    pub(super) fn finish(&mut self) -> RunMeta {
        self.seal_block();
        let crc = self.hasher.clone().finalize();
        let trailer = Trailer { records: self.records, removals: self.removals, blocks: self.blocks, crc };
        self.seal_frame(FrameKind::Trailer, 0, &trailer.encode());
        let length = self.taken + self.buffer.len() as u64;
        assert!(length >= (HEADER_LEN + FRAME_LEN + TRAILER_LEN) as u64, "a run of {length} bytes");
        RunMeta { number: self.header.number, length, records: self.records, crc }
    }

    /// Seals all of a long value but its last bytes, which it returns: they begin the next block.
    fn seal_parts(&mut self, value: &Bytes) -> Bytes {
        self.seal_block();
        let mut rest = value.clone();
        while rest.len() > PART_BYTES {
            self.seal_frame(FrameKind::Part, 0, &rest.split_to(PART_BYTES));
            self.blocks += 1;
        }
        rest
    }

    /// Seals the block in the making, unless it is empty.
    fn seal_block(&mut self) {
        if self.block.is_empty() {
            return;
        }
        let (payload, records) = self.block.take();
        self.seal_frame(FrameKind::Records, records, &payload);
        self.blocks += 1;
    }

    fn seal_frame(&mut self, kind: FrameKind, records: u32, payload: &[u8]) {
        let offset = self.taken + self.buffer.len() as u64;
        let frame = Frame::of(kind, records, payload, self.header.salt, offset);
        self.seal(&frame.encode());
        self.seal(payload);
    }

    fn seal(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.buffer.extend_from_slice(bytes);
    }
}
