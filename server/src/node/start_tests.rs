use std::future::Future;
use std::sync::atomic::AtomicBool;

use basalt_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use basalt_proto::etcdserverpb::request_op::Request as Op;
use basalt_proto::etcdserverpb::{Compare, PutRequest, RequestOp, TxnRequest};
use basalt_proto::log::request::Kind;
use tempfile::TempDir;

use super::*;
use crate::apply::answer::Answer;
use crate::auth::TokenKind;
use crate::import::MEMBER_FILE;
use crate::memory::MemoryShares;
use crate::node::handle::Completed;

/// For what would never come if it did not come: no test waits so long when all is well.
pub(crate) const NEVER: Duration = Duration::from_secs(300);

fn config(directory: &TempDir) -> NodeConfig {
    NodeConfig {
        data_dir: directory.path().to_owned(),
        wal_dir: None,
        first: First(Arc::new(|| {
            let identity = Identity { cluster_id: 1, member_id: 7 };
            Ok(FirstStart::new_cluster(identity, Members::single_voter(7)))
        })),
        shard_map: None,
        heartbeat_interval: Duration::from_millis(100),
        election_timeout: Duration::from_secs(1),
        sweep_pause: Duration::from_millis(10),
        sweep_batch: 1000,
        hash_mark_interval: Duration::from_secs(60),
        slow_apply: Duration::from_secs(60),
        memory: MemoryShares { page_cache: 1 << 20, ..MemoryShares::of(1 << 30) },
        limits: Limits {
            request_bytes_max: 2 << 20,
            txn_operations_max: 128,
            quota_bytes: -1,
            lease_ttl_min: 2,
            snapshot_unread: Duration::MAX,
        },
        progress_notify_interval: Duration::from_secs(600),
        pre_vote: true,
        peer_urls: Vec::new(),
        catchup_entries: 5000,
        force_new_cluster: false,
        tokens: TokenKind::Simple { life: Duration::from_secs(300) },
    }
}

pub(crate) fn started(directory: &TempDir) -> Running {
    started_with(directory, config(directory).memory)
}

pub(crate) fn started_with(directory: &TempDir, memory: MemoryShares) -> Running {
    let config = NodeConfig { memory, ..config(directory) };
    let running = start(&config, &Arc::new(Metrics::default()), &alone).expect("a healthy directory");
    running.wait_ready(NEVER, NEVER).expect("it becomes ready");
    running
}

/// Waits for what the node answers.
fn answer<T>(answer: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(NEVER, answer).await.expect("an answer") })
}

fn propose(handle: &NodeHandle, kind: Kind) -> Completed {
    answer(handle.propose(kind, None).expect("taken")).expect("applied")
}

fn put(key: &str, value: &str) -> Kind {
    Kind::Put(PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..PutRequest::default() })
}

fn put_if_value(key: &str, expected: &str, value: &str) -> Kind {
    let compare = Compare {
        result: CompareResult::Equal as i32,
        target: CompareTarget::Value as i32,
        key: key.to_owned().into(),
        target_union: Some(TargetUnion::Value(expected.to_owned().into())),
        ..Compare::default()
    };
    let Kind::Put(put) = put(key, value) else { unreachable!("a put") };
    let success = vec![RequestOp { request: Some(Op::RequestPut(put)) }];
    Kind::Txn(TxnRequest { compare: vec![compare], success, failure: Vec::new() })
}

#[test]
fn data_of_etcd_is_refused_and_untouched() {
    let directory = TempDir::new().expect("a directory");
    std::fs::create_dir(directory.path().join(MEMBER_FILE)).expect("room for it");
    let refused = start(&config(&directory), &Arc::new(Metrics::default()), &alone).err().expect("not ours");
    assert!(matches!(&refused, StartError::EtcdData { directory: named, .. } if named == directory.path()));
    let text = refused.to_string();
    assert!(text.contains("holds data of etcd (a directory `member`), which cannot be taken over"), "{text}");
    assert!(text.contains("choose another --data-dir"), "{text}");
    assert_eq!(std::fs::read_dir(directory.path()).expect("there").count(), 1);
    // A log directory of etcd's is as little ours.
    let elsewhere = TempDir::new().expect("a directory");
    let config = NodeConfig { wal_dir: Some(directory.path().to_owned()), ..config(&elsewhere) };
    assert!(matches!(start(&config, &Arc::new(Metrics::default()), &alone), Err(StartError::EtcdDataInWalDir { .. })));
    // Nor is one with etcd's segments right in it, as its --wal-dir has them.
    let log = TempDir::new().expect("a directory");
    std::fs::write(log.path().join("0000000000000000-0000000000000000.wal"), "x").expect("room for it");
    let config = NodeConfig { wal_dir: Some(log.path().to_owned()), ..config };
    assert!(matches!(start(&config, &Arc::new(Metrics::default()), &alone), Err(StartError::EtcdDataInWalDir { .. })));
}

#[test]
fn a_checkpoint_is_answered_however_much_is_written_meanwhile() {
    let directory = TempDir::new().expect("a directory");
    let running = started(&directory);
    let stop = Arc::new(AtomicBool::new(false));
    let (wrote, writes) = channel();
    let writer = {
        let (handle, stop) = (running.handle.clone(), stop.clone());
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                propose(&handle, put("/registry/pods/a", "value"));
                // The test may have seen enough.
                _ = wrote.send(());
            }
        })
    };
    writes.recv_timeout(NEVER).expect("it writes");
    for _ in 0..3 {
        assert_eq!(answer(running.handle.checkpoint()), Ok(()));
    }
    let mut snapshot = answer(running.handle.snapshot()).expect("a snapshot begins");
    assert!(answer(snapshot.next()).expect("a piece").is_some());
    drop(snapshot);
    stop.store(true, Ordering::Relaxed);
    writer.join().expect("the writer ends");
    running.stop();
}

#[test]
fn values_that_decide_are_found_in_pages_after_a_start() {
    let directory = TempDir::new().expect("a directory");
    let running = started(&directory);
    propose(&running.handle, put("/registry/pods/a", "old"));
    propose(&running.handle, put("/registry/pods/b", "kept"));
    running.stop();

    let running = started(&directory);
    let handle = &running.handle;
    let decided = propose(handle, put_if_value("/registry/pods/a", "old", "new")).answer;
    assert!(matches!(decided, Answer::Txn(txn) if txn.succeeded));
    let decided = propose(handle, put_if_value("/registry/pods/a", "old", "newer")).answer;
    assert!(matches!(decided, Answer::Txn(txn) if !txn.succeeded));
    let kept = PutRequest { key: "/registry/pods/b".into(), ignore_value: true, ..PutRequest::default() };
    propose(handle, Kind::Put(kept));
    let decided = propose(handle, put_if_value("/registry/pods/b", "kept", "x")).answer;
    assert!(matches!(decided, Answer::Txn(txn) if txn.succeeded));
    running.stop();
}

#[test]
fn shards_are_chosen_at_birth_and_kept() {
    let directory = TempDir::new().expect("a directory");
    let map = |text: &str| Some(text.parse::<ShardMap>().expect("a map"));
    let shards_with = |shard_map| {
        let config = NodeConfig { shard_map, ..config(&directory) };
        let running = start(&config, &Arc::new(Metrics::default()), &alone).expect("a healthy directory");
        running.wait_ready(NEVER, NEVER).expect("it becomes ready");
        for key in ["/a", "/a/1", "/a/b/1", "/c"] {
            propose(&running.handle, put(key, "value"));
        }
        let shards = running.handle.view().shard_map.to_string();
        running.stop();
        shards
    };
    assert_eq!(shards_with(map("main;x=/a/;y=/a/b/")), "main;x=/a/;y=/a/b/");
    assert_eq!(shards_with(map("main")), "main;x=/a/;y=/a/b/", "the data knows better");
    assert_eq!(shards_with(None), "main;x=/a/;y=/a/b/");
}
