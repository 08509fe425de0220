//! Calls that stream: Watch, LeaseKeepAlive, RangeStream, Snapshot.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use basalt_proto::etcdserverpb::watch_create_request::FilterType;
use basalt_proto::etcdserverpb::watch_request::RequestUnion;
use basalt_proto::etcdserverpb::{LeaseKeepAliveRequest, WatchCreateRequest, WatchRequest};
use basalt_proto::health::HealthCheckRequest;
use bytes::Bytes;
use http_body::Body;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::chunks::Chunks;
use super::grpc::Messages;
use super::kept_request::KeptRequest;
use super::method::Method;
use super::request_messages::RequestMessages;
use super::service::{Service, decode};
use super::status::{self, Code, Status};
use super::watch_permission::{Asked, may_watch};
use crate::auth::{Caller, Credentials};
use crate::metrics::Metrics;
use crate::node::handle::NodeHandle;
use crate::node::start::WATCH_STREAM_BYTES;
use crate::node::watch_thread::{StreamSinks, Taken, Turn};
use crate::traces::{self, Above, Span};
use crate::watch::{Input, StreamId};

/// Bytes that a connection takes of a watch stream before it tells the room, which else sees it with its next tick: far
/// below what makes a stream slow, and seldom enough to cost nothing.
const DRAINED_BYTES: usize = WATCH_STREAM_BYTES / 16;

/// Messages that may wait for a connection beside what HTTP/2 buffers; of watches the room counts bytes.
const MESSAGES_WAITING_MAX: usize = 4;

/// Spans of watches that one stream keeps open; the oldest end before it.
const WATCH_SPANS_MAX: usize = 256;

/// Numbers of watch streams, unique in the life of the process.
static NEXT_STREAM: AtomicU64 = AtomicU64::new(1);

/// Watch: requests go to the watch thread from a task of the stream's own; what the room sends, the body of the answer
/// takes from its sink.
/// `needs_leader`: the stream ends when there has been none for a while (etcd-contract 39).
pub fn watch<B>(
    service: &Arc<Service>,
    mut requests: RequestMessages<B>,
    credentials: Credentials,
    needs_leader: bool,
    above: Option<Above>,
) -> WatchMessages
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Status> + Send,
{
    let sent = Sent::open(service);
    let room = sent.room.clone();
    let (end, ended) = oneshot::channel();
    let reader = tokio::spawn({
        let service = service.clone();
        async move {
            let mut stopped = pin!(service.stopped());
            let mut leaderless = pin!(service.leaderless(needs_leader));
            // Spans of watches end with the stream.
            let mut watched = VecDeque::new();
            let status = loop {
                let request = tokio::select! {
                    biased;
                    // The client goes on elsewhere, or here after a restart; a stop does not wait for it.
                    () = &mut stopped => break Some(status::stopped()),
                    () = &mut leaderless => break Some(status::no_leader()),
                    request = requests.next() => request,
                };
                match request {
                    Ok(Some(message)) => match decode_watch(message) {
                        Ok(request) => {
                            if let Some(span) = above.as_ref().and_then(|above| watch_span(above, &request)) {
                                watched.truncate(WATCH_SPANS_MAX - 1);
                                watched.push_front(span);
                            }
                            tokio::select! {
                                biased;
                                () = &mut stopped => break Some(status::stopped()),
                                () = &mut leaderless => break Some(status::no_leader()),
                                () = forward(&room, &service, &credentials, request) => {}
                            }
                        }
                        Err(status) => {
                            requests.failed();
                            break Some(status);
                        }
                    },
                    // The client sends no more, and is told on: until it goes, or one of the ends above.
                    Ok(None) => {
                        break tokio::select! {
                            biased;
                            () = &mut stopped => Some(status::stopped()),
                            () = &mut leaderless => Some(status::no_leader()),
                        };
                    }
                    Err(status) => break Some(status),
                }
            };
            // Nobody listens when the body is gone, and this task with it.
            _ = end.send(status);
        }
    });
    WatchMessages { sent, ended, reader }
}

/// Decodes a request of a watch stream, of which no more is kept than it says: of the filters each kind once, however often it
/// was named (etcd `FiltersFromRequest`).
fn decode_watch(message: Bytes) -> Result<WatchRequest, Status> {
    let message_bytes = message.len();
    let mut request: WatchRequest = decode(message)?;
    if let Some(RequestUnion::CreateRequest(create)) = &mut request.request_union {
        let kinds = [FilterType::Noput as i32, FilterType::Nodelete as i32];
        create.filters = kinds.into_iter().filter(|kind| create.filters.contains(kind)).collect();
    }
    request.leave_message(message_bytes);
    Ok(request)
}

fn watch_span(above: &Above, request: &WatchRequest) -> Option<Span> {
    match &request.request_union {
        Some(RequestUnion::CreateRequest(request)) => Some(traces::watch(above, request)),
        _ => None,
    }
}

/// A stream's place in the watch room.
#[derive(Clone)]
struct Room {
    node: Arc<NodeHandle>,
    stream: StreamId,
    taken: Arc<Taken>,
}

impl Room {
    fn tell(&self, input: Input) {
        // The watch thread is gone only when the process is about to be.
        drop(self.node.watches.send(input));
    }

    /// Tells what the client asks for.
    fn ask(&self, input: Input) {
        self.taken.backlog.grew(1);
        self.tell(input);
    }

    fn tell_asker(&self, asked: Asked) {
        if let Asked::By { user, auth } = asked {
            self.tell(Input::Asker { stream: self.stream, user, auth });
        }
    }
}

/// What the room sends to one stream. Its end is the stream's end in the room.
pub(super) struct Sent {
    room: Room,
    sinks: StreamSinks,
    metrics: Arc<Metrics>,
    turns: mpsc::UnboundedReceiver<Turn>,
    /// Of the messages that were taken last.
    taken_bytes: usize,
}

impl Sent {
    /// A stream begins.
    pub(super) fn open(service: &Service) -> Self {
        let stream = StreamId(NEXT_STREAM.fetch_add(1, Ordering::Relaxed));
        let (sink, turns) = mpsc::unbounded_channel();
        let taken = service.sinks.add(stream, sink);
        let room = Room { node: service.node.clone(), stream, taken };
        room.tell(Input::Open(stream));
        let (sinks, metrics) = (service.sinks.clone(), service.metrics.clone());
        Self { room, sinks, metrics, turns, taken_bytes: 0 }
    }

    /// Begins a watch that was let through, once there is room for its request.
    pub(super) async fn create(&self, request: WatchCreateRequest, asked: Asked) {
        self.room.tell_asker(asked);
        let input = Input::Create { stream: self.room.stream, request };
        self.sinks.admit(&input).await;
        self.room.ask(input);
    }

    /// What came meanwhile; `None` when the room is gone.
    pub(super) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Vec<Chunks>>> {
        // Who asks for more has handed on what he got before.
        let taken = std::mem::take(&mut self.taken_bytes);
        self.drained(taken);
        self.turns.poll_recv(context).map(|turn| {
            let turn = turn?;
            self.room.taken.backlog.fell(turn.answers);
            self.count(&turn);
            let messages: Vec<Chunks> = turn.messages.into_iter().map(Chunks::from_pieces).collect();
            self.taken_bytes = messages.iter().map(Chunks::len).sum();
            Some(messages)
        })
    }

    /// Counts how long a turn waited for its connection: once for all of it, so that a fan-out does not count every message.
    fn count(&self, turn: &Turn) {
        let waited = turn.sent.elapsed().as_secs_f64();
        if turn.events == 0 {
            return self.metrics.watch_control_seconds.observe(waited);
        }
        self.metrics.watch_send_seconds.observe(waited);
        self.metrics.watch_send_event_seconds.observe(waited / turn.events as f64);
    }

    fn drained(&mut self, bytes: usize) {
        let untold_bytes = &self.room.taken.untold_bytes;
        if untold_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes >= DRAINED_BYTES {
            let bytes = untold_bytes.swap(0, Ordering::Relaxed);
            self.room.tell(Input::Drained { stream: self.room.stream, bytes });
        }
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        self.sinks.remove(self.room.stream);
        self.room.tell(Input::Close(self.room.stream));
    }
}

/// The messages of a watch stream, as the connection takes them.
pub struct WatchMessages {
    sent: Sent,
    ended: oneshot::Receiver<Option<Status>>,
    reader: JoinHandle<()>,
}

impl WatchMessages {
    /// What the room sent meanwhile, or how the stream ends.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<Vec<Chunks>, Option<Status>>> {
        match self.sent.poll_next(context) {
            Poll::Ready(messages) => Poll::Ready(messages.ok_or(None)),
            Poll::Pending => Pin::new(&mut self.ended).poll(context).map(|ended| Err(ended.unwrap_or(None))),
        }
    }
}

impl Drop for WatchMessages {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// An unknown kind of request is ignored (etcd-contract 32).
async fn forward(room: &Room, service: &Service, credentials: &Credentials, request: WatchRequest) {
    let stream = room.stream;
    // A client that takes no answers is read no further, and its connection holds what it asks besides.
    room.taken.backlog.room().await;
    let input = match request.request_union {
        Some(RequestUnion::CreateRequest(request)) => {
            let caller = service.identify(credentials).await;
            match may_watch(&service.node.auth, &caller, &request) {
                Ok(asked) => {
                    room.tell_asker(asked);
                    Input::Create { stream, request }
                }
                Err(reason) => Input::Refuse { stream, reason },
            }
        }
        Some(RequestUnion::CancelRequest(request)) => Input::Cancel { stream, watch_id: request.watch_id },
        Some(RequestUnion::ProgressRequest(_)) => Input::Progress { stream },
        None => return,
    };
    // A client that asks faster than the room works waits here, and its connection with it.
    service.sinks.admit(&input).await;
    room.ask(input);
}

/// LeaseKeepAlive: one answer for each request, in order. `needs_leader` as for [`watch`].
pub fn keep_alive<B>(
    service: Arc<Service>,
    mut requests: RequestMessages<B>,
    credentials: Credentials,
    needs_leader: bool,
    above: Option<Above>,
) -> Messages
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Status> + Send,
{
    let (out, messages) = mpsc::channel(MESSAGES_WAITING_MAX);
    tokio::spawn(async move {
        let mut stopped = pin!(service.stopped());
        let mut leaderless = pin!(service.leaderless(needs_leader));
        loop {
            let answer = tokio::select! {
                biased;
                () = out.closed() => return,
                () = &mut stopped => Err(status::stopped()),
                () = &mut leaderless => Err(status::no_leader()),
                request = requests.next() => match request {
                    Ok(Some(message)) => match decode::<LeaseKeepAliveRequest>(message) {
                        Ok(request) => {
                            let _span = above.as_ref().map(|above| traces::renewal(above, request.id));
                            tokio::select! {
                                biased;
                                () = out.closed() => return,
                                () = &mut stopped => Err(status::stopped()),
                                () = &mut leaderless => Err(status::no_leader()),
                                answer = answer_keep_alive(&service, &credentials, request.id) => answer,
                            }
                        }
                        Err(status) => {
                            requests.failed();
                            Err(status)
                        }
                    },
                    Ok(None) => return,
                    Err(status) => Err(status),
                },
            };
            let failed = answer.is_err();
            if out.send(answer).await.is_err() || failed {
                return;
            }
        }
    });
    messages
}

async fn answer_keep_alive(service: &Arc<Service>, credentials: &Credentials, id: i64) -> Result<Chunks, Status> {
    let caller = service.identify(credentials).await;
    service.keep_alive(id, &caller).await
}

/// A call with one request and many answers, given up where its client has gone: also while it waits for others of its kind.
/// `needs_leader` as for [`watch`].
pub fn server_stream(
    service: Arc<Service>,
    method: Method,
    message: Bytes,
    caller: Caller,
    needs_leader: bool,
) -> Messages {
    let (out, messages) = mpsc::channel(MESSAGES_WAITING_MAX);
    tokio::spawn(async move {
        let ended = tokio::select! {
            biased;
            () = out.closed() => return,
            () = service.leaderless(needs_leader) => Err(status::no_leader()),
            ended = answer_stream(&service, method, message, caller, &out) => ended,
        };
        if let Err(status) = ended {
            // A client that is gone needs no status.
            drop(out.send(Err(status)).await);
        }
    });
    messages
}

async fn answer_stream(
    service: &Arc<Service>,
    method: Method,
    message: Bytes,
    caller: Caller,
    out: &mpsc::Sender<Result<Chunks, Status>>,
) -> Result<(), Status> {
    service.authorize(method.policy(), &caller)?;
    match method {
        Method::RangeStream => service.range_stream(&decode(message)?, &caller, out).await,
        Method::Observe => service.observe(&decode(message)?, caller, out).await,
        Method::Snapshot => {
            drop(message);
            service.snapshot(out).await
        }
        Method::HealthWatch => {
            let request: HealthCheckRequest = decode(message)?;
            if out.send(Ok(Service::watched_health(&request))).await.is_ok() {
                service.stopped().await;
            }
            Ok(())
        }
        _ => Err(Status::new(Code::Internal, "a unary call was made as a stream")),
    }
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
