//! A message on its way into a stream: short parts copied together, long ones shared.

use bytes::{BufMut, Bytes, BytesMut};

use super::response::put_varint;

/// A value shorter than this is copied; a longer one is shared.
pub(super) const SHARED_PIECE_BYTES_MIN: usize = 1024;

/// Pieces of one message, the last of them still growing.
pub(super) struct Message {
    pieces: Vec<Bytes>,
    joined: BytesMut,
}

impl Message {
    /// An empty message with room for so many bytes that are not shared.
    pub fn with_capacity(copied_bytes: usize) -> Self {
        Self { pieces: Vec::new(), joined: BytesMut::with_capacity(copied_bytes) }
    }

    /// What is not yet a piece, to be appended to.
    pub fn joined(&mut self) -> &mut BytesMut {
        &mut self.joined
    }

    pub fn put_u8(&mut self, byte: u8) {
        self.joined.put_u8(byte);
    }

    pub fn put_varint(&mut self, n: u64) {
        put_varint(&mut self.joined, n);
    }

    /// Appends a value: a copy if it is short.
    pub fn put_value(&mut self, value: &Bytes) {
        if value.len() < SHARED_PIECE_BYTES_MIN {
            return self.joined.put_slice(value);
        }
        // Splitting keeps what is left of the room for what follows.
        let before = self.joined.split().freeze();
        self.pieces.extend((!before.is_empty()).then_some(before));
        self.pieces.push(value.clone());
    }

    /// The pieces, in order.
    pub fn finish(mut self) -> Vec<Bytes> {
        if !self.joined.is_empty() {
            self.pieces.push(self.joined.freeze());
        }
        self.pieces
    }
}
