//! What is kept of requests that wait, and that there is room for it.

use std::future::Future;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use basalt_proto::etcdserverpb::request_op::Request as Op;
use basalt_proto::etcdserverpb::{
    AuthRoleGetRequest, AuthUserGetRequest, AuthenticateRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};
use basalt_proto::v3electionpb::LeaderRequest;
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderValue, Request, Response};
use http_body_util::Full;
use prost::Message;

use super::super::grpc::{self, GrpcBody};
use super::super::method::Method;
use super::super::status;
use super::rig::Rig;
use crate::auth::Caller;
use crate::listen::{ClientConnection, RequestRoom, RequestRooms};

/// A call as it comes over a connection with this room.
fn call(rig: &Rig, room: &RequestRoom, path: &str, message: &[u8]) -> impl Future<Output = Response<GrpcBody>> + use<> {
    let mut body = BytesMut::new();
    body.put_u8(0);
    body.put_u32(u32::try_from(message.len()).expect("small"));
    body.put_slice(message);
    let mut request = Request::post(path).body(Full::new(body.freeze())).expect("a request");
    request.extensions_mut().insert(ClientConnection {
        remote_address: None,
        local_address: None,
        tls: false,
        common_name: None,
        request_room: room.clone(),
        has_place: false,
    });
    grpc::serve(rig.service.clone(), request)
}

/// A node of which nothing new is applied, until what is given is dropped.
async fn stalled(rig: &Rig) -> mpsc::Sender<()> {
    let (stall, stalled) = mpsc::channel::<()>();
    let (begin, begun) = tokio::sync::oneshot::channel();
    let node = rig.service.node.clone();
    tokio::spawn(async move { node.ask(move |_| (begin.send(()), stalled.recv())).await });
    begun.await.expect("apply stands still");
    let gauges = &rig.service.node.gauges;
    let put = PutRequest { key: "a".into(), ..PutRequest::default() };
    tokio::spawn(rig.service.call(Method::Put, put.encode_to_vec().into(), Caller::Nobody).settled());
    while gauges.committed_index.load(Ordering::Relaxed) <= gauges.applied_index.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    stall
}

/// The code of a call for whose request there is no room.
fn refused() -> HeaderValue {
    HeaderValue::from(status::too_many_requests().code as u16)
}

/// The codes of calls that are refused at once, each begun while those before it wait; `None` of one that waits for a View, as at
/// one of several members. The node knows better, and says so now and then: those that got one are begun anew.
fn codes_at_once<F: Future<Output = Response<GrpcBody>>>(
    rig: &Rig,
    begin: impl Fn() -> [F; 3],
) -> [Option<HeaderValue>; 3] {
    let is_single = &rig.service.node.gauges.single_voter;
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..100_000 {
        let mut calls = begin().map(Box::pin);
        let looks = calls.each_mut().map(|call| {
            is_single.store(false, Ordering::Relaxed);
            call.as_mut().poll(&mut context).map(|answer| answer.headers().get("grpc-status").cloned())
        });
        let has_no_view = |look: &Poll<Option<HeaderValue>>| look.is_pending() || *look == Poll::Ready(Some(refused()));
        // What a call before left its room to, on its way out, is given back in a moment.
        if looks[0].is_pending() && looks.iter().all(has_no_view) {
            return looks.map(|look| if let Poll::Ready(code) = look { code } else { None });
        }
    }
    panic!("no View is ever waited for");
}

#[tokio::test(flavor = "multi_thread")]
async fn large_requests_that_wait_for_a_view_have_room_or_are_refused() {
    const LARGE: usize = 300 << 10;
    let rig = Rig::start();
    // Half of it is for those that wait, and half of that for one connection.
    let rooms = RequestRooms::new(2 << 20);
    let check = |path: &str, request: &dyn Fn(usize) -> Vec<u8>| {
        let room = rooms.of_connection();
        let codes_of = |bytes| codes_at_once(&rig, || [bytes; 3].map(|bytes| call(&rig, &room, path, &request(bytes))));
        let refused = Some(refused());
        assert_eq!(codes_of(LARGE), [None, refused.clone(), refused.clone()], "{path}");
        // Those that gave up have left their room.
        assert_eq!(codes_of(LARGE), [None, refused.clone(), refused], "{path}");
        // Small ones are not counted.
        let full = room.waiting(512 << 10).expect("nothing is left in it");
        assert_eq!(codes_of(100), [None, None, None], "{path}");
        drop(full);
    };
    let range = |bytes: usize| RangeRequest { key: vec![b'k'; bytes].into(), ..RangeRequest::default() };
    let name = |bytes: usize| "n".repeat(bytes);
    check("/etcdserverpb.KV/Range", &|bytes| range(bytes).encode_to_vec());
    check("/etcdserverpb.KV/Txn", &|bytes| {
        let op = RequestOp { request: Some(Op::RequestRange(range(bytes))) };
        TxnRequest { success: vec![op], ..TxnRequest::default() }.encode_to_vec()
    });
    // Of the password next to nothing is kept.
    check("/etcdserverpb.Auth/Authenticate", &|bytes| {
        AuthenticateRequest { name: name(bytes), password: name(1 << 20) }.encode_to_vec()
    });
    check("/etcdserverpb.Auth/UserGet", &|bytes| AuthUserGetRequest { name: name(bytes) }.encode_to_vec());
    check("/v3electionpb.Election/Leader", &|bytes| LeaderRequest { name: vec![b'n'; bytes / 6] }.encode_to_vec());
    check("/etcdserverpb.Auth/RoleGet", &|bytes| AuthRoleGetRequest { role: name(bytes) }.encode_to_vec());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_defragmentation_that_is_given_up_is_counted_no_more() {
    let rig = Rig::start();
    let stall = stalled(&rig).await;
    let under_way = || rig.service.metrics.defrag_inflight.get();
    let mut answer = Box::pin(rig.service.call(Method::Defragment, Bytes::new(), Caller::Nobody).settled());
    let polled = answer.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(polled.is_pending() && under_way() == 1);
    drop(answer);
    assert_eq!(under_way(), 0);
    drop(stall);
}
