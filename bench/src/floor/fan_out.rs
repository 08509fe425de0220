//! Watchers, and telling them of every put.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use basalt_proto::etcdserverpb::{PutRequest, WatchCreateRequest, WatchResponse};
use basalt_proto::mvccpb::{Event, KeyValue};
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tonic::Status;

use super::canned::{HEADER, encoded};
use super::wire::Answer;

/// What waits for one stream; one that lets more wait is ended.
const WAITING_MAX: usize = 4096;
/// Watchers of one stream.
const WATCHERS_MAX: usize = 10_000;

/// All streams with their watchers.
#[derive(Default)]
pub struct FanOut {
    streams: Mutex<Streams>,
}

#[derive(Default)]
struct Streams {
    opened: u64,
    by_number: HashMap<u64, Sink>,
}

/// The sending side of one stream.
struct Sink {
    told: mpsc::Sender<Told>,
    /// Key and range end; the place of a watcher is its id.
    watchers: Vec<(Bytes, Bytes)>,
}

/// One message and the watchers of a stream that get it.
struct Told {
    message: Bytes,
    watch_ids: Vec<i64>,
}

/// The messages of one stream, each for one watcher.
pub struct Events {
    told: mpsc::Receiver<Told>,
    current: Option<Told>,
}

impl FanOut {
    /// A new stream without watchers: its number, and what it is told.
    pub fn open(&self) -> (u64, Events) {
        let (told, events) = mpsc::channel(WAITING_MAX);
        let mut streams = self.streams();
        streams.opened += 1;
        let number = streams.opened;
        streams.by_number.insert(number, Sink { told, watchers: Vec::new() });
        (number, Events { told: events, current: None })
    }

    /// Forgets a stream.
    pub fn close(&self, stream: u64) {
        self.streams().by_number.remove(&stream);
    }

    /// Adds a watcher of a range of keys, and says so on its stream.
    ///
    /// # Errors
    /// It watches one key only, or the stream has too many.
    pub fn create(&self, stream: u64, create: WatchCreateRequest) -> Result<(), Status> {
        if create.range_end.is_empty() {
            return Err(Status::unimplemented("the floor has watchers of prefixes only"));
        }
        let mut streams = self.streams();
        let Some(sink) = streams.by_number.get_mut(&stream) else { return Ok(()) };
        if sink.watchers.len() >= WATCHERS_MAX {
            return Err(Status::resource_exhausted("too many watchers on one stream"));
        }
        let created = WatchResponse { header: Some(HEADER), created: true, ..Default::default() };
        let told = Told { message: encoded(&created), watch_ids: vec![sink.watchers.len() as i64] };
        sink.watchers.push((create.key, create.range_end));
        sink.told.try_send(told).map_err(|_| Status::resource_exhausted("the stream is not read"))
    }

    /// Tells all watchers of the key. The event is encoded once.
    pub fn put(&self, put: PutRequest) {
        let (key, value) = (put.key.clone(), put.value);
        let kv = KeyValue { key, value, create_revision: 1, mod_revision: 1, version: 1, lease: 0 };
        let event = Event { kv: Some(kv), ..Default::default() };
        let message = encoded(&WatchResponse { header: Some(HEADER), events: vec![event], ..Default::default() });
        self.streams().by_number.retain(|_, sink| {
            let watch_ids = sink.watchers_of(&put.key);
            watch_ids.is_empty() || sink.told.try_send(Told { message: message.clone(), watch_ids }).is_ok()
        });
    }

    fn streams(&self) -> MutexGuard<'_, Streams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink {
    fn watchers_of(&self, key: &Bytes) -> Vec<i64> {
        let watchers = (0..).zip(&self.watchers);
        watchers.filter(|(_, (start, end))| start <= key && key < end).map(|(id, _)| id).collect()
    }
}

impl Stream for Events {
    type Item = Result<Answer, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(told) = &mut self.current
                && let Some(watch_id) = told.watch_ids.pop()
            {
                return Poll::Ready(Some(Ok(Answer { message: told.message.clone(), watch_id })));
            }
            match ready!(self.told.poll_recv(context)) {
                Some(told) => self.current = Some(told),
                None => return Poll::Ready(None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt;

    use super::*;

    fn create(key: &'static str, range_end: &'static str) -> WatchCreateRequest {
        WatchCreateRequest { key: key.into(), range_end: range_end.into(), ..Default::default() }
    }

    fn told(events: &mut Events) -> Vec<i64> {
        let mut ids = Vec::new();
        let mut context = Context::from_waker(std::task::Waker::noop());
        while let Poll::Ready(Some(answer)) = Pin::new(&mut *events).poll_next(&mut context) {
            ids.push(answer.expect("an answer").watch_id);
        }
        ids
    }

    #[test]
    fn a_put_reaches_each_watcher_of_its_range() {
        let fan_out = FanOut::default();
        let (first, mut events) = fan_out.open();
        let (_, mut others) = fan_out.open();
        for (key, end) in [("a", "c"), ("c", "d"), ("b", "c")] {
            fan_out.create(first, create(key, end)).expect("a range");
        }
        assert_eq!(told(&mut events), [0, 1, 2]);
        fan_out.put(PutRequest { key: "b".into(), ..Default::default() });
        assert_eq!(told(&mut events), [2, 0]);
        assert!(told(&mut others).is_empty());
        fan_out.create(first, create("a", "")).expect_err("one key");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_stream_that_is_not_read_is_ended() {
        let fan_out = FanOut::default();
        let (stream, mut events) = fan_out.open();
        fan_out.create(stream, create("a", "b")).expect("a range");
        for _ in 0..WAITING_MAX {
            fan_out.put(PutRequest { key: "a".into(), ..Default::default() });
        }
        let mut seen = 0;
        while events.next().await.is_some() {
            seen += 1;
        }
        assert_eq!(seen, WAITING_MAX);
    }
}
