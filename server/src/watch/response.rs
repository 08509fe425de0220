//! `etcdserverpb.WatchResponse` in wire form: header 1, watch_id 2, created 3, canceled 4, compact_revision 5,
//! cancel_reason 6, fragment 7, events 11. Zero values are left out.

use bytes::{BufMut, Bytes, BytesMut};

use super::event::EventFrame;
use super::message::Message;

/// Room that a header, ids and flags take at most, for a first allocation.
const HEAD_BYTES: usize = 64;

/// The watch id of what concerns no watch or a whole stream.
pub(super) const NO_WATCH_ID: i64 = -1;

/// Who answers, as a response header says it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Responder {
    pub cluster_id: u64,
    pub member_id: u64,
    pub raft_term: u64,
}

/// All of a WatchResponse but its events.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ResponseHead {
    /// The header's revision.
    pub revision: i64,
    pub watch_id: i64,
    pub created: bool,
    pub canceled: bool,
    pub compact_revision: i64,
    pub cancel_reason: &'static str,
    pub fragment: bool,
}

impl ResponseHead {
    fn encode(&self, responder: Responder, out: &mut BytesMut) {
        let header = [
            (1, responder.cluster_id),
            (2, responder.member_id),
            (3, self.revision.cast_unsigned()),
            (4, responder.raft_term),
        ];
        let field_len = |(_, n): &(u8, u64)| if *n == 0 { 0 } else { 1 + varint_len(*n) };
        out.put_u8(1 << 3 | 2);
        // At most 44 bytes: one byte of length.
        put_varint(out, header.iter().map(field_len).sum::<usize>() as u64);
        header.into_iter().for_each(|(field, n)| put_number(out, field, n));
        put_number(out, 2, self.watch_id.cast_unsigned());
        put_number(out, 3, u64::from(self.created));
        put_number(out, 4, u64::from(self.canceled));
        put_number(out, 5, self.compact_revision.cast_unsigned());
        if !self.cancel_reason.is_empty() {
            out.put_u8(6 << 3 | 2);
            put_varint(out, self.cancel_reason.len() as u64);
            out.put_slice(self.cancel_reason.as_bytes());
        }
        put_number(out, 7, u64::from(self.fragment));
    }

    /// Length of the response without events.
    pub fn encoded_len(&self, responder: Responder) -> usize {
        let mut out = BytesMut::with_capacity(HEAD_BYTES);
        self.encode(responder, &mut out);
        out.len()
    }

    /// The response with these events.
    pub fn with_events<'a>(
        &self,
        responder: Responder,
        frames: impl Iterator<Item = EventFrame<'a>> + Clone,
    ) -> Vec<Bytes> {
        let copied: usize = frames.clone().map(|frame| frame.copied_len()).sum();
        let mut out = Message::with_capacity(HEAD_BYTES + copied);
        self.encode(responder, out.joined());
        frames.for_each(|frame| frame.put(&mut out));
        out.finish()
    }

    /// The response without events.
    pub fn alone(&self, responder: Responder) -> Vec<Bytes> {
        self.with_events(responder, std::iter::empty())
    }
}

/// A varint field, left out when zero; an int64 −1 takes ten bytes.
fn put_number(out: &mut BytesMut, field: u8, n: u64) {
    if n != 0 {
        out.put_u8(field << 3);
        put_varint(out, n);
    }
}

/// Appends a protobuf varint.
pub(super) fn put_varint(out: &mut BytesMut, mut n: u64) {
    while n >= 0x80 {
        out.put_u8(n.to_le_bytes()[0] | 0x80);
        n >>= 7;
    }
    out.put_u8(n.to_le_bytes()[0]);
}

/// Length of a protobuf varint.
pub(super) fn varint_len(n: u64) -> usize {
    let bits = (64 - (n | 1).leading_zeros()) as usize;
    bits.div_ceil(7)
}
