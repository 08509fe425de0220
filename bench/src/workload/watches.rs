//! Loads on watches: writers in a loop, and many watchers that each event goes to. One operation is one event at one
//! watcher; its latency counts from the put that caused it.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use basalt_proto::etcdserverpb::kv_client::KvClient;
use basalt_proto::etcdserverpb::watch_client::WatchClient;
use basalt_proto::etcdserverpb::watch_request::RequestUnion;
use basalt_proto::etcdserverpb::{PutRequest, WatchCreateRequest, WatchRequest, WatchResponse};
use bytes::Bytes;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_stream::StreamExt;
use tonic::{Status, Streaming};

use super::Sizes;
use super::key_space::{KeySpace, random_value};
use super::load::Load;
use super::sizes::{OBJECT_KEYS, PUT_VALUE_BYTES};
use crate::closed_loop::{Caller, Pace, Tally, closed_loop};
use crate::connections::{Connections, Wire};

/// Writers when each event goes to very many watchers; every put in flight is that many events in flight.
const PREFIX_WRITERS: usize = 16;
/// How long the last events of a round may take before they count as missing.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// A value starts with the nanoseconds from the start of the load to its put.
const STAMP_BYTES: usize = 8;
const _: () = assert!(PUT_VALUE_BYTES >= STAMP_BYTES);

/// Watchers, their readers, and the writers.
///
/// * A put takes one permit of `window` for each event it will cause, and each event that arrives gives one back: the
///   events in flight are bounded, and once all permits are back all events have arrived.
pub(super) struct Watches {
    writers: Vec<Writer>,
    window: Arc<Semaphore>,
    /// Permits of `window` when nothing is in flight.
    window_events: u32,
    readers: Vec<Reader>,
}

impl Watches {
    /// All watchers on one prefix: every put reaches all of them.
    pub(super) async fn on_prefix(connections: &Connections, sizes: &Sizes) -> Result<Self> {
        let keys = KeySpace::new("prefix-watched", OBJECT_KEYS);
        let (key, range_end) = keys.range();
        let watched = vec![(key, range_end); sizes.prefix_watchers()];
        Self::create(connections, keys, watched, PREFIX_WRITERS, sizes.prefix_watchers()).await
    }

    /// Each watcher on a key of its own: every put reaches one of them.
    pub(super) async fn on_keys(connections: &Connections, sizes: &Sizes) -> Result<Self> {
        let keys = KeySpace::new("key-watched", sizes.key_watchers());
        let watched = (0..keys.keys).map(|number| (keys.key(number), Bytes::new())).collect();
        Self::create(connections, keys, watched, sizes.callers(), 1).await
    }

    async fn create(
        connections: &Connections,
        keys: KeySpace,
        watched: Vec<(Bytes, Bytes)>,
        writers: usize,
        watchers_per_key: usize,
    ) -> Result<Self> {
        let events_per_put = u32::try_from(watchers_per_key).context("too many watchers")?;
        let window_events = u32::try_from(writers).context("too many writers")? * events_per_put;
        let window = Arc::new(Semaphore::new(window_events as usize));
        let epoch = Instant::now();
        let mut readers = Vec::new();
        for (number, share) in deal(watched, connections.count()).into_iter().enumerate() {
            readers.push(Reader::open(connections.watch(number), share, &window, epoch).await?);
        }
        let writers = (0..writers).map(|number| {
            let mut random = StdRng::seed_from_u64(number as u64);
            let tail = random_value(&mut random, PUT_VALUE_BYTES - STAMP_BYTES);
            let (client, keys, window) = (connections.kv(number), keys.clone(), Arc::clone(&window));
            Writer { client, keys, tail, random, window, events_per_put, epoch }
        });
        Ok(Self { writers: writers.collect(), window, window_events, readers })
    }

    async fn write_and_collect(&mut self, pace: Pace) -> Result<Tally> {
        let (writers, puts) = closed_loop(std::mem::take(&mut self.writers), pace).await?;
        self.writers = writers;
        let drained = timeout(DRAIN_MAX, self.window.acquire_many(self.window_events)).await;
        let missing = if drained.is_ok() { 0 } else { self.window_events as usize - self.window.available_permits() };
        drop(drained);

        let mut tally = Tally::default();
        for reader in &self.readers {
            tally.merge(reader.take());
        }
        tally.add_errors(puts.errors, puts.first_error);
        if missing > 0 {
            // Given back, so that the next round measures itself and not the loss of this one.
            self.window.add_permits(missing);
            tally.add_errors(missing as u64, Some(format!("{missing} events did not arrive in {DRAIN_MAX:?}")));
        }
        Ok(tally)
    }
}

impl Load for Watches {
    fn round(&mut self, pace: Pace) -> Pin<Box<dyn Future<Output = Result<Tally>> + Send + '_>> {
        Box::pin(self.write_and_collect(pace))
    }
}

/// Splits `all` over at most `hands` non-empty shares.
fn deal<T>(all: Vec<T>, hands: usize) -> Vec<Vec<T>> {
    let mut shares: Vec<Vec<T>> = Vec::new();
    for (number, one) in all.into_iter().enumerate() {
        match shares.get_mut(number % hands) {
            Some(share) => share.push(one),
            None => shares.push(vec![one]),
        }
    }
    shares
}

struct Writer {
    client: KvClient<Wire>,
    keys: KeySpace,
    tail: Bytes,
    random: StdRng,
    window: Arc<Semaphore>,
    events_per_put: u32,
    epoch: Instant,
}

impl Caller for Writer {
    async fn call(&mut self) -> Result<(), Status> {
        let permits = self.window.acquire_many(self.events_per_put).await;
        let permits = permits.map_err(|_| Status::cancelled("the load has ended"))?;
        let key = self.keys.random_key(&mut self.random);
        let stamp = u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX).to_be_bytes();
        let value = [&stamp, self.tail.as_ref()].concat().into();
        self.client.put(PutRequest { key, value, ..Default::default() }).await?;
        permits.forget();
        Ok(())
    }
}

/// One watch stream with its watchers, read by a task of its own until the load is dropped.
struct Reader {
    task: JoinHandle<()>,
    tally: Arc<Mutex<Tally>>,
}

impl Reader {
    async fn open(
        mut client: WatchClient<Wire>,
        watched: Vec<(Bytes, Bytes)>,
        window: &Arc<Semaphore>,
        epoch: Instant,
    ) -> Result<Self> {
        let watchers = watched.len();
        let creates = watched.into_iter().map(|(key, range_end)| {
            let create = WatchCreateRequest { key, range_end, ..Default::default() };
            WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }
        });
        // A request stream that ends would end the watches.
        let requests = tokio_stream::iter(creates.collect::<Vec<_>>()).chain(tokio_stream::pending());
        let mut responses = client.watch(requests).await.context("open a watch stream")?.into_inner();
        for _ in 0..watchers {
            let response = responses.message().await.context("create a watch")?.context("the watch stream ended")?;
            ensure!(response.created && !response.canceled, "watch refused: {}", response.cancel_reason);
        }
        let tally = Arc::new(Mutex::new(Tally::default()));
        let task = tokio::spawn(read(responses, Arc::clone(&tally), Arc::clone(window), epoch));
        Ok(Self { task, tally })
    }

    /// What arrived since the last call.
    fn take(&self) -> Tally {
        std::mem::take(&mut self.tally.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn read(
    mut responses: Streaming<WatchResponse>,
    tally: Arc<Mutex<Tally>>,
    window: Arc<Semaphore>,
    epoch: Instant,
) {
    loop {
        let received = match responses.message().await {
            Ok(Some(response)) => latencies(&response, epoch.elapsed()),
            Ok(None) => Err(anyhow::anyhow!("the watch stream ended")),
            Err(status) => Err(status.into()),
        };
        let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
        match received {
            Ok(latencies) => {
                latencies.iter().for_each(|latency| tally.latencies.record(*latency));
                window.add_permits(latencies.len());
            }
            Err(error) => return tally.fail(&error),
        }
    }
}

/// How long ago each event of a response was put.
fn latencies(response: &WatchResponse, now: Duration) -> Result<Vec<Duration>> {
    if response.canceled {
        bail!("a watch was cancelled: {}", response.cancel_reason);
    }
    let latency = |value: &Bytes| {
        let stamp = value.first_chunk::<STAMP_BYTES>().context("an event without its stamp")?;
        Ok(now.saturating_sub(Duration::from_nanos(u64::from_be_bytes(*stamp))))
    };
    let values = response.events.iter().map(|event| event.kv.as_ref().map(|kv| &kv.value));
    values.map(|value| latency(value.context("an event without its key")?)).collect()
}

#[cfg(test)]
mod tests {
    use basalt_proto::mvccpb::{Event, KeyValue};

    use super::*;

    #[test]
    fn watchers_are_dealt_evenly_and_no_stream_is_empty() {
        assert_eq!(deal(vec![1, 2, 3, 4, 5], 2), [vec![1, 3, 5], vec![2, 4]]);
        assert_eq!(deal(vec![1], 100), [vec![1]]);
    }

    #[test]
    fn latency_counts_from_the_stamp() {
        let value = [&7_000_u64.to_be_bytes(), b"tail".as_slice()].concat().into();
        let event = Event { kv: Some(KeyValue { value, ..Default::default() }), ..Default::default() };
        let response = WatchResponse { events: vec![event], ..Default::default() };
        let found = latencies(&response, Duration::from_micros(9)).expect("stamped");
        assert_eq!(found, [Duration::from_micros(2)]);
        let bare = WatchResponse { events: vec![Event::default()], ..Default::default() };
        latencies(&bare, Duration::ZERO).expect_err("no key");
    }
}
