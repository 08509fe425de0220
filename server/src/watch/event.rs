//! A change as watchers see it. Its bytes are those that the store holds: nothing is encoded for an event that nobody
//! watches.

use std::ops::Range;

use basalt_storage::mvcc::key_value::KeyValue;
use basalt_storage::mvcc::shard_map::ShardId;
use basalt_storage::revision::Revision;
use bytes::Bytes;

use super::message::{Message, SHARED_PIECE_BYTES_MIN};
use super::response::varint_len;

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
    /// The value of this revision, which nobody has asked for yet.
    Unfetched(Revision),
    /// The value.
    Value(Bytes),
}

/// An event as the hubs keep it; a clone shares the bytes.
///
/// The KeyValue is the allocation that the store's delta holds, so an event costs little beside a revision that is in no
/// checkpoint yet; from then on the event alone keeps it.
#[derive(Clone, Debug)]
pub(super) struct SharedEvent {
    pub revision: Revision,
    pub kind: EventKind,
    shard: ShardId,
    /// Where the key stands in `key_value`.
    key_at: u32,
    key_len: u32,
    key_value: Bytes,
    previous: Previous,
}

impl SharedEvent {
    /// Shares an event's bytes.
    pub fn new(event: &Event) -> Self {
        let Event { revision, shard, kind, .. } = *event;
        let place = key_place(&event.key_value, &event.key);
        let length = |bytes: usize| u32::try_from(bytes).expect("a request is far below 4 GiB");
        Self {
            revision,
            kind,
            shard,
            key_at: length(place.start),
            key_len: length(place.len()),
            key_value: event.key_value.clone(),
            previous: event.previous.map_or(Previous::Nothing, Previous::Unfetched),
        }
    }

    /// Which key.
    pub fn key(&self) -> &[u8] {
        let at = self.key_at as usize;
        &self.key_value[at..at + self.key_len as usize]
    }

    /// The KeyValue as stored; a put's only, a delete shows less than what is stored.
    pub fn key_value(&self) -> Bytes {
        self.key_value.clone()
    }

    /// What a watcher is sent; `None` if it wants a previous value that is not fetched yet.
    pub fn frame(&self, prev_kv: bool) -> Option<EventFrame<'_>> {
        let previous = match &self.previous {
            Previous::Unfetched(..) if prev_kv => return None,
            Previous::Value(value) if prev_kv => Some(value),
            _ => None,
        };
        Some(EventFrame::new(self.kind, &self.key_value, previous))
    }

    /// Where the previous value stands, while it is not fetched.
    pub fn unfetched(&self) -> Option<(ShardId, Revision)> {
        match self.previous {
            Previous::Unfetched(revision) => Some((self.shard, revision)),
            _ => None,
        }
    }

    /// Takes the previous value, `None` if it is gone.
    pub fn resolve(&mut self, value: Option<Bytes>) {
        self.previous = value.map_or(Previous::Nothing, Previous::Value);
    }

    /// Takes what `other`, the same event, knows of the previous value.
    pub fn resolve_like(&mut self, other: &Self) {
        if self.unfetched().is_some() {
            self.previous = other.previous.clone();
        }
    }

    /// Memory it stands for.
    pub fn bytes(&self) -> usize {
        let previous = if let Previous::Value(value) = &self.previous { value.len() } else { 0 };
        size_of::<Self>() + self.key_value.len() + previous
    }
}

/// The key's place in a KeyValue: at the front where we encoded it, anywhere in one that was imported.
fn key_place(key_value: &[u8], key: &[u8]) -> Range<usize> {
    let at = 1 + varint_len(key.len() as u64);
    if key_value.get(at..at + key.len()) == Some(key) {
        return at..at + key.len();
    }
    let stored = KeyValue::parse(key_value).unwrap_or_default().key;
    let at = if stored.is_empty() { 0 } else { stored.as_ptr().addr() - key_value.as_ptr().addr() };
    at..at + stored.len()
}

/// An event in the form in which it stands in a WatchResponse: tag and length of field 11, then the Event.
#[derive(Clone, Copy, Debug)]
pub(super) struct EventFrame<'a> {
    kind: &'static [u8],
    key_value: &'a Bytes,
    previous: Option<&'a Bytes>,
    event_len: usize,
}

impl<'a> EventFrame<'a> {
    fn new(kind: EventKind, key_value: &'a Bytes, previous: Option<&'a Bytes>) -> Self {
        let kind: &[u8] = if kind == EventKind::Delete { &TYPE_DELETE } else { &[] };
        let field_len = |value: &'a Bytes| 1 + varint_len(value.len() as u64) + value.len();
        let event_len = kind.len() + field_len(key_value) + previous.map_or(0, field_len);
        Self { kind, key_value, previous, event_len }
    }

    /// Bytes of all of it.
    pub fn len(&self) -> usize {
        1 + varint_len(self.event_len as u64) + self.event_len
    }

    /// Bytes of it that a message copies; longer values are shared.
    pub fn copied_len(&self) -> usize {
        let shared = [Some(self.key_value), self.previous].into_iter().flatten().map(Bytes::len);
        self.len() - shared.filter(|len| *len >= SHARED_PIECE_BYTES_MIN).sum::<usize>()
    }

    /// Appends it. Previous values stand behind the new one.
    pub fn put(&self, out: &mut Message) {
        out.put_u8(EVENTS_TAG);
        out.put_varint(self.event_len as u64);
        self.kind.iter().for_each(|byte| out.put_u8(*byte));
        for (tag, value) in [(KV_TAG, Some(self.key_value)), (PREV_KV_TAG, self.previous)] {
            let Some(value) = value else { continue };
            out.put_u8(tag);
            out.put_varint(value.len() as u64);
            out.put_value(value);
        }
    }
}
