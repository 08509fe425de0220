//! Lists, streams and walks over the whole store: what they hold in memory, and whom they hold up.

use std::sync::Arc;
use std::time::Duration;

use basalt_proto::etcdserverpb::{
    HashKvRequest, HashKvResponse, RangeRequest, RangeResponse, RangeStreamResponse, SnapshotResponse,
};
use bytes::Bytes;
use prost::Message;
use tokio::sync::mpsc;

use super::super::chunks::Chunks;
use super::super::method::Method;
use super::super::status::{self, Status};
use super::super::stream::server_stream;
use super::rig::{LIMITS, Rig};
use crate::auth::Caller;
use crate::node::gather::{Gather, Limit, Shown};
use crate::node::handle::{Limits, Unavailable};

/// Small keys, then large ones: the worst for whoever foresees a message by the last.
async fn small_then_large(rig: &Rig) -> (Vec<String>, Vec<String>) {
    let small: Vec<String> = (0..5000).map(|n| format!("a/{n:05}")).collect();
    let large: Vec<String> = (0..12).map(|n| format!("b/{n:05}")).collect();
    rig.put_all(&small, &Bytes::from_static(b"v")).await;
    for key in &large {
        rig.put(key, vec![7; 1 << 20]).await;
    }
    (small, large)
}

fn all(keys_only: bool) -> RangeRequest {
    RangeRequest { key: "a".into(), range_end: "c".into(), keys_only, ..RangeRequest::default() }
}

async fn stream(rig: &Rig, request: RangeRequest) -> Vec<Bytes> {
    let (out, mut messages) = mpsc::channel::<Result<Chunks, Status>>(4);
    let service = rig.service.clone();
    let sending = tokio::spawn(async move { service.range_stream(&request, &Caller::Nobody, &out).await });
    let mut received = Vec::new();
    while let Some(message) = messages.recv().await {
        received.push(Bytes::from(message.expect("a message").into_pieces().concat()));
    }
    sending.await.expect("no panic").expect("the stream ends well");
    received
}

#[tokio::test(flavor = "multi_thread")]
async fn a_streams_messages_stay_small_when_values_grow() {
    let rig = Rig::start();
    let (small, large) = small_then_large(&rig).await;
    for checkpointed in [false, true] {
        if checkpointed {
            rig.service.node.checkpoint().await.expect("a checkpoint");
        }
        let messages = stream(&rig, all(false)).await;
        let longest = messages.iter().map(Bytes::len).max().unwrap_or_default();
        assert!(longest < 2 * rig.service.node.limits.request_bytes_max, "{longest} bytes in a message");
        let parts = messages.iter().map(|message| RangeStreamResponse::decode(message.clone()).expect("a message"));
        let parts: Vec<RangeResponse> = parts.map(|part| part.range_response.expect("a part")).collect();
        let keys: Vec<&Bytes> = parts.iter().flat_map(|part| &part.kvs).map(|kv| &kv.key).collect();
        let expected: Vec<&str> = small.iter().chain(&large).map(String::as_str).collect();
        assert_eq!(keys, expected);
        let last = parts.last().expect("a last part");
        assert_eq!((last.count, last.more, last.header.is_some()), (5012, false, true));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_beyond_the_limit_is_given_up_while_it_is_gathered() {
    let rig = Rig::start();
    small_then_large(&rig).await;
    let view = rig.service.node.view();
    let plan = view.plan(&crate::apply::query::range_query(&all(false))).expect("a plan");
    for checkpointed in [false, true] {
        if checkpointed {
            rig.service.node.checkpoint().await.expect("a checkpoint");
        }
        let view = rig.service.node.view();
        let gather = |shown, limit| rig.service.node.gather(Gather::new(view.clone(), plan.hits.clone(), shown, limit));
        let refused = gather(Shown::Whole, Limit::Refuse(4 << 20)).wait().await;
        let Err(Unavailable::AnswerTooLarge { bytes }) = refused else { panic!("{:?}", refused.map(|_| ())) };
        assert!((4 << 20..16 << 20).contains(&bytes), "{bytes}");
        assert_eq!(gather(Shown::Whole, Limit::Refuse(16 << 20)).wait().await.map(|values| values.len()), Ok(5012));
        // Keys alone are few bytes, however long their values are.
        let keys = gather(Shown::KeysOnly, Limit::Refuse(4 << 20)).wait().await.expect("keys");
        let bytes: usize = keys.iter().map(Bytes::len).sum();
        assert!(keys.len() == 5012 && bytes < 200_000, "{bytes}");
        let enough = gather(Shown::Whole, Limit::Stop(1)).wait().await.expect("some");
        assert!(enough.len() < 1000, "{}", enough.len());
    }
    let status = Status::from(Unavailable::AnswerTooLarge { bytes: 3_000_000_000 });
    assert_eq!(status, status::answer_too_large(3_000_000_000));
    let keys: RangeResponse = rig.call(Method::Range, &all(true)).await.expect("a list of keys");
    assert!(keys.kvs.len() == 5012 && keys.kvs.iter().all(|kv| kv.value.is_empty()));
}

/// As many snapshots as may be, none of which is read, and hashes that wait: clients' reads go on.
#[tokio::test(flavor = "multi_thread")]
async fn walks_over_the_store_hold_up_no_read() {
    let rig = Rig::start();
    small_then_large(&rig).await;
    rig.service.node.checkpoint().await.expect("a checkpoint");
    let mut unread = Vec::new();
    for _ in 0..8 {
        let (out, messages) = mpsc::channel::<Result<Chunks, Status>>(1);
        let service = rig.service.clone();
        tokio::spawn(async move { service.snapshot(&out).await });
        unread.push(messages);
    }
    let _: HashKvResponse = rig.call(Method::HashKv, &HashKvRequest::default()).await.expect("a hash");
    let read: RangeResponse = rig.call(Method::Range, &all(false)).await.expect("a list from pages");
    assert_eq!(read.kvs.len(), 5012);
    // Those who give up make room.
    let mut bytes = 0;
    let mut first = unread.swap_remove(0);
    drop(unread);
    let mut last = None;
    while let Some(message) = first.recv().await {
        let message = message.expect("a piece").into_pieces().concat();
        let message = SnapshotResponse::decode(&*message).expect("a piece");
        bytes += message.blob.len();
        last = Some(message);
    }
    let last = last.expect("a last piece");
    assert_eq!((last.blob.len(), last.remaining_bytes, bytes % 512), (32, 0, 32));
}

/// Snapshots that nobody reads end, and what they pinned and the place that they took is free for others.
#[tokio::test(flavor = "multi_thread")]
async fn an_unread_snapshot_ends() {
    let rig = Rig::start_with(Limits { snapshot_unread: Duration::from_millis(20), ..LIMITS });
    small_then_large(&rig).await;
    let mut unread = Vec::new();
    // More than may be under way.
    for _ in 0..6 {
        let (out, messages) = mpsc::channel::<Result<Chunks, Status>>(1);
        let service = rig.service.clone();
        unread.push((tokio::spawn(async move { service.snapshot(&out).await }), messages));
    }
    for (snapshot, _messages) in unread {
        let ended = snapshot.await.expect("no panic");
        assert_eq!(ended, Err(Unavailable::NotRead.into()));
    }
}

/// Neither a checkpoint nor a walk is for those who are there no more.
#[tokio::test(flavor = "multi_thread")]
async fn snapshots_whose_clients_go_while_they_wait_begin_nothing() {
    let rig = Rig::start();
    let node = &rig.service.node;
    // As many as may be under way.
    let under_way = (node.snapshot().await, node.snapshot().await);
    let before = Arc::strong_count(&rig.service);
    let call = |_| server_stream(rig.service.clone(), Method::Snapshot, Bytes::new(), Caller::Nobody, false);
    let waiting: Vec<_> = (0..5).map(call).collect();
    assert_eq!(Arc::strong_count(&rig.service), before + 5);
    drop(waiting);
    let all_over = async {
        while Arc::strong_count(&rig.service) > before {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), all_over).await.expect("their tasks end");
    assert!(under_way.0.is_ok() && under_way.1.is_ok());
}
