//! The room itself: takes inputs, keeps streams and hubs, leaves outputs.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use basalt_proto::etcdserverpb::WatchCreateRequest;
use basalt_proto::etcdserverpb::watch_create_request::FilterType;
use basalt_storage::mvcc::key_range::KeyRange;
use basalt_storage::mvcc::shard_map::{ShardId, ShardMap};
use basalt_storage::planted::{Bug, is_planted};
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::config::WatchConfig;
use super::event::{Event, SharedEvent};
use super::hub::{Hub, compacted};
use super::messages::{Input, Output, PreviousValue, StreamId, Ticket};
use super::registry::Registry;
use super::response::{NO_WATCH_ID, Responder, ResponseHead};
use super::stream::{Asker, Stream, WatchSlot};
use super::watcher::{StreamKey, Sync, Watcher};
use crate::apply::auth::error::AuthError;
use crate::apply::auth::permissions::Access;
use crate::apply::auth::state::AuthNow;

/// etcd-contract 24.
const REASON_COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";
/// etcd-contract 23.
const REASON_EMPTY_RANGE: &str = "mvcc: watcher range is empty";
/// etcd-contract 22.
const REASON_DUPLICATE_ID: &str = "mvcc: duplicate watch ID provided on the WatchStream";

/// etcd-contract 26. etcd says it to who begins to watch; we also to who may not go on.
const REASON_DENIED: &str = "rpc error: code = PermissionDenied desc = etcdserver: permission denied";
const REASON_NOBODY: &str = "rpc error: code = InvalidArgument desc = etcdserver: user name is empty";

/// Ours: watchers are bounded by bytes.
const REASON_TOO_MANY: &str =
    "basalt: too many watches: no memory is left for another; end some, or watch wider ranges";

/// What the room holds, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WatchFigures {
    /// Open streams.
    pub streams: usize,
    /// Watchers of all streams.
    pub watchers: usize,
    /// Watchers that catch up or wait for their stream to drain.
    pub slow_watchers: usize,
    /// Events that wait for previous values.
    pub pending_events: usize,
    /// Events sent since the start, to whomever.
    pub events_sent: u64,
}

/// All watches of one node. [`Self::handle`] is its only door.
///
/// The caller keeps these promises:
/// * `Applied` comes in order: its events are newer than every revision applied before, and none up to its `revision`
///   comes later. It comes before anybody learns that the writes in it were applied.
/// * A `Scan` and a `FetchPrevious` are answered once each, from a View that holds every event handed in before; of a
///   View that is compacted at C, `Compacted(C)` comes before the answer.
/// * It sends the messages of a stream in order and reports as `Drained` what the client took.
pub struct Watches {
    pub(super) config: WatchConfig,
    shard_map: ShardMap,
    pub(super) registry: Registry,
    /// One a shard, in their order, then the one for ranges that span several.
    pub(super) hubs: Vec<Hub>,
    pub(super) revision: i64,
    compact_revision: i64,
    /// Streams with a progress request that is not answered.
    pub(super) progress_wanted: BTreeSet<StreamKey>,
    /// When the next periodic progress of a stream is due.
    pub(super) progress_due: BTreeSet<(Duration, StreamKey)>,
    pub(super) random: StdRng,
    /// The newest users and roles; `None` as long as they are those of the start.
    auth: Option<Arc<AuthNow>>,
}

impl Watches {
    /// A room without streams, beside a store at `revision`, compacted at `compact_revision`.
    pub fn new(config: WatchConfig, shard_map: ShardMap, revision: i64, compact_revision: i64) -> Self {
        let responder =
            Responder { cluster_id: config.cluster_id, member_id: config.member_id, raft_term: config.raft_term };
        let shards: Vec<ShardId> = (0u32..).zip(shard_map.shards()).map(|(number, _)| ShardId(number)).collect();
        let mut fed: Vec<Vec<ShardId>> = shards.iter().map(|shard| vec![*shard]).collect();
        fed.push(shards);
        let hub = |(position, shards)| {
            let mut hub = Hub::new(position, shards, revision, config.scan_revisions_max, config.seed);
            hub.compact(compact_revision);
            hub
        };
        Self {
            hubs: fed.into_iter().enumerate().map(hub).collect(),
            registry: Registry::new(responder, &config),
            shard_map,
            revision,
            compact_revision,
            progress_wanted: BTreeSet::new(),
            progress_due: BTreeSet::new(),
            random: StdRng::seed_from_u64(config.seed),
            auth: None,
            config,
        }
    }

    /// Takes one input at `now`, a monotonic time, and appends what is to be done.
    ///
    /// # Panics
    /// When `Applied` breaks its promises: watchers were told otherwise before.
    pub fn handle(&mut self, input: Input, now: Duration, out: &mut Vec<Output>) {
        match input {
            Input::Open(stream) => self.open(stream, now),
            Input::Close(stream) => self.close(stream),
            Input::Create { stream, request } => self.create(stream, &request, out),
            Input::Refuse { stream, reason } => self.refuse(stream, reason, out),
            Input::Asker { stream, user, auth } => {
                self.note_asker(stream, user);
                self.permit(auth, out);
            }
            Input::Permissions(auth) => self.permit(auth, out),
            Input::Cancel { stream, watch_id } => self.cancel(stream, watch_id, out),
            Input::Progress { stream } => self.want_progress(stream),
            Input::Applied { revision, events } => self.apply(revision, &events, out),
            Input::Restored { revision, compact_revision } => self.restore(revision, compact_revision),
            Input::Compacted(revision) => self.compact(revision),
            Input::Term(term) => self.registry.responder.raft_term = term,
            Input::Scanned { ticket, events, next } => {
                for hub in &mut self.hubs {
                    hub.take_scanned(ticket, &events, next, &mut self.registry, out);
                }
            }
            Input::Unreadable { ticket } => {
                for hub in &mut self.hubs {
                    hub.take_unreadable(ticket, &mut self.registry, out);
                }
            }
            Input::Previous { ticket, values } => self.take_previous(ticket, values, out),
            Input::Drained { stream, bytes } => self.drain(stream, bytes),
            Input::Tick => self.tick(now, out),
        }
        for hub in &mut self.hubs {
            hub.catch_up(&mut self.registry, out);
        }
        self.evict();
        self.answer_progress(out);
    }

    /// What the room holds.
    pub fn figures(&self) -> WatchFigures {
        let sum = |of: fn(&Hub) -> usize| self.hubs.iter().map(of).sum();
        WatchFigures {
            streams: self.registry.streams.len(),
            watchers: sum(Hub::watchers),
            slow_watchers: sum(Hub::behind),
            pending_events: sum(Hub::pending_events),
            events_sent: self.registry.events_sent,
        }
    }

    /// Recent events in memory by hub: its shard's name, or `spanning`.
    pub fn ring_bytes(&self) -> impl Iterator<Item = (&str, usize)> {
        let names = self.shard_map.shards().iter().map(|shard| shard.name.as_str()).chain(["spanning"]);
        names.zip(self.hubs.iter().map(Hub::ring_bytes))
    }

    fn open(&mut self, id: StreamId, now: Duration) {
        let interval = self.draw_progress_interval();
        let stream = Stream::new(id, self.hubs.len(), interval, now);
        let key = StreamKey(self.registry.streams.insert(stream));
        let before = self.registry.stream_keys.insert(id, key);
        assert!(before.is_none(), "a stream id is used once");
        self.progress_due.insert((now + interval, key));
    }

    fn close(&mut self, id: StreamId) {
        let Some(key) = self.registry.stream_keys.remove(&id) else { return };
        let watchers: Vec<_> = self.registry.stream(key).watcher_keys().collect();
        for watcher in watchers {
            let hub = self.registry.watcher(watcher).hub;
            self.hubs[hub].remove(watcher, &mut self.registry);
        }
        let stream = self.registry.remove_stream(key);
        self.progress_wanted.remove(&key);
        self.progress_due.remove(&(stream.progress_due, key));
    }

    fn create(&mut self, stream: StreamId, request: &WatchCreateRequest, out: &mut Vec<Output>) {
        let Some(&stream) = self.registry.stream_keys.get(&stream) else { return };
        // An empty key means the smallest there is (etcd `v3rpc/watch.go`).
        let key: &[u8] = if request.key.is_empty() { &[0] } else { &request.key };
        let range = KeyRange::from_wire(key, &request.range_end);
        let watch_id = self.admit(stream, request, &range);
        let created = ResponseHead {
            revision: self.revision,
            watch_id: watch_id.unwrap_or(NO_WATCH_ID),
            created: true,
            canceled: watch_id.is_err(),
            cancel_reason: watch_id.err().unwrap_or_default(),
            ..ResponseHead::default()
        };
        self.registry.respond(stream, created, out);
        let Ok(watch_id) = watch_id else { return };
        // Starting at the compact revision is allowed (etcd-contract 25).
        if (1..self.compact_revision).contains(&request.start_revision) {
            self.registry.keep_canceled(stream, watch_id);
            self.registry.respond(stream, compacted(watch_id, self.compact_revision), out);
            return;
        }
        self.add_watcher(stream, watch_id, request, range);
    }

    fn refuse(&mut self, stream: StreamId, reason: &'static str, out: &mut Vec<Output>) {
        let Some(&stream) = self.registry.stream_keys.get(&stream) else { return };
        let refused = ResponseHead {
            revision: self.revision,
            watch_id: NO_WATCH_ID,
            created: true,
            canceled: true,
            cancel_reason: reason,
            ..ResponseHead::default()
        };
        self.registry.respond(stream, refused, out);
    }

    fn note_asker(&mut self, stream: StreamId, user: Option<Arc<str>>) {
        if let Some(&stream) = self.registry.stream_keys.get(&stream) {
            self.registry.stream_mut(stream).asker = Asker { user };
        }
    }

    /// Why a stream's client may not read a range, by the newest users and roles that the room was told of.
    fn denied(&self, stream: StreamKey, range: &KeyRange) -> Option<&'static str> {
        let auth = self.auth.as_ref()?;
        let principal = self.registry.stream(stream).asker.principal();
        let asked = auth.state.asked_by(principal.as_ref()).may(Access::Read, &range.start, range.wire_end());
        asked.err().map(|error| if error == AuthError::UserEmpty { REASON_NOBODY } else { REASON_DENIED })
    }

    /// Takes over newer users and roles, and ends the watches whose client may not read their keys any more.
    fn permit(&mut self, auth: Arc<AuthNow>, out: &mut Vec<Output>) {
        if self.auth.as_ref().is_some_and(|known| known.number >= auth.number) {
            return;
        }
        self.auth = Some(auth);
        if is_planted(Bug::WatchOutlivesPermission) {
            return;
        }
        let mut streams: Vec<StreamKey> = self.registry.stream_keys.values().copied().collect();
        streams.sort_unstable();
        for key in streams {
            let slots = self.registry.stream(key).slots.iter().filter_map(|(id, slot)| match slot {
                WatchSlot::Watching(watcher) => {
                    let reason = self.denied(key, &self.registry.watcher(*watcher).range)?;
                    Some((*id, *watcher, reason))
                }
                WatchSlot::Canceled => None,
            });
            for (watch_id, watcher, cancel_reason) in slots.collect::<Vec<_>>() {
                let hub = self.registry.watcher(watcher).hub;
                self.hubs[hub].remove(watcher, &mut self.registry);
                self.registry.keep_canceled(key, watch_id);
                let canceled = ResponseHead {
                    revision: self.revision,
                    watch_id,
                    canceled: true,
                    cancel_reason,
                    ..ResponseHead::default()
                };
                self.registry.respond(key, canceled, out);
            }
        }
    }

    /// The id of a new watch, or why there is none.
    fn admit(
        &mut self,
        stream: StreamKey,
        request: &WatchCreateRequest,
        range: &KeyRange,
    ) -> Result<i64, &'static str> {
        if request.start_revision < 0 {
            return Err(REASON_COMPACTED);
        }
        // The API asked by users and roles that may be older by now.
        if let Some(reason) = self.denied(stream, range) {
            return Err(reason);
        }
        if range.is_empty() {
            return Err(REASON_EMPTY_RANGE);
        }
        if self.registry.watcher_bytes() >= self.config.watcher_bytes_max {
            return Err(REASON_TOO_MANY);
        }
        self.registry.stream_mut(stream).allot_watch_id(request.watch_id).ok_or(REASON_DUPLICATE_ID)
    }

    fn add_watcher(&mut self, stream: StreamKey, watch_id: i64, request: &WatchCreateRequest, range: KeyRange) {
        let hub = match self.shard_map.shards_of(&range)[..] {
            [shard] => shard.position(),
            _ => self.hubs.len() - 1,
        };
        if hub == self.spanning() && self.hubs[hub].watchers() == 0 {
            // It is fed only while it has watchers.
            self.hubs[hub].restart(self.revision);
        }
        let filters = |filter: FilterType| request.filters.contains(&(filter as i32));
        let start_revision = request.start_revision;
        let watcher = Watcher {
            stream,
            hub,
            watch_id,
            range,
            start_revision,
            next_revision: match start_revision {
                0 => self.revision + 1,
                future if future > self.revision && is_planted(Bug::FutureWatchServed) => self.revision + 1,
                start => start,
            },
            sync: Sync::Live,
            waiting_since: 0,
            prev_kv: request.prev_kv,
            fragment: request.fragment,
            progress_notify: request.progress_notify,
            no_put: filters(FilterType::Noput),
            no_delete: filters(FilterType::Nodelete),
            quiet: true,
        };
        let key = self.hubs[hub].add(watcher, &mut self.registry);
        self.registry.stream_mut(stream).slots.insert(watch_id, WatchSlot::Watching(key));
    }

    /// Unknown ids are ignored; nothing more is said of the id afterwards (etcd-contract 28).
    fn cancel(&mut self, stream: StreamId, watch_id: i64, out: &mut Vec<Output>) {
        let Some(&stream) = self.registry.stream_keys.get(&stream) else { return };
        let Some(slot) = self.registry.forget_id(stream, watch_id) else { return };
        if let WatchSlot::Watching(watcher) = slot {
            let hub = self.registry.watcher(watcher).hub;
            self.hubs[hub].remove(watcher, &mut self.registry);
        }
        let canceled = ResponseHead { revision: self.revision, watch_id, canceled: true, ..ResponseHead::default() };
        self.registry.respond(stream, canceled, out);
    }

    fn apply(&mut self, revision: i64, events: &[Event], out: &mut Vec<Output>) {
        let (first, last) = (events.first(), events.last());
        assert!(first.is_none_or(|event| event.revision.main > self.revision), "an event of the past was applied");
        assert!(last.is_none_or(|event| event.revision.main <= revision), "an event is ahead of the store");
        assert!(revision >= self.revision, "the store's revision went back to {revision}");
        let spanning = self.spanning();
        let mut of_hubs: Vec<Vec<SharedEvent>> = self.hubs.iter().map(|_| Vec::new()).collect();
        let spanned = self.hubs[spanning].watchers() > 0;
        for event in events {
            let shared = SharedEvent::new(event);
            if spanned {
                of_hubs[spanning].push(shared.clone());
            }
            of_hubs[event.shard.position()].push(shared);
        }
        if !spanned {
            self.hubs[spanning].restart(revision);
        }
        self.revision = revision;
        for (hub, events) in self.hubs.iter_mut().zip(of_hubs) {
            hub.apply(events, revision, &mut self.registry, out);
        }
    }

    fn restore(&mut self, revision: i64, compact_revision: i64) {
        assert!(revision >= self.revision, "a snapshot took the store back to {revision}");
        self.revision = revision;
        self.compact(compact_revision);
        for hub in &mut self.hubs {
            hub.restore(revision, &mut self.registry);
        }
    }

    fn compact(&mut self, revision: i64) {
        self.compact_revision = self.compact_revision.max(revision);
        for hub in &mut self.hubs {
            hub.compact(self.compact_revision);
        }
    }

    fn take_previous(&mut self, ticket: Ticket, values: Vec<PreviousValue>, out: &mut Vec<Output>) {
        let mut values = values;
        for hub in &mut self.hubs {
            match hub.take_previous(ticket, values, &mut self.registry, out) {
                Some(others) => values = others,
                None => return,
            }
        }
        for hub in &mut self.hubs {
            if hub.waits_for_previous(ticket) {
                return hub.take_chunk_previous(ticket, values, &mut self.registry, out);
            }
        }
    }

    fn drain(&mut self, id: StreamId, bytes: usize) {
        let Some(&key) = self.registry.stream_keys.get(&id) else { return };
        let resume_below = self.config.stream_queue_bytes_max / 2;
        self.registry.drained(key, bytes);
        let stream = self.registry.stream_mut(key);
        if stream.queued_bytes > resume_below {
            return;
        }
        for watcher in std::mem::take(&mut stream.blocked) {
            let hub = self.registry.watcher(watcher).hub;
            self.hubs[hub].unblock(watcher, &mut self.registry);
        }
    }

    /// Keeps recent events within their budget, always at the cost of the hub that holds most: a storm in one shard
    /// does not take the others' memory.
    fn evict(&mut self) {
        let mut bytes: usize = self.hubs.iter().map(Hub::ring_bytes).sum();
        while bytes > self.config.ring_bytes {
            let Some(largest) = self.hubs.iter_mut().max_by_key(|hub| hub.ring_bytes()) else { return };
            bytes -= largest.ring_bytes();
            if !largest.evict() {
                return;
            }
            bytes += largest.ring_bytes();
        }
    }

    fn spanning(&self) -> usize {
        self.hubs.len() - 1
    }
}
