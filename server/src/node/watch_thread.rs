//! The watch thread: carries the inputs and outputs of [`Watches`]; reads history and previous values on the read
//! threads.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use basalt_storage::disk::Disk;
use basalt_storage::job::{BUDGET_UNLIMITED, run};
use basalt_storage::mvcc::delta::DeltaEntry;
use basalt_storage::mvcc::fetch::Fetch;
use basalt_storage::mvcc::history::History;
use basalt_storage::mvcc::key_value::KeyValue;
use basalt_storage::mvcc::range::Hit;
use basalt_storage::mvcc::shard_map::ShardId;
use basalt_storage::mvcc::view::View;
use basalt_storage::revision::Revision;
use bytes::Bytes;
use tokio::sync::mpsc::UnboundedSender;

use super::fatal;
use super::handle::{Gauges, Unavailable};
use super::readers::Readers;
use crate::watch::{Event, EventKind, Input, Output, StreamId, Watches};

/// How often the room looks at its clock: for progress and for streams that drained.
const TICK: Duration = Duration::from_millis(50);

/// Messages for one stream that leave together, each in pieces.
pub type Messages = Vec<Vec<Bytes>>;

/// Where messages of streams go; the API adds and removes them.
#[derive(Clone, Default)]
pub struct StreamSinks(Arc<Mutex<HashMap<u64, Sink>>>);

struct Sink {
    out: UnboundedSender<Messages>,
    /// What the turn brought so far: one wake-up of the connection for all of it.
    gathered: Messages,
}

impl StreamSinks {
    /// Messages of `stream` go to `sink` from now on. The queue is bounded by the room itself, which counts bytes.
    pub fn add(&self, stream: StreamId, out: UnboundedSender<Messages>) {
        self.lock().insert(stream.0, Sink { out, gathered: Messages::new() });
    }

    /// The stream is over.
    pub fn remove(&self, stream: StreamId) {
        self.lock().remove(&stream.0);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Sink>> {
        self.0.lock().expect("no one panics while holding the sinks")
    }
}

/// What the thread works with.
pub struct WatchLinks {
    /// To itself, for what readers send back.
    pub inbox: Sender<Input>,
    /// The newest View.
    pub view: Arc<ArcSwap<View>>,
    /// Page reads.
    pub readers: Readers,
    /// Figures.
    pub gauges: Arc<Gauges>,
    /// Streams.
    pub sinks: StreamSinks,
    /// The beginning of the node's clock.
    pub started: Instant,
}

/// Works until all senders but its own are gone or a stop is asked for.
pub fn serve(
    mut watches: Watches,
    links: &WatchLinks,
    inbox: &Receiver<Input>,
    stopping: &std::sync::atomic::AtomicBool,
) {
    let mut outputs = Vec::new();
    let mut next_tick = Instant::now() + TICK;
    while !stopping.load(std::sync::atomic::Ordering::Relaxed) {
        let wait = next_tick.saturating_duration_since(Instant::now());
        match inbox.recv_timeout(wait) {
            Ok(input) => watches.handle(input, links.started.elapsed(), &mut outputs),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        for input in inbox.try_iter().take(1024) {
            watches.handle(input, links.started.elapsed(), &mut outputs);
        }
        if Instant::now() >= next_tick {
            next_tick = Instant::now() + TICK;
            watches.handle(Input::Tick, links.started.elapsed(), &mut outputs);
            show(&watches, &links.gauges);
        }
        carry(&mut outputs, links);
    }
}

fn show(watches: &Watches, gauges: &Gauges) {
    let figures = watches.figures();
    gauges.watch_streams.store(figures.streams as u64, Ordering::Relaxed);
    gauges.watchers.store(figures.watchers as u64, Ordering::Relaxed);
    gauges.slow_watchers.store(figures.slow_watchers as u64, Ordering::Relaxed);
    gauges.pending_events.store(figures.pending_events as u64, Ordering::Relaxed);
}

fn carry(outputs: &mut Vec<Output>, links: &WatchLinks) {
    let mut sinks = None;
    let mut gathering = Vec::new();
    for output in outputs.drain(..) {
        match output {
            Output::Send { stream, message } => {
                let sinks = sinks.get_or_insert_with(|| links.sinks.lock());
                // A stream that ended meanwhile has no sink; its close is on the way.
                if let Some(sink) = sinks.get_mut(&stream.0) {
                    if sink.gathered.is_empty() {
                        gathering.push(stream);
                    }
                    sink.gathered.push(message);
                }
            }
            Output::Scan { ticket, shards, from, to, revisions_max } => {
                let (inbox, view) = (links.inbox.clone(), links.view.load_full());
                drop(links.readers.submit(move |disk| {
                    let (events, next) = scan(&view, &shards, from, to, revisions_max, disk);
                    // What this View has lost to a compaction, the room must know of before it takes the rest as whole.
                    drop(inbox.send(Input::Compacted(view.compact_revision)));
                    drop(inbox.send(Input::Scanned { ticket, events, next }));
                    Ok::<(), Unavailable>(())
                }));
            }
            Output::FetchPrevious { ticket, hits } => {
                let (inbox, view) = (links.inbox.clone(), links.view.load_full());
                drop(links.readers.submit(move |disk| {
                    let values = previous(&view, &hits, disk);
                    drop(inbox.send(Input::Previous { ticket, values }));
                    Ok::<(), Unavailable>(())
                }));
            }
        }
    }
    for stream in gathering {
        let sink = sinks.as_mut().and_then(|sinks| sinks.get_mut(&stream.0));
        let sink = sink.expect("the lock is held since the sink was seen");
        drop(sink.out.send(std::mem::take(&mut sink.gathered)));
    }
}

/// History of some shards, whole main revisions, merged in the order of writing.
fn scan(
    view: &Arc<View>,
    shards: &[ShardId],
    from: i64,
    to: i64,
    revisions_max: usize,
    disk: &dyn Disk,
) -> (Vec<Event>, Option<i64>) {
    let to = to.min(view.revision);
    let mut entries: Vec<(ShardId, DeltaEntry)> = Vec::new();
    let mut complete_below = i64::MAX;
    for shard in shards {
        let limit = revisions_max.saturating_mul(4).max(1);
        let (first, last) = (Revision::new(from, 0), Revision::new(to, i64::MAX));
        let mut found: Vec<DeltaEntry> = Vec::new();
        let mut next = Some(first);
        // A main revision is never cut: read on until the next one begins.
        while let Some(start) = next {
            let mut job = History::new(view.clone(), *shard, start, last, limit);
            let chunk = run(&mut job, disk, BUDGET_UNLIMITED)
                .unwrap_or_else(|cause| fatal::stop("reading history for watchers", &cause));
            found.extend(chunk.entries);
            next = chunk.next;
            if let (Some(next), Some(first)) = (next, found.first())
                && next.main > first.revision.main
            {
                complete_below = complete_below.min(next.main);
                break;
            }
        }
        entries.extend(found.into_iter().map(|entry| (*shard, entry)));
    }
    entries.retain(|(_, entry)| entry.revision.main < complete_below);
    entries.sort_unstable_by_key(|(_, entry)| entry.revision);
    let next = (complete_below <= to).then_some(complete_below);
    let mut events: Vec<Event> = entries.into_iter().map(|(shard, entry)| past_event(shard, &entry)).collect();
    look_before_transactions(&mut events);
    (events, next)
}

fn past_event(shard: ShardId, entry: &DeltaEntry) -> Event {
    let stored = KeyValue::parse(&entry.key_value).unwrap_or_default();
    let mod_revision = entry.revision.main;
    let replaces = entry.tombstone || stored.create_revision != mod_revision;
    let (kind, key_value) = if entry.tombstone {
        let shown = KeyValue { key: stored.key, mod_revision, ..KeyValue::default() };
        (EventKind::Delete, shown.encode())
    } else {
        // History from pages shares large buffers: keep only this value alive.
        (EventKind::Put, Bytes::copy_from_slice(&entry.key_value))
    };
    let key = KeyValue::key_of(&key_value);
    Event { revision: entry.revision, shard, key, kind, key_value, previous: entry.previous.filter(|_| replaces) }
}

/// What a watcher is shown as previous stood before the whole transaction, not before the change inside it
/// (etcd-contract 21). Events are in order, so that the earlier change of a key is settled before the later one.
pub(super) fn look_before_transactions(events: &mut [Event]) {
    for at in 0..events.len() {
        let (before, rest) = events.split_at_mut(at);
        let event = &mut rest[0];
        let Some(inner) = event.previous.filter(|previous| previous.main == event.revision.main) else { continue };
        let earlier = before.iter().rev().find(|earlier| earlier.revision == inner);
        event.previous = earlier.and_then(|earlier| earlier.previous);
    }
}

/// Previous values; one below the compact revision may be gone, and is then left out (etcd-contract 21).
fn previous(view: &Arc<View>, hits: &[(ShardId, Revision)], disk: &dyn Disk) -> Vec<Option<Bytes>> {
    let one = |&(shard, revision): &(ShardId, Revision)| {
        let hit = Hit { shard, revision };
        if let Some(value) = view.resident(hit) {
            return Some(value);
        }
        let mut fetch = Fetch::new(view.clone(), vec![hit]);
        run(&mut fetch, disk, BUDGET_UNLIMITED).ok()?.pop()
    };
    hits.iter().map(one).collect()
}
