//! Calls that stream: Watch, LeaseKeepAlive, RangeStream, Snapshot.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use basalt_proto::etcdserverpb::watch_request::RequestUnion;
use basalt_proto::etcdserverpb::{LeaseKeepAliveRequest, WatchRequest};
use bytes::Bytes;
use http_body::Body;
use tokio::sync::mpsc;

use super::chunks::Chunks;
use super::grpc::{Messages, RequestMessages};
use super::method::Method;
use super::service::{Service, decode};
use super::status::Status;
use crate::node::handle::NodeHandle;
use crate::node::watch_thread::StreamSinks;
use crate::watch::{Input, StreamId};

/// Messages that may wait for a connection beside what HTTP/2 buffers; of watches the room counts bytes.
const MESSAGES_WAITING_MAX: usize = 4;

/// Numbers of watch streams, unique in the life of the process.
static NEXT_STREAM: AtomicU64 = AtomicU64::new(1);

/// Ends a stream in the watch room, however its task ends.
struct OpenStream {
    node: Arc<NodeHandle>,
    sinks: StreamSinks,
    stream: StreamId,
}

impl OpenStream {
    fn tell(&self, input: Input) {
        // The watch thread is gone only when the process is about to be.
        drop(self.node.watches.send(input));
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.sinks.remove(self.stream);
        self.tell(Input::Close(self.stream));
    }
}

/// Watch: requests go to the watch thread, its messages come back through a sink of the stream's own.
pub fn watch<B>(service: Arc<Service>, mut requests: RequestMessages<B>) -> Messages
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: std::fmt::Display + Send,
{
    let stream = StreamId(NEXT_STREAM.fetch_add(1, Ordering::Relaxed));
    let (out, messages) = mpsc::channel(MESSAGES_WAITING_MAX);
    let (sink, mut sent) = mpsc::unbounded_channel::<Vec<Bytes>>();
    service.sinks.add(stream, sink);
    let open = OpenStream { node: service.node.clone(), sinks: service.sinks.clone(), stream };
    open.tell(Input::Open(stream));
    tokio::spawn(async move {
        loop {
            // Requests first: a cancel must not wait behind a flood of events.
            tokio::select! {
                biased;
                () = out.closed() => return,
                request = requests.next() => match request {
                    Ok(Some(message)) => match decode::<WatchRequest>(message) {
                        Ok(request) => forward(&open, request).await,
                        Err(status) => return drop(out.send(Err(status)).await),
                    },
                    // The client sends no more; etcd ends the stream then.
                    Ok(None) => return,
                    Err(status) => return drop(out.send(Err(status)).await),
                },
                message = sent.recv() => {
                    let Some(pieces) = message else { return };
                    let message = Chunks::from_pieces(pieces);
                    let bytes = message.len();
                    if out.send(Ok(message)).await.is_err() {
                        return;
                    }
                    open.tell(Input::Drained { stream, bytes });
                }
            }
        }
    });
    messages
}

/// An unknown kind of request is ignored (etcd-contract 32).
async fn forward(open: &OpenStream, request: WatchRequest) {
    let stream = open.stream;
    let input = match request.request_union {
        Some(RequestUnion::CreateRequest(request)) => Input::Create { stream, request },
        Some(RequestUnion::CancelRequest(request)) => Input::Cancel { stream, watch_id: request.watch_id },
        Some(RequestUnion::ProgressRequest(_)) => Input::Progress { stream },
        None => return,
    };
    // A client that asks faster than the room works waits here, and its connection with it.
    open.sinks.admit(&input).await;
    open.tell(input);
}

/// LeaseKeepAlive: one answer for each request, in order.
pub fn keep_alive<B>(service: Arc<Service>, mut requests: RequestMessages<B>) -> Messages
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: std::fmt::Display + Send,
{
    let (out, messages) = mpsc::channel(MESSAGES_WAITING_MAX);
    tokio::spawn(async move {
        loop {
            let answer = tokio::select! {
                biased;
                () = out.closed() => return,
                request = requests.next() => match request {
                    Ok(Some(message)) => tokio::select! {
                        biased;
                        () = out.closed() => return,
                        answer = answer_keep_alive(&service, message) => answer,
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

async fn answer_keep_alive(service: &Arc<Service>, message: Bytes) -> Result<Chunks, Status> {
    let request: LeaseKeepAliveRequest = decode(message)?;
    service.keep_alive(request.id).await
}

/// A call with one request and many answers.
pub fn server_stream(service: Arc<Service>, method: Method, message: Bytes) -> Messages {
    let (out, messages) = mpsc::channel(MESSAGES_WAITING_MAX);
    tokio::spawn(async move {
        let ended = match method {
            Method::RangeStream => match decode(message) {
                Ok(request) => service.range_stream(&request, &out).await,
                Err(status) => Err(status),
            },
            Method::Snapshot => service.snapshot(&out).await,
            Method::HealthWatch => {
                let told = out.send(Ok(service.health())).await;
                if told.is_ok() {
                    out.closed().await;
                }
                Ok(())
            }
            _ => Err(Status::not_available("this stream")),
        };
        if let Err(status) = ended {
            // A client that is gone needs no status.
            drop(out.send(Err(status)).await);
        }
    });
    messages
}
