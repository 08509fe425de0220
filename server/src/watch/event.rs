//! A change as watchers see it, encoded once.

use basalt_storage::mvcc::shard_map::ShardId;
use basalt_storage::revision::Revision;
use bytes::{BufMut, Bytes, BytesMut};

use super::response::{put_varint, varint_len};

/// What happened to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// It was written.
    Put,
    /// It was deleted.
    Delete,
}

/// One change of one key.
#[derive(Clone, Debug)]
pub struct Event {
    /// When.
    pub revision: Revision,
    /// Where the key lives.
    pub shard: ShardId,
    /// Which key.
    pub key: Bytes,
    /// What happened.
    pub kind: EventKind,
    /// The `mvccpb.KeyValue` to show: all of it for a put, key and mod_revision for a delete (etcd-contract 20).
    pub key_value: Bytes,
    /// The live version before, shown as prev_kv; none for a create (etcd-contract 21).
    pub previous: Option<Revision>,
}

/// WatchResponse.events = 11, as a length-delimited field.
const EVENTS_TAG: u8 = 11 << 3 | 2;
/// Event.type = 1 with the value DELETE = 1; PUT = 0 is left out.
const TYPE_DELETE: [u8; 2] = [1 << 3, 1];
/// Event.kv = 2.
const KV_TAG: u8 = 2 << 3 | 2;
/// Event.prev_kv = 3.
const PREV_KV_TAG: u8 = 3 << 3 | 2;

/// What an event shows as prev_kv.
#[derive(Clone, Debug)]
enum Previous {
    /// Nothing: a create, or compacted (etcd-contract 21).
    Nothing,
    /// The value at this place, which nobody has asked for yet.
    Unfetched(ShardId, Revision),
    /// The frame with the value in it.
    Framed(Bytes),
}

/// An event in the form in which it stands in a WatchResponse; a clone shares the bytes.
///
/// Owns its bytes: nothing here keeps a buffer of apply or of a page read alive.
#[derive(Clone, Debug)]
pub(super) struct SharedEvent {
    pub revision: Revision,
    pub kind: EventKind,
    pub key: Bytes,
    /// The frame without prev_kv: tag and length of field 11, then the Event.
    plain: Bytes,
    /// Where the KeyValue begins in `plain`; it reaches to the end.
    key_value_at: usize,
    previous: Previous,
}

impl SharedEvent {
    /// Encodes an event.
    pub fn encode(event: &Event) -> Self {
        let plain = frame(event.kind, &event.key_value, None);
        let key_value_at = plain.len() - event.key_value.len();
        let previous = event.previous.map_or(Previous::Nothing, |at| Previous::Unfetched(event.shard, at));
        let key = key_within(&plain, key_value_at, &event.key);
        Self { revision: event.revision, kind: event.kind, key, plain, key_value_at, previous }
    }

    /// The KeyValue as stored; a put's only, a delete shows less than what is stored.
    pub fn key_value(&self) -> Bytes {
        self.plain.slice(self.key_value_at..)
    }

    /// What a watcher is sent; `None` if it wants a previous value that is not fetched yet.
    pub fn frame(&self, prev_kv: bool) -> Option<&Bytes> {
        match &self.previous {
            Previous::Unfetched(..) if prev_kv => None,
            Previous::Framed(frame) if prev_kv => Some(frame),
            _ => Some(&self.plain),
        }
    }

    /// Where the previous value stands, while it is not fetched.
    pub fn unfetched(&self) -> Option<(ShardId, Revision)> {
        match self.previous {
            Previous::Unfetched(shard, revision) => Some((shard, revision)),
            _ => None,
        }
    }

    /// Takes the previous value, `None` if it is gone.
    pub fn resolve(&mut self, value: Option<Bytes>) {
        self.previous = match value {
            Some(value) => Previous::Framed(frame(self.kind, &self.plain[self.key_value_at..], Some(&value))),
            None => Previous::Nothing,
        };
    }

    /// Takes what `other`, the same event, knows of the previous value.
    pub fn resolve_like(&mut self, other: &Self) {
        if self.unfetched().is_some() {
            self.previous = other.previous.clone();
        }
    }

    /// Memory it stands for.
    pub fn bytes(&self) -> usize {
        let framed = if let Previous::Framed(frame) = &self.previous { frame.len() } else { 0 };
        size_of::<Self>() + self.plain.len() + framed
    }
}

fn frame(kind: EventKind, key_value: &[u8], previous: Option<&[u8]>) -> Bytes {
    let field_len = |value: &[u8]| 1 + varint_len(value.len() as u64) + value.len();
    let kind: &[u8] = if kind == EventKind::Delete { &TYPE_DELETE } else { &[] };
    let event_len = kind.len() + field_len(key_value) + previous.map_or(0, field_len);
    let mut out = BytesMut::with_capacity(1 + varint_len(event_len as u64) + event_len);
    out.put_u8(EVENTS_TAG);
    put_varint(&mut out, event_len as u64);
    out.put_slice(kind);
    let mut field = |tag: u8, value: &[u8]| {
        out.put_u8(tag);
        put_varint(&mut out, value.len() as u64);
        out.put_slice(value);
    };
    // Previous values stand behind, so the KeyValue of a plain frame reaches to its end.
    field(KV_TAG, key_value);
    if let Some(previous) = previous {
        field(PREV_KV_TAG, previous);
    }
    out.freeze()
}

/// The key as a slice of the frame, where a KeyValue begins with it as ours do.
fn key_within(plain: &Bytes, key_value_at: usize, key: &Bytes) -> Bytes {
    let at = key_value_at + 1 + varint_len(key.len() as u64);
    match plain.get(at..at + key.len()) {
        Some(found) if found == key => plain.slice(at..at + key.len()),
        _ => Bytes::copy_from_slice(key),
    }
}
