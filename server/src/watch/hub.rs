//! All watchers of one shard, or those whose ranges span several, and the events that reach them.

mod catch_up;
mod live;

use std::collections::{BTreeSet, VecDeque};

use basalt_storage::mvcc::shard_map::ShardId;
use basalt_storage::revision::Revision;
use bytes::Bytes;

use self::live::Batch;
use super::event::{EventKind, SharedEvent};
use super::interest::Interest;
use super::lane::{Lane, Missing};
use super::messages::{Output, Ticket};
use super::registry::Registry;
use super::response::ResponseHead;
use super::ring::Ring;
use super::watcher::{Sync, Watcher, WatcherKey};

/// Why a watch ends that would have to be told what cannot be read.
const REASON_DAMAGED: &str = "basalt: stored data is damaged; see the server's log";

/// Tells its watchers what happens in its shards.
///
/// * `live` holds the watchers that are [`Sync::Live`], `behind` the others; of these, `waiting` holds those that are
///   [`Sync::Waiting`] and `blocked` those that are [`Sync::Blocked`], by next revision.
/// * A live watcher was told of everything up to `delivered` that it wants; batches above it are in `pending`, in
///   order, and from the ring on everything up to `delivered` is in memory.
pub(super) struct Hub {
    position: usize,
    shards: Vec<ShardId>,
    live: Interest,
    behind: Interest,
    waiting: BTreeSet<(i64, WatcherKey)>,
    blocked: BTreeSet<(i64, WatcherKey)>,
    pending: VecDeque<Batch>,
    ring: Ring,
    delivered: i64,
    /// Nobody is told what lies below from history any more.
    compact_revision: i64,
    ring_lane: Lane,
    scan_lane: Lane,
    /// How many watchers there are, and how many of them want previous values.
    watchers: usize,
    prev_watchers: usize,
    revisions_max: usize,
}

impl Hub {
    /// A hub of `shards`, up to date with a store at `revision`.
    pub fn new(position: usize, shards: Vec<ShardId>, revision: i64, revisions_max: usize, seed: u64) -> Self {
        Self {
            position,
            shards,
            live: Interest::new(seed),
            behind: Interest::new(seed),
            waiting: BTreeSet::new(),
            blocked: BTreeSet::new(),
            pending: VecDeque::new(),
            ring: Ring::new(revision + 1),
            delivered: revision,
            compact_revision: 0,
            ring_lane: Lane::default(),
            scan_lane: Lane::default(),
            watchers: 0,
            prev_watchers: 0,
            revisions_max: revisions_max.max(1),
        }
    }

    /// Up to which revision live watchers were told everything.
    pub fn delivered(&self) -> i64 {
        self.delivered
    }

    pub fn watchers(&self) -> usize {
        self.watchers
    }

    /// Watchers that are not live.
    pub fn behind(&self) -> usize {
        self.waiting.len() + self.blocked.len()
    }

    /// Events that wait for previous values.
    pub fn pending_events(&self) -> usize {
        self.pending.iter().map(Batch::len).sum()
    }

    pub fn ring_bytes(&self) -> usize {
        self.ring.bytes()
    }

    /// Forgets the oldest revision in memory; `false` when there is none.
    pub fn evict(&mut self) -> bool {
        self.ring.evict()
    }

    /// Forgets all events and starts anew at `revision`. Only a hub without watchers may.
    pub fn restart(&mut self, revision: i64) {
        assert_eq!(self.watchers, 0, "a hub with watchers owes them events");
        self.start_at(revision);
    }

    fn start_at(&mut self, revision: i64) {
        self.pending.clear();
        self.ring = Ring::new(revision + 1);
        self.delivered = revision;
        (self.ring_lane, self.scan_lane) = (Lane::default(), Lane::default());
    }

    /// Goes on with another store at `revision`: what its watchers were not told yet, they are told from history.
    pub fn restore(&mut self, revision: i64, registry: &mut Registry) {
        let of_hub = |(key, watcher): (u32, &Watcher)| (watcher.hub == self.position).then_some(WatcherKey(key));
        let watchers: Vec<WatcherKey> = registry.watchers.iter().filter_map(of_hub).collect();
        let untold = self.delivered + 1;
        self.start_at(revision);
        for key in watchers {
            let watcher = registry.watcher(key);
            if watcher.sync == Sync::Live {
                let next_revision = watcher.next_revision.max(untold);
                self.move_to(key, next_revision, registry);
            }
        }
    }

    /// Takes a new watcher, live if all it wants is still to come.
    pub fn add(&mut self, watcher: Watcher, registry: &mut Registry) -> WatcherKey {
        self.watchers += 1;
        self.prev_watchers += usize::from(watcher.prev_kv);
        let key = registry.insert_watcher(watcher);
        let position = self.position;
        registry.stream_of(key).watchers_per_hub[position] += 1;
        self.file(key, registry);
        key
    }

    /// Lets go of a watcher and gives it back.
    pub fn remove(&mut self, key: WatcherKey, registry: &mut Registry) -> Watcher {
        self.unfile(key, registry);
        let position = self.position;
        registry.stream_of(key).watchers_per_hub[position] -= 1;
        let watcher = registry.remove_watcher(key);
        self.watchers -= 1;
        self.prev_watchers -= usize::from(watcher.prev_kv);
        watcher
    }

    /// Its stream drained: the watcher may catch up.
    pub fn unblock(&mut self, key: WatcherKey, registry: &mut Registry) {
        registry.begin_wait(key);
        let next = registry.watcher(key).next_revision;
        self.blocked.remove(&(next, key));
        self.waiting.insert((next, key));
    }

    /// Notes that history below `revision` may be gone.
    pub fn compact(&mut self, revision: i64) {
        self.compact_revision = revision;
    }

    /// Cancels the watchers whose next event may be compacted away (etcd-contract 25); also one that was live when the
    /// compaction came, and fell behind over events from before it.
    fn cancel_compacted(&mut self, registry: &mut Registry, out: &mut Vec<Output>) {
        let below = ..(self.compact_revision, WatcherKey(0));
        let lost: Vec<_> = self.waiting.range(below).chain(self.blocked.range(below)).map(|(_, key)| *key).collect();
        let compact_revision = self.compact_revision;
        lost.into_iter().for_each(|key| self.cancel(key, |id| compacted(id, compact_revision), registry, out));
    }

    /// Ends a watch from our side.
    fn cancel(
        &mut self,
        key: WatcherKey,
        head: impl Fn(i64) -> ResponseHead,
        registry: &mut Registry,
        out: &mut Vec<Output>,
    ) {
        let watcher = self.remove(key, registry);
        registry.keep_canceled(watcher.stream, watcher.watch_id);
        registry.respond(watcher.stream, head(watcher.watch_id), out);
    }

    /// Ends the watches that would have to be told of these events with their previous values, which cannot be read. Of
    /// those that are live only where the events are `new`: else they were told already.
    fn cancel_unshowable(&mut self, events: &[SharedEvent], new: bool, registry: &mut Registry, out: &mut Vec<Output>) {
        let mut lost = Vec::new();
        for event in events {
            let mut look = |key| {
                let watcher = registry.watcher(key);
                if watcher.prev_kv && watcher.next_revision <= event.revision.main && watcher.shows(event.kind) {
                    lost.push(key);
                }
            };
            self.behind.each(event.key(), &mut look);
            if new {
                self.live.each(event.key(), &mut look);
            }
        }
        lost.sort_unstable();
        lost.dedup();
        lost.into_iter().for_each(|key| self.cancel(key, damaged, registry, out));
    }

    /// Files a watcher by its next revision and the state of its stream.
    fn file(&mut self, key: WatcherKey, registry: &mut Registry) {
        let watcher = registry.watcher(key);
        let next = watcher.next_revision;
        let sync = if next > self.delivered {
            self.live.insert(&watcher.range, key);
            Sync::Live
        } else {
            self.behind.insert(&watcher.range, key);
            if registry.is_full(watcher.stream) { Sync::Blocked } else { Sync::Waiting }
        };
        registry.watcher_mut(key).sync = sync;
        registry.stream_of(key).behind += usize::from(sync != Sync::Live);
        match sync {
            Sync::Live => {}
            Sync::Waiting => {
                registry.begin_wait(key);
                self.waiting.insert((next, key));
            }
            Sync::Blocked => {
                registry.stream_of(key).blocked.insert(key);
                self.blocked.insert((next, key));
            }
        }
    }

    fn unfile(&mut self, key: WatcherKey, registry: &mut Registry) {
        let watcher = registry.watcher(key);
        let (sync, next) = (watcher.sync, watcher.next_revision);
        match sync {
            Sync::Live => self.live.remove(&watcher.range, key),
            Sync::Waiting | Sync::Blocked => self.behind.remove(&watcher.range, key),
        }
        let stream = registry.stream_of(key);
        stream.behind -= usize::from(sync != Sync::Live);
        match sync {
            Sync::Live => {}
            Sync::Waiting => {
                self.waiting.remove(&(next, key));
            }
            Sync::Blocked => {
                stream.blocked.remove(&key);
                self.blocked.remove(&(next, key));
            }
        }
    }

    /// Sets what a watcher is to be told next, and files it by that.
    fn move_to(&mut self, key: WatcherKey, next_revision: i64, registry: &mut Registry) {
        self.unfile(key, registry);
        registry.watcher_mut(key).next_revision = next_revision;
        self.file(key, registry);
    }

    /// Finds the previous values that `wanted` events lack: what memory holds is filled in, the rest returned.
    fn find_previous(&self, events: &mut [SharedEvent], wanted: impl Fn(&SharedEvent) -> bool) -> Missing {
        let mut missing = Missing::default();
        if self.prev_watchers == 0 {
            return missing;
        }
        for at in 0..events.len() {
            let Some((shard, revision)) = events[at].unfetched() else { continue };
            if !wanted(&events[at]) {
                continue;
            }
            match find(&events[..at], revision).or_else(|| self.in_memory(revision)) {
                Some(value) => events[at].resolve(Some(value)),
                None => {
                    missing.hits.push((shard, revision));
                    missing.events.push(at);
                }
            }
        }
        missing
    }

    /// A live version that the hub still has in memory.
    fn in_memory(&self, revision: Revision) -> Option<Bytes> {
        let pending = self.pending.iter().find_map(|batch| find(batch.events(), revision));
        pending.or_else(|| self.ring.get(revision).and_then(put_value))
    }
}

fn find(events: &[SharedEvent], revision: Revision) -> Option<Bytes> {
    let at = events.binary_search_by_key(&revision, |event| event.revision).ok()?;
    put_value(&events[at])
}

fn put_value(event: &SharedEvent) -> Option<Bytes> {
    (event.kind == EventKind::Put).then(|| event.key_value())
}

/// The response that ends a watch whose start is compacted: no revision in the header, no reason (etcd-contract 25).
pub(super) fn compacted(watch_id: i64, compact_revision: i64) -> ResponseHead {
    ResponseHead { watch_id, canceled: true, compact_revision, ..ResponseHead::default() }
}

/// The response that ends a watch whose events cannot be read. A client that comes back finds the same, until the damage
/// is compacted away or the data restored.
fn damaged(watch_id: i64) -> ResponseHead {
    ResponseHead { watch_id, canceled: true, cancel_reason: REASON_DAMAGED, ..ResponseHead::default() }
}

/// Asks for values.
fn fetch(missing: Missing, registry: &mut Registry, out: &mut Vec<Output>) -> super::lane::Fetching {
    let ticket: Ticket = registry.draw_ticket();
    out.push(Output::FetchPrevious { ticket, hits: missing.hits });
    super::lane::Fetching { ticket, events: missing.events }
}
