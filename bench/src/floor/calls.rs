//! Which call gets which answer.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::task::{Context, Poll};

use basalt_proto::etcdserverpb::watch_request::RequestUnion;
use basalt_proto::etcdserverpb::{LeaseKeepAliveRequest, PutRequest, RangeRequest, WatchRequest};
use bytes::Bytes;
use prost::Message;
use tokio_stream::StreamExt;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, BoxStream, Service, http};
use tonic::server::{Grpc, ServerStreamingService, StreamingService, UnaryService};
use tonic::{Request, Response, Status, Streaming};

use super::canned::{self, Canned};
use super::fan_out::{Events, FanOut};
use super::list::List;
use super::wire::{Answer, Wire};

/// The whole server; clones share everything.
#[derive(Clone)]
pub struct Floor(Arc<Answers>);

struct Answers {
    canned: Canned,
    list: List,
    watchers: FanOut,
    leases: AtomicI64,
}

impl Floor {
    /// A server whose list has `list_keys` keys.
    pub fn new(list_keys: usize) -> Self {
        Self(Arc::new(Answers {
            canned: Canned::new(),
            list: List::new(list_keys),
            watchers: FanOut::default(),
            leases: AtomicI64::new(0),
        }))
    }

    async fn answer(self, request: http::Request<Body>) -> http::Response<Body> {
        let mut grpc = Grpc::new(Wire);
        match request.uri().path() {
            "/etcdserverpb.KV/RangeStream" => grpc.server_streaming(RangeStream(self.0), request).await,
            "/etcdserverpb.Lease/LeaseKeepAlive" => grpc.streaming(KeepAlive, request).await,
            "/etcdserverpb.Watch/Watch" => grpc.streaming(Watch(self.0), request).await,
            path => match Method::of(path) {
                Some(method) => grpc.unary(Unary(method, self.0), request).await,
                None => Status::unimplemented(format!("the floor does not answer {path}")).into_http(),
            },
        }
    }
}

impl Service<http::Request<Body>> for Floor {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let floor = self.clone();
        Box::pin(async move { Ok(floor.answer(request).await) })
    }
}

type Ready<T> = std::future::Ready<Result<Response<T>, Status>>;

fn ready<T>(answer: Result<T, Status>) -> Ready<T> {
    std::future::ready(answer.map(Response::new))
}

/// Calls with one request and one answer.
#[derive(Clone, Copy)]
enum Method {
    Put,
    Txn,
    Range,
    LeaseGrant,
    Status,
}

impl Method {
    fn of(path: &str) -> Option<Self> {
        Some(match path {
            "/etcdserverpb.KV/Put" => Self::Put,
            "/etcdserverpb.KV/Txn" => Self::Txn,
            "/etcdserverpb.KV/Range" => Self::Range,
            "/etcdserverpb.Lease/LeaseGrant" => Self::LeaseGrant,
            "/etcdserverpb.Maintenance/Status" => Self::Status,
            _ => return None,
        })
    }
}

struct Unary(Method, Arc<Answers>);

impl UnaryService<Bytes> for Unary {
    type Response = Answer;
    type Future = Ready<Answer>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        ready(self.1.unary(self.0, request.into_inner()).map(Answer::plain))
    }
}

impl Answers {
    fn unary(&self, method: Method, request: Bytes) -> Result<Bytes, Status> {
        match method {
            Method::Put => {
                self.watchers.put(decode::<PutRequest>(request)?);
                Ok(self.canned.put.clone())
            }
            Method::Txn => Ok(self.canned.txn.clone()),
            Method::Range => self.range(&decode(request)?),
            Method::LeaseGrant => Ok(canned::granted(self.leases.fetch_add(1, Ordering::Relaxed) + 1)),
            Method::Status => Ok(self.canned.status.clone()),
        }
    }

    fn range(&self, request: &RangeRequest) -> Result<Bytes, Status> {
        if request.range_end.is_empty() { Ok(self.canned.object.clone()) } else { self.list.page(request) }
    }

    /// Reads a stream of watch requests to its end.
    async fn watch(&self, stream: u64, mut requests: Streaming<Bytes>) -> Result<(), Status> {
        while let Some(request) = requests.message().await? {
            if let Some(RequestUnion::CreateRequest(create)) = decode::<WatchRequest>(request)?.request_union {
                self.watchers.create(stream, create)?;
            }
        }
        Ok(())
    }
}

struct RangeStream(Arc<Answers>);

impl ServerStreamingService<Bytes> for RangeStream {
    type Response = Answer;
    type ResponseStream = BoxStream<Answer>;
    type Future = Ready<Self::ResponseStream>;

    fn call(&mut self, _: Request<Bytes>) -> Self::Future {
        let messages = self.0.list.messages().into_iter();
        ready(Ok(Box::pin(tokio_stream::iter(messages.map(|message| Ok(Answer::plain(message)))))))
    }
}

/// The empty bidirectional message: each request is answered at once.
struct KeepAlive;

impl StreamingService<Bytes> for KeepAlive {
    type Response = Answer;
    type ResponseStream = BoxStream<Answer>;
    type Future = Ready<Self::ResponseStream>;

    fn call(&mut self, requests: Request<Streaming<Bytes>>) -> Self::Future {
        ready(Ok(Box::pin(requests.into_inner().map(|request| {
            let request: LeaseKeepAliveRequest = decode(request?)?;
            Ok(Answer::plain(canned::kept_alive(request.id)))
        }))))
    }
}

struct Watch(Arc<Answers>);

impl StreamingService<Bytes> for Watch {
    type Response = Answer;
    type ResponseStream = Events;
    type Future = Ready<Events>;

    fn call(&mut self, requests: Request<Streaming<Bytes>>) -> Self::Future {
        let (stream, events) = self.0.watchers.open();
        let answers = Arc::clone(&self.0);
        tokio::spawn(async move {
            // A client that is refused sees its stream end; it is told no reason.
            drop(answers.watch(stream, requests.into_inner()).await);
            answers.watchers.close(stream);
        });
        ready(Ok(events))
    }
}

fn decode<M: Message + Default>(request: Bytes) -> Result<M, Status> {
    M::decode(request).map_err(|error| Status::invalid_argument(error.to_string()))
}
