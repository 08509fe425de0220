//! Who waits for a lock or a lead: what is kept of it meanwhile, and how it leaves.

use std::sync::{Arc, Weak};
use std::time::Duration;

use basalt_proto::etcdserverpb::{LeaseGrantRequest, LeaseGrantResponse, RangeRequest, RangeResponse};
use basalt_proto::v3electionpb::{CampaignRequest, LeaderRequest};
use basalt_proto::v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse};
use bytes::Bytes;
use prost::Message;

use super::super::method::Method;
use super::super::status;
use super::super::stream::server_stream;
use super::rig::Rig;
use crate::auth::Caller;

/// A message that tells whether anybody keeps its buffer.
struct Watched {
    bytes: Vec<u8>,
    _alive: Arc<()>,
}

impl AsRef<[u8]> for Watched {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

fn watched(request: &impl Message) -> (Bytes, Weak<()>) {
    let alive = Arc::new(());
    let buffer = Arc::downgrade(&alive);
    (Bytes::from_owner(Watched { bytes: request.encode_to_vec(), _alive: alive }), buffer)
}

fn lock(lease: i64) -> LockRequest {
    LockRequest { name: "l".into(), lease }
}

fn campaign(lease: i64) -> CampaignRequest {
    CampaignRequest { name: "l".into(), lease, value: "v".into() }
}

/// A node where lease 7 holds the lock; leases 8 and 9 are there.
async fn held() -> Rig {
    let rig = Rig::start();
    for id in [7, 8, 9] {
        let grant = LeaseGrantRequest { ttl: 600, id };
        let _: LeaseGrantResponse = rig.call(Method::LeaseGrant, &grant).await.expect("a lease");
    }
    let _: LockResponse = rig.call(Method::Lock, &lock(7)).await.expect("the lock");
    rig
}

/// The keys of the queue.
async fn queue(rig: &Rig) -> Vec<Bytes> {
    let request = RangeRequest { key: "l/".into(), range_end: "l0".into(), ..RangeRequest::default() };
    let found: RangeResponse = rig.call(Method::Range, &request).await.expect("a range");
    found.kvs.into_iter().map(|kv| kv.key).collect()
}

async fn until_queued(rig: &Rig, length: usize) {
    let queued = async {
        while queue(rig).await.len() != length {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), queued).await.expect("so many stand in the queue");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_keeps_nothing_of_its_message() {
    let rig = held().await;
    let calls = [(Method::Lock, watched(&lock(8))), (Method::Campaign, watched(&campaign(9)))];
    for (already, (method, (message, buffer))) in calls.into_iter().enumerate() {
        let waiting = tokio::spawn(rig.service.call(method, message, Caller::Nobody).settled());
        until_queued(&rig, already + 2).await;
        assert!(!waiting.is_finished());
        assert!(buffer.upgrade().is_none(), "{method:?} keeps its message");
    }
    let (message, buffer) = watched(&LeaderRequest { name: "l".into() });
    let mut observed = server_stream(rig.service.clone(), Method::Observe, message, Caller::Nobody, false);
    assert!(observed.recv().await.is_some_and(|leader| leader.is_ok()));
    assert!(buffer.upgrade().is_none(), "Observe keeps its message");
}

/// A client comes back with a lease of its own and finds its place; with one that was granted for its call nobody does.
#[tokio::test(flavor = "multi_thread")]
async fn at_a_stop_none_is_left_whom_nobody_comes_back_for() {
    let rig = held().await;
    let calls = [
        (Method::Lock, lock(8).encode_to_vec()),
        (Method::Lock, lock(0).encode_to_vec()),
        (Method::Campaign, campaign(0).encode_to_vec()),
    ];
    let waiting =
        calls.map(|(method, message)| tokio::spawn(rig.service.call(method, message.into(), Caller::Nobody).settled()));
    until_queued(&rig, 4).await;
    rig.stop.send(true).expect("the service listens");
    for ended in waiting {
        assert_eq!(ended.await.expect("no panic").map(drop), Err(status::stopped()));
    }
    assert_eq!(queue(&rig).await, ["l/7", "l/8"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_room_for_watch_requests_is_as_large_behind_a_wait_as_before() {
    let rig = held().await;
    let free = rig.service.sinks.free_request_bytes();
    let waiting =
        tokio::spawn(rig.service.call(Method::Lock, lock(8).encode_to_vec().into(), Caller::Nobody).settled());
    until_queued(&rig, 2).await;
    let unlock = UnlockRequest { key: "l/7".into() };
    let _: UnlockResponse = rig.call(Method::Unlock, &unlock).await.expect("unlocked");
    // Its watch told it.
    waiting.await.expect("no panic").expect("the lock");
    assert_eq!(rig.service.sinks.free_request_bytes(), free);
}
