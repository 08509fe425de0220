//! All streams and watchers, and the way a response takes to a stream.

use std::collections::HashMap;

use bytes::Bytes;

use super::config::WatchConfig;
use super::event::SharedEvent;
use super::messages::{Output, StreamId, Ticket};
use super::response::{Responder, ResponseHead};
use super::slab::Slab;
use super::stream::{Stream, WatchSlot};
use super::watcher::{StreamKey, Sync, Watcher, WatcherKey};

/// What an id takes that stays taken, about.
const CANCELED_ID_BYTES: usize = 64;

/// That an event is for a watcher; sorts by watcher, then by event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Pick {
    pub watcher: WatcherKey,
    /// Position in the slice of events that is being told.
    pub event: usize,
}

/// How far a watcher was told of the events picked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// Of all.
    All,
    /// Not of this revision and what follows: its stream is full, or a previous value is not fetched.
    Below(i64),
}

/// Streams, watchers, limits.
pub(super) struct Registry {
    pub watchers: Slab<Watcher>,
    pub streams: Slab<Stream>,
    pub stream_keys: HashMap<StreamId, StreamKey>,
    pub responder: Responder,
    pub fragment_bytes: usize,
    pub stream_queue_bytes_max: usize,
    queue_bytes_max: usize,
    /// Sent and not drained, over all streams.
    queued_bytes: usize,
    /// Events sent since the start, to whomever.
    pub events_sent: u64,
    /// What [`Watcher::bytes`] says of all.
    watcher_bytes: usize,
    canceled_ids: usize,
    tickets_drawn: u64,
    waits_begun: u64,
}

impl Registry {
    pub fn new(responder: Responder, config: &WatchConfig) -> Self {
        Self {
            watchers: Slab::default(),
            streams: Slab::default(),
            stream_keys: HashMap::new(),
            responder,
            fragment_bytes: config.fragment_bytes,
            stream_queue_bytes_max: config.stream_queue_bytes_max,
            queue_bytes_max: config.queue_bytes_max,
            queued_bytes: 0,
            events_sent: 0,
            watcher_bytes: 0,
            canceled_ids: 0,
            tickets_drawn: 0,
            waits_begun: 0,
        }
    }

    pub fn watcher(&self, key: WatcherKey) -> &Watcher {
        self.watchers.get(key.0)
    }

    pub fn watcher_mut(&mut self, key: WatcherKey) -> &mut Watcher {
        self.watchers.get_mut(key.0)
    }

    pub fn stream(&self, key: StreamKey) -> &Stream {
        self.streams.get(key.0)
    }

    pub fn stream_mut(&mut self, key: StreamKey) -> &mut Stream {
        self.streams.get_mut(key.0)
    }

    /// The stream of a watcher.
    pub fn stream_of(&mut self, key: WatcherKey) -> &mut Stream {
        let stream = self.watcher(key).stream;
        self.stream_mut(stream)
    }

    /// A ticket that was never used.
    pub fn draw_ticket(&mut self) -> Ticket {
        self.tickets_drawn += 1;
        Ticket(self.tickets_drawn)
    }

    /// Notes that a watcher waits from now on.
    pub fn begin_wait(&mut self, key: WatcherKey) {
        self.waits_begun += 1;
        let since = self.waits_begun;
        let watcher = self.watcher_mut(key);
        (watcher.sync, watcher.waiting_since) = (Sync::Waiting, since);
    }

    /// How many waits were begun: who waits since a later one was not looked at yet.
    pub fn waits_begun(&self) -> u64 {
        self.waits_begun
    }

    /// Whether no event may be sent to the stream now: it holds too much, or all hold too much and it more than its share.
    /// One that drained is never full, so that it goes on whatever the others do.
    pub fn is_full(&self, key: StreamKey) -> bool {
        let queued = self.stream(key).queued_bytes;
        queued > self.stream_queue_bytes_max
            || (self.queued_bytes > self.queue_bytes_max && queued > self.queue_bytes_max / self.streams.len())
    }

    /// The client took what was sent, and the room may forget it.
    pub fn drained(&mut self, key: StreamKey, bytes: usize) {
        let stream = self.stream_mut(key);
        let bytes = bytes.min(stream.queued_bytes);
        stream.queued_bytes -= bytes;
        self.queued_bytes -= bytes;
    }

    /// Takes a watcher in.
    pub fn insert_watcher(&mut self, watcher: Watcher) -> WatcherKey {
        self.watcher_bytes += watcher.bytes();
        WatcherKey(self.watchers.insert(watcher))
    }

    /// Lets go of a watcher.
    pub fn remove_watcher(&mut self, key: WatcherKey) -> Watcher {
        let watcher = self.watchers.remove(key.0);
        self.watcher_bytes -= watcher.bytes();
        watcher
    }

    /// Lets go of a stream, and of what was sent to it.
    pub fn remove_stream(&mut self, key: StreamKey) -> Stream {
        let stream = self.streams.remove(key.0);
        self.queued_bytes -= stream.queued_bytes;
        self.canceled_ids -= stream.slots.values().filter(|slot| **slot == WatchSlot::Canceled).count();
        stream
    }

    /// A watch was cancelled from our side: its id stays taken until the client cancels (etcd-contract 22).
    pub fn keep_canceled(&mut self, key: StreamKey, watch_id: i64) {
        let before = self.stream_mut(key).slots.insert(watch_id, WatchSlot::Canceled);
        self.canceled_ids += usize::from(before != Some(WatchSlot::Canceled));
    }

    /// The client cancelled: what stood behind the id.
    pub fn forget_id(&mut self, key: StreamKey, watch_id: i64) -> Option<WatchSlot> {
        let slot = self.stream_mut(key).slots.remove(&watch_id);
        self.canceled_ids -= usize::from(slot == Some(WatchSlot::Canceled));
        slot
    }

    /// Memory of all watchers, and of the ids that stay taken.
    pub fn watcher_bytes(&self) -> usize {
        self.watcher_bytes + self.canceled_ids * CANCELED_ID_BYTES
    }

    /// Sends progress: the watch, or with [`NO_WATCH_ID`] all watches of the stream, were told everything up to there.
    pub fn respond_progress(&mut self, key: StreamKey, watch_id: i64, revision: i64, out: &mut Vec<Output>) {
        let told = &mut self.stream_mut(key).told_revision;
        *told = revision.max(*told);
        self.respond(key, ResponseHead { revision, watch_id, ..ResponseHead::default() }, out);
    }

    /// Sends a response without events.
    pub fn respond(&mut self, key: StreamKey, head: ResponseHead, out: &mut Vec<Output>) {
        self.send(key, head.alone(self.responder), 0, out);
    }

    /// Tells a watcher of the events picked for it, in responses of about `fragment_bytes` and whole revisions. When
    /// all are told, the watcher knows every event of its own up to `upto`, and the header says so.
    pub fn tell(&mut self, picks: &[Pick], events: &[SharedEvent], upto: i64, out: &mut Vec<Output>) -> Told {
        let mut rest = picks;
        while let Some(first) = rest.first() {
            let watcher = self.watcher(first.watcher);
            let told = if self.is_full(watcher.stream) { 0 } else { self.one_response(watcher, rest, events) };
            if told == 0 {
                return Told::Below(events[first.event].revision.main);
            }
            let (now, later) = rest.split_at(told);
            // A response that is not the last tells of all up to its own last event only (etcd-contract 30).
            let last = events[now[told - 1].event].revision.main;
            self.send_events(now, events, if later.is_empty() { upto } else { last }, out);
            rest = later;
        }
        Told::All
    }

    /// How many picks go into the next response: whole revisions, the first of them always, unless a previous value
    /// is missing.
    fn one_response(&self, watcher: &Watcher, picks: &[Pick], events: &[SharedEvent]) -> usize {
        let (mut whole, mut bytes) = (0, 0);
        for revision in picks.chunk_by(|a, b| events[a.event].revision.main == events[b.event].revision.main) {
            for pick in revision {
                let Some(frame) = events[pick.event].frame(watcher.prev_kv) else { return whole };
                bytes += frame.len();
            }
            if whole > 0 && bytes >= self.fragment_bytes {
                break;
            }
            whole += revision.len();
        }
        whole
    }

    fn send_events(&mut self, picks: &[Pick], events: &[SharedEvent], revision: i64, out: &mut Vec<Output>) {
        let Some(first) = picks.first() else { return };
        self.events_sent += picks.len() as u64;
        let told = &mut self.stream_of(first.watcher).told_revision;
        *told = revision.max(*told);
        let watcher = self.watchers.get_mut(first.watcher.0);
        watcher.quiet = false;
        let (stream, prev_kv, fragment) = (watcher.stream, watcher.prev_kv, watcher.fragment);
        let head = ResponseHead { revision, watch_id: watcher.watch_id, ..ResponseHead::default() };
        let frame_of = |pick: &Pick| events[pick.event].frame(prev_kv).expect("one_response stops at a missing value");
        let size: usize = picks.iter().map(|pick| frame_of(pick).len()).sum();
        if !fragment || picks.len() < 2 || size + head.encoded_len(self.responder) < self.fragment_bytes {
            let message = head.with_events(self.responder, picks.iter().map(frame_of));
            return self.send(stream, message, picks.len(), out);
        }
        let mut rest = picks;
        while !rest.is_empty() {
            // As many as stay below the limit, at least one (etcd `sendFragments`).
            let mut size = ResponseHead { fragment: true, ..head }.encoded_len(self.responder);
            let fits = rest.iter().take_while(|pick| {
                size += frame_of(pick).len();
                size < self.fragment_bytes
            });
            let (now, later) = rest.split_at(fits.count().max(1));
            let head = ResponseHead { fragment: !later.is_empty(), ..head };
            self.send(stream, head.with_events(self.responder, now.iter().map(frame_of)), now.len(), out);
            rest = later;
        }
    }

    fn send(&mut self, key: StreamKey, message: Vec<Bytes>, events: usize, out: &mut Vec<Output>) {
        let bytes = message.iter().map(Bytes::len).sum::<usize>();
        self.queued_bytes += bytes;
        let stream = self.stream_mut(key);
        stream.queued_bytes += bytes;
        out.push(Output::Send { stream: stream.id, message, events });
    }
}
