use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll};
use std::time::Duration;

use basalt_proto::etcdserverpb::{PutRequest, WatchCreateRequest};
use basalt_proto::log::request::Kind;
use basalt_storage::mvcc::kept_views::KeptViews;
use bytes::{BufMut, BytesMut};
use http::Request;
use http_body::Frame;
use http_body_util::BodyExt;
use prost::Message;
use tempfile::TempDir;
use tokio::sync::watch;

use super::super::grpc;
use super::*;
use crate::api::member_changes::MemberRules;
use crate::auth::Passwords;
use crate::memory::MemoryShares;
use crate::metrics::Metrics;
use crate::node::start::Running;
use crate::node::start::tests::{NEVER, started, started_with};

/// The requests of a client that sends one message and keeps the stream open.
struct OpenRequests(Option<Bytes>);

impl Body for OpenRequests {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.0.take() {
            Some(message) => Poll::Ready(Some(Ok(Frame::data(message)))),
            None => Poll::Pending,
        }
    }
}

fn framed(message: &impl Message) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(message.encoded_len()).expect("small"));
    message.encode(&mut bytes).expect("room");
    bytes.freeze()
}

fn service(running: &Running, stopping: watch::Receiver<bool>) -> Arc<Service> {
    Arc::new(Service {
        kept: Mutex::new(KeptViews::new(0)),
        node: running.handle.clone(),
        sinks: running.sinks.clone(),
        peers: None,
        metrics: Arc::new(Metrics::default()),
        tracer: None,
        slow_unary: NEVER,
        slow_apply: NEVER,
        election_timeout: Duration::from_secs(1),
        request_timeout: NEVER,
        passwords: Passwords::new(4),
        member_rules: MemberRules { strict: true, learners_max: 1 },
        stopping,
    })
}

/// As etcd reads them, and whatever its client sent beside.
#[test]
fn of_a_watch_request_no_more_is_kept_than_it_says() {
    for (filters, kept) in
        [(vec![7; 2 << 20], vec![]), ([vec![1; 1 << 20], vec![0; 1 << 20]].concat(), vec![0, 1]), (vec![1], vec![1])]
    {
        let message = WatchCreateRequest { key: "k".into(), filters, ..WatchCreateRequest::default() };
        let create = RequestUnion::CreateRequest(message);
        let message = Bytes::from(WatchRequest { request_union: Some(create) }.encode_to_vec());
        let request = decode_watch(message.clone()).expect("a request");
        let Some(RequestUnion::CreateRequest(request)) = request.request_union else { panic!("{request:?}") };
        assert_eq!((&request.filters, &*request.key), (&kept, &b"k"[..]));
        assert!(request.filters.capacity() <= 4, "{} filters have room", request.filters.capacity());
        assert!(message.is_unique(), "{} bytes are kept", message.len());
    }
}

/// Far fewer bytes than a stream reports by itself: if the room did not look what was taken, one that is idle between
/// two events would stay full for ever.
#[test]
fn a_stream_that_takes_all_is_never_full_however_little_room_there_is() {
    let directory = TempDir::new().expect("a directory");
    let running = started_with(&directory, MemoryShares { watch_queues: 1 << 10, ..MemoryShares::of(1 << 30) });
    let (stop, stopping) = watch::channel(false);
    let service = service(&running, stopping);
    let create = WatchCreateRequest { key: "k".into(), ..WatchCreateRequest::default() };
    let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(1).build().expect("a runtime");
    let events = async {
        let request = Request::post("/etcdserverpb.Watch/Watch").header("content-type", "application/grpc");
        let request = request.body(OpenRequests(Some(framed(&create)))).expect("a request");
        let mut body = grpc::serve(service.clone(), request).await.into_body();
        assert!(body.frame().await.is_some_and(|frame| frame.is_ok_and(|frame| frame.is_data())), "created");
        for _ in 0..20 {
            let put = PutRequest { key: "k".into(), value: vec![7; 400].into(), ..PutRequest::default() };
            let put = service.node.propose(Kind::Put(put), None).expect("there is room").await;
            put.expect("applied");
            assert!(body.frame().await.is_some_and(|frame| frame.is_ok_and(|frame| frame.is_data())), "an event");
        }
    };
    runtime.block_on(async { tokio::time::timeout(NEVER, events).await }).expect("every event comes");
    drop((service, stop));
    runtime.shutdown_timeout(Duration::from_secs(60));
    running.stop();
}

#[test]
fn open_streams_end_when_the_process_is_to_stop() {
    let directory = TempDir::new().expect("a directory");
    let running = started(&directory);
    let (stop, stopping) = watch::channel(false);
    let service = service(&running, stopping);
    let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(WatchCreateRequest::default())) };
    let calls = [
        ("/etcdserverpb.Watch/Watch", framed(&create)),
        ("/etcdserverpb.Lease/LeaseKeepAlive", framed(&LeaseKeepAliveRequest { id: 1 })),
    ];
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(1).build().expect("a runtime");
    let end_of_streams = async {
        let mut open = Vec::new();
        for (path, message) in calls {
            let request = Request::post(path).header("content-type", "application/grpc");
            let request = request.body(OpenRequests(Some(message))).expect("a request");
            let mut body = grpc::serve(service.clone(), request).await.into_body();
            // The answer to the message: the stream is open.
            assert!(body.frame().await.is_some_and(|frame| frame.is_ok_and(|frame| frame.is_data())), "{path}");
            open.push(body);
        }
        stop.send(true).expect("streams listen");
        let mut statuses = Vec::new();
        for body in &mut open {
            let end = body.frame().await.expect("an end").expect("no error").into_trailers().expect("trailers");
            statuses.push((end["grpc-status"].clone(), end["grpc-message"].clone()));
        }
        statuses
    };
    let statuses = runtime.block_on(async { tokio::time::timeout(NEVER, end_of_streams).await });
    for (code, text) in statuses.expect("they end") {
        assert_eq!((code.as_bytes(), text.as_bytes()), (&b"14"[..], &b"etcdserver: server stopped"[..]));
    }
    drop(service);
    runtime.shutdown_timeout(Duration::from_secs(60));
    running.stop();
}
