//! The watch thread: carries the inputs and outputs of [`Watches`]; reads history and previous values on the read
//! threads.

use std::collections::HashMap;
use std::mem;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use basalt_storage::mvcc::view::View;
use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::UnboundedSender;

use super::handle::Gauges;
use super::readers::Readers;
use super::watch_backlog::WatchBacklog;
use super::watch_history::{Scanned, previous, scan};
use crate::failpoints::{self, Point};
use crate::metrics::Metrics;
use crate::watch::{Input, Output, StreamId, Watches};

/// How often the room looks at its clock: for progress and for streams that drained.
const TICK: Duration = Duration::from_millis(50);

/// Bytes of requests that may wait for the thread, over all streams; what each takes beside its keys.
const REQUEST_BYTES_WAITING_MAX: usize = 32 << 20;
const REQUEST_FIXED_BYTES: usize = 256;

/// What one turn of the thread has for one stream: it leaves together.
#[derive(Debug)]
pub struct Turn {
    /// Messages, each in pieces.
    pub messages: Vec<Vec<Bytes>>,
    /// How many events they tell; none where they only answer, or say how far the stream is.
    pub events: usize,
    /// How many of them tell none.
    pub answers: usize,
    /// When the thread let them go.
    pub sent: Instant,
}

/// Where messages of streams go; the API adds and removes them.
#[derive(Clone)]
pub struct StreamSinks {
    sinks: Arc<Mutex<HashMap<u64, Sink>>>,
    /// Room for requests that the thread has not taken yet, bytes.
    requests: Arc<Semaphore>,
}

struct Sink {
    out: UnboundedSender<Turn>,
    /// What the turn brought so far: one wake-up of the connection for all of it.
    gathered: Vec<Vec<Bytes>>,
    gathered_events: usize,
    gathered_answers: usize,
    taken: Arc<Taken>,
}

/// What the connection of a stream took, as it and the thread know it.
#[derive(Debug, Default)]
pub struct Taken {
    /// Bytes that the room does not know of yet.
    pub untold_bytes: AtomicUsize,
    /// Answers that wait.
    pub backlog: WatchBacklog,
}

impl Default for StreamSinks {
    fn default() -> Self {
        Self { sinks: Arc::default(), requests: Arc::new(Semaphore::new(REQUEST_BYTES_WAITING_MAX)) }
    }
}

impl StreamSinks {
    /// Waits until there is room for a client's request on its way to the thread. The thread gives it back.
    pub async fn admit(&self, input: &Input) {
        if let Some(bytes) = request_bytes(input) {
            // It is never closed.
            if let Ok(permits) = self.requests.acquire_many(bytes).await {
                permits.forget();
            }
        }
    }

    /// What is left of that room.
    #[cfg(test)]
    pub fn free_request_bytes(&self) -> usize {
        self.requests.available_permits()
    }

    fn taken(&self, input: &Input) {
        if let Some(bytes) = request_bytes(input) {
            self.requests.add_permits(bytes as usize);
        }
    }

    /// Messages of `stream` go to `sink` from now on. The queue is bounded by the room itself, which counts bytes.
    /// What the connection takes is noted in what is given back; the thread looks at it with every tick.
    pub fn add(&self, stream: StreamId, out: UnboundedSender<Turn>) -> Arc<Taken> {
        let taken = Arc::<Taken>::default();
        let sink =
            Sink { out, gathered: Vec::new(), gathered_events: 0, gathered_answers: 0, taken: Arc::clone(&taken) };
        self.lock().insert(stream.0, sink);
        taken
    }

    /// These streams' requests were handled, one for each time that a stream stands here, and their answers are counted.
    fn handled(&self, streams: &mut Vec<StreamId>) {
        if streams.is_empty() {
            return;
        }
        let sinks = self.lock();
        for stream in streams.drain(..) {
            if let Some(sink) = sinks.get(&stream.0) {
                sink.taken.backlog.fell(1);
            }
        }
    }

    /// What connections took of streams since the last call, where nobody told the room.
    fn take_untold(&self) -> Vec<Input> {
        let sinks = self.lock();
        let untold = sinks.iter().map(|(stream, sink)| (*stream, sink.taken.untold_bytes.swap(0, Ordering::Relaxed)));
        untold
            .filter(|(_, bytes)| *bytes > 0)
            .map(|(stream, bytes)| Input::Drained { stream: StreamId(stream), bytes })
            .collect()
    }

    /// The stream is over.
    pub fn remove(&self, stream: StreamId) {
        self.lock().remove(&stream.0);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Sink>> {
        self.sinks.lock().expect("no one panics while holding the sinks")
    }
}

/// Whose request it is; `None` for what no client sends.
fn asked_by(input: &Input) -> Option<StreamId> {
    match input {
        Input::Create { stream, .. }
        | Input::Refuse { stream, .. }
        | Input::Cancel { stream, .. }
        | Input::Progress { stream } => Some(*stream),
        _ => None,
    }
}

/// What a client's request takes while it waits; `None` for what no client sends.
fn request_bytes(input: &Input) -> Option<u32> {
    let bytes = match input {
        Input::Create { request, .. } => request.key.len() + request.range_end.len() + size_of_val(&*request.filters),
        Input::Cancel { .. } | Input::Progress { .. } => 0,
        _ => return None,
    };
    let bytes = (bytes + REQUEST_FIXED_BYTES).min(REQUEST_BYTES_WAITING_MAX);
    Some(u32::try_from(bytes).expect("the limit is far below 4 GiB"))
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
    /// Figures that only a scrape shows.
    pub metrics: Arc<Metrics>,
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
    let (mut outputs, mut asked) = (Vec::new(), Vec::new());
    let mut next_tick = Instant::now() + TICK;
    while !stopping.load(std::sync::atomic::Ordering::Relaxed) {
        let wait = next_tick.saturating_duration_since(Instant::now());
        let mut take = |input: Input| {
            links.sinks.taken(&input);
            asked.extend(asked_by(&input));
            if matches!(input, Input::Progress { .. }) {
                failpoints::hit(Point::BeforeProgressIfSync);
            }
            watches.handle(input, links.started.elapsed(), &mut outputs);
        };
        match inbox.recv_timeout(wait) {
            Ok(input) => take(input),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        inbox.try_iter().take(1024).for_each(&mut take);
        if Instant::now() >= next_tick {
            failpoints::hit(Point::BeforeSyncWatchers);
            next_tick = Instant::now() + TICK;
            for drained in links.sinks.take_untold() {
                watches.handle(drained, links.started.elapsed(), &mut outputs);
            }
            let (waiting, began) = (outputs.len(), Instant::now());
            watches.handle(Input::Tick, links.started.elapsed(), &mut outputs);
            if outputs.len() > waiting {
                // What time alone brings forth is progress.
                links.metrics.watch_progress_seconds.observe(began.elapsed().as_secs_f64());
            }
            show(&watches, links);
        }
        carry(&mut outputs, links);
        links.sinks.handled(&mut asked);
    }
}

fn show(watches: &Watches, links: &WatchLinks) {
    let (figures, gauges) = (watches.figures(), &links.gauges);
    gauges.watch_streams.store(figures.streams as u64, Ordering::Relaxed);
    gauges.watchers.store(figures.watchers as u64, Ordering::Relaxed);
    gauges.slow_watchers.store(figures.slow_watchers as u64, Ordering::Relaxed);
    gauges.pending_events.store(figures.pending_events as u64, Ordering::Relaxed);
    gauges.events_sent.store(figures.events_sent, Ordering::Relaxed);
    for (hub, bytes) in watches.ring_bytes() {
        links.metrics.watch_ring_bytes.with_label_values(&[hub]).set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}

fn carry(outputs: &mut Vec<Output>, links: &WatchLinks) {
    if outputs.iter().any(|output| matches!(output, Output::Send { .. })) {
        failpoints::hit(Point::BeforeSendWatchResponse);
    }
    let mut sinks = None;
    let mut gathering = Vec::new();
    for output in outputs.drain(..) {
        match output {
            Output::Send { stream, message, events } => {
                let sinks = sinks.get_or_insert_with(|| links.sinks.lock());
                // A stream that ended meanwhile has no sink; its close is on the way.
                if let Some(sink) = sinks.get_mut(&stream.0) {
                    if sink.gathered.is_empty() {
                        gathering.push(stream);
                    }
                    sink.gathered.push(message);
                    sink.gathered_events += events;
                    sink.gathered_answers += usize::from(events == 0);
                }
            }
            Output::Scan { ticket, shards, from, to, revisions_max } => {
                let (inbox, view) = (links.inbox.clone(), links.view.load_full());
                links.metrics.watch_history_scans_total.inc();
                links.readers.spawn(move |disk| {
                    let scanned = scan(&view, &shards, from, to, revisions_max, disk);
                    // What this View has lost to a compaction, the room must know of before it takes the rest as whole.
                    drop(inbox.send(Input::Compacted(view.compact_revision)));
                    drop(inbox.send(match scanned {
                        Scanned::Events { events, next } => Input::Scanned { ticket, events, next },
                        Scanned::Damaged => Input::Unreadable { ticket },
                    }));
                });
            }
            Output::FetchPrevious { ticket, hits } => {
                let (inbox, view) = (links.inbox.clone(), links.view.load_full());
                links.readers.spawn(move |disk| {
                    let values = previous(&view, &hits, disk);
                    drop(inbox.send(Input::Previous { ticket, values }));
                });
            }
        }
    }
    if gathering.is_empty() {
        return;
    }
    let sent = Instant::now();
    for stream in gathering {
        let sink = sinks.as_mut().and_then(|sinks| sinks.get_mut(&stream.0));
        let sink = sink.expect("the lock is held since the sink was seen");
        let (messages, events) = (mem::take(&mut sink.gathered), mem::take(&mut sink.gathered_events));
        let answers = mem::take(&mut sink.gathered_answers);
        sink.taken.backlog.grew(answers);
        drop(sink.out.send(Turn { messages, events, answers, sent }));
    }
}

#[cfg(test)]
mod tests {
    use basalt_proto::etcdserverpb::WatchCreateRequest;
    use futures_util::FutureExt;

    use super::*;

    fn create(key_bytes: usize) -> Input {
        let request = WatchCreateRequest { key: vec![b'k'; key_bytes].into(), ..WatchCreateRequest::default() };
        Input::Create { stream: StreamId(1), request }
    }

    /// How many of these requests get through while the thread takes none: the next would wait for room.
    fn admitted(sinks: &StreamSinks, input: &Input) -> usize {
        std::iter::from_fn(|| sinks.admit(input).now_or_never()).count()
    }

    #[test]
    fn requests_wait_when_the_thread_does_not_take_them() {
        for (input, bytes) in [(create(1 << 20), (1 << 20) + REQUEST_FIXED_BYTES), (create(0), REQUEST_FIXED_BYTES)] {
            let sinks = StreamSinks::default();
            assert_eq!(admitted(&sinks, &input), REQUEST_BYTES_WAITING_MAX / bytes);
            // Each that is taken lets another one in; what no client sends takes no room and gives none.
            sinks.taken(&input);
            sinks.taken(&Input::Close(StreamId(1)));
            assert_eq!(admitted(&sinks, &input), 1);
        }
        // What filters take is counted, too.
        let filters = vec![0; 1 << 20];
        let request = WatchCreateRequest { filters, ..WatchCreateRequest::default() };
        let input = Input::Create { stream: StreamId(1), request };
        assert_eq!(
            admitted(&StreamSinks::default(), &input),
            REQUEST_BYTES_WAITING_MAX / ((4 << 20) + REQUEST_FIXED_BYTES)
        );
        // One request alone is never too large for the bound.
        let sinks = StreamSinks::default();
        assert_eq!(admitted(&sinks, &create(2 * REQUEST_BYTES_WAITING_MAX)), 1);
    }
}
