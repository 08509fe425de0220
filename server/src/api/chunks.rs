//! A protobuf message in pieces: small fields gather in buffers of their own, stored values are handed through as they
//! are. What goes to the socket is never one contiguous copy (DESIGN D3, D7).

use basalt_storage::mvcc::key_value::{put_varint, varint_len};
use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

/// Slices below this are copied into the gathering buffer: a piece of its own costs more than the copy.
const SHARED_BYTES_MIN: usize = 1024;
/// Tag and length before a field's bytes, at most.
const PREFIX_BYTES_MAX: usize = 15;
/// Room for the prefixes between many shared slices: one buffer for hundreds of them.
const PREFIXES_BYTES: usize = 2 << 10;

/// Pieces of one message, in order.
#[derive(Debug, Default)]
pub struct Chunks {
    pieces: Vec<Bytes>,
    tail: BytesMut,
    length: usize,
}

impl Chunks {
    /// A whole message, encoded at once: for answers without stored values.
    pub fn of(message: &impl Message) -> Self {
        let mut chunks = Self::default();
        chunks.append(message);
        chunks
    }

    /// A message whose pieces are ready.
    pub fn from_pieces(pieces: Vec<Bytes>) -> Self {
        let length = pieces.iter().map(Bytes::len).sum();
        Self { pieces, tail: BytesMut::new(), length }
    }

    /// Bytes in all pieces.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Appends the fields of `message`.
    pub fn append(&mut self, message: &impl Message) {
        let length = message.encoded_len();
        self.tail.reserve(length);
        message.encode_raw(&mut self.tail);
        self.length += length;
    }

    /// Appends a number field, unless it is 0.
    pub fn number(&mut self, field: u32, n: u64) {
        if n != 0 {
            self.varint(u64::from(field) << 3);
            self.varint(n);
        }
    }

    /// Appends a length-delimited field that holds stored bytes.
    pub fn shared(&mut self, field: u32, bytes: &Bytes) {
        if !self.pieces.is_empty() && self.tail.capacity() - self.tail.len() < PREFIX_BYTES_MAX {
            self.tail.reserve(PREFIXES_BYTES);
        }
        self.prefix(field, bytes.len());
        self.length += bytes.len();
        if bytes.len() < SHARED_BYTES_MIN {
            self.tail.put_slice(bytes);
        } else {
            self.seal();
            self.pieces.push(bytes.clone());
        }
    }

    /// Appends a length-delimited field that holds another message.
    pub fn nested(&mut self, field: u32, message: Chunks) {
        self.prefix(field, message.length);
        self.extend(message);
    }

    /// Keeps `guard` until the last piece is gone: sent, or dropped with its connection.
    pub fn keeping<G: Send + Sync + 'static>(mut self, guard: Option<G>) -> Self {
        let Some(guard) = guard else { return self };
        self.seal();
        if let Some(last) = self.pieces.pop() {
            self.pieces.push(Bytes::from_owner(Guarded { bytes: last, _guard: guard }));
        }
        self
    }

    /// The pieces, ready to send.
    pub fn into_pieces(mut self) -> Vec<Bytes> {
        self.seal();
        self.pieces
    }

    fn extend(&mut self, other: Chunks) {
        self.length += other.length;
        if other.pieces.is_empty() {
            self.tail.put_slice(&other.tail);
            return;
        }
        self.seal();
        self.pieces.extend(other.pieces);
        self.tail = other.tail;
    }

    fn prefix(&mut self, field: u32, length: usize) {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(length as u64);
    }

    fn varint(&mut self, n: u64) {
        put_varint(&mut self.tail, n);
        self.length += varint_len(n);
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            self.pieces.push(self.tail.split().freeze());
        }
    }
}

/// A piece that something hangs on.
struct Guarded<G> {
    bytes: Bytes,
    _guard: G,
}

impl<G> AsRef<[u8]> for Guarded<G> {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use basalt_proto::etcdserverpb::{RangeResponse, ResponseHeader};
    use basalt_proto::mvccpb::KeyValue;

    use super::*;

    #[test]
    fn pieces_join_to_the_message_that_prost_writes() {
        let header = ResponseHeader { revision: 7, ..ResponseHeader::default() };
        let kvs = [10usize, 5000, 3].map(|length| KeyValue {
            key: Bytes::from_static(b"k"),
            value: vec![b'v'; length].into(),
            ..KeyValue::default()
        });
        let expected = RangeResponse { header: Some(header), kvs: kvs.to_vec(), more: true, count: 300 };
        let mut chunks = Chunks::default();
        chunks.nested(1, Chunks::of(&header));
        for kv in &kvs {
            chunks.shared(2, &kv.encode_to_vec().into());
        }
        chunks.number(3, 1);
        chunks.number(4, 300);
        assert_eq!(chunks.len(), expected.encoded_len());
        assert_eq!(chunks.into_pieces().concat(), expected.encode_to_vec());
    }

    #[test]
    fn a_guard_goes_with_the_last_piece() {
        let guard = std::sync::Arc::new(());
        let mut chunks = Chunks::default();
        chunks.shared(2, &vec![7; 5000].into());
        chunks.number(4, 300);
        let before = chunks.len();
        let chunks = chunks.keeping(Some(guard.clone()));
        assert_eq!(chunks.len(), before);
        let mut pieces = chunks.into_pieces();
        let last = pieces.pop();
        drop(pieces);
        assert_eq!(std::sync::Arc::strong_count(&guard), 2);
        drop(last);
        assert_eq!(std::sync::Arc::strong_count(&guard), 1);
    }
}
