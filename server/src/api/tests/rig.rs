//! A running node in a directory of its own, called as its clients call it but without connections.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use basalt_proto::etcdserverpb::{PutRequest, PutResponse, RequestOp, TxnRequest, TxnResponse, request_op};
use basalt_storage::mvcc::kept_views::KeptViews;
use basalt_storage::mvcc::key_index::KEPT_ROOTS_BYTES_DEFAULT;
use prost::Message;
use tempfile::TempDir;
use tokio::sync::watch;

use super::super::method::Method;
use super::super::service::Service;
use super::super::status::Status;
use crate::api::member_changes::MemberRules;
use crate::apply::members::Members;
use crate::auth::{Caller, Passwords, TokenKind};
use crate::config::MetricsDetail;
use crate::memory::MemoryShares;
use crate::metrics::Metrics;
use crate::node::content::SNAPSHOT_UNREAD_MAX;
use crate::node::handle::{Identity, Limits};
use crate::node::start::{First, FirstStart, NodeConfig, Running, alone, start};

/// etcd's, without a quota.
pub const LIMITS: Limits = Limits {
    request_bytes_max: 1_572_864,
    txn_operations_max: 128,
    quota_bytes: -1,
    lease_ttl_min: 2,
    snapshot_unread: SNAPSHOT_UNREAD_MAX,
};

/// A node and its handlers.
pub struct Rig {
    pub service: Arc<Service>,
    running: Option<Running>,
    /// Says stop to calls that wait, also when it is dropped.
    pub stop: watch::Sender<bool>,
    directory: TempDir,
}

impl Rig {
    /// A new node with etcd's limits.
    pub fn start() -> Self {
        Self::start_with(LIMITS)
    }

    /// A new node.
    pub fn start_with(limits: Limits) -> Self {
        let directory = TempDir::new().expect("a directory");
        let metrics = Arc::new(Metrics::new(MetricsDetail::Basic));
        let config = NodeConfig { limits, ..config(&directory) };
        let running = start(&config, &metrics, &alone).expect("the node starts");
        running.wait_ready(Duration::from_secs(60), Duration::ZERO).expect("the node leads");
        let (stop, stopping) = watch::channel(false);
        let service = Arc::new(Service {
            kept: Mutex::new(KeptViews::new(KEPT_ROOTS_BYTES_DEFAULT)),
            node: running.handle.clone(),
            sinks: running.sinks.clone(),
            peers: None,
            metrics,
            tracer: None,
            slow_unary: Duration::MAX,
            slow_apply: Duration::MAX,
            election_timeout: Duration::from_secs(1),
            request_timeout: Duration::from_secs(60),
            passwords: Passwords::new(4),
            member_rules: MemberRules { strict: true, learners_max: 1 },
            stopping,
        });
        Self { service, running: Some(running), stop, directory }
    }

    /// Where its data lies.
    pub fn data_dir(&self) -> PathBuf {
        data_dir(&self.directory)
    }

    /// Calls a unary method.
    pub async fn call<R: Message + Default>(&self, method: Method, request: &impl Message) -> Result<R, Status> {
        let answer = self.service.call(method, request.encode_to_vec().into(), Caller::Nobody).settled().await;
        let bytes = answer?.into_pieces().concat();
        Ok(R::decode(&*bytes).expect("the answer is of this kind"))
    }

    /// Puts one key.
    pub async fn put(&self, key: &str, value: impl Into<bytes::Bytes>) -> PutResponse {
        let request = PutRequest { key: key.to_owned().into(), value: value.into(), ..PutRequest::default() };
        self.call(Method::Put, &request).await.expect("a put")
    }

    /// Puts many keys of one value, as many at once as a transaction holds.
    pub async fn put_all(&self, keys: &[String], value: &bytes::Bytes) {
        for keys in keys.chunks(128) {
            let put = |key: &String| PutRequest { key: key.clone().into(), value: value.clone(), ..Default::default() };
            let op = |key| RequestOp { request: Some(request_op::Request::RequestPut(put(key))) };
            let request = TxnRequest { success: keys.iter().map(op).collect(), ..TxnRequest::default() };
            let _: TxnResponse = self.call(Method::Txn, &request).await.expect("a transaction");
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop();
        }
    }
}

fn data_dir(directory: &TempDir) -> PathBuf {
    directory.path().join("data")
}

fn config(directory: &TempDir) -> NodeConfig {
    NodeConfig {
        data_dir: data_dir(directory),
        wal_dir: None,
        first: First(Arc::new(|| {
            let identity = Identity { cluster_id: 1, member_id: 2 };
            Ok(FirstStart::new_cluster(identity, Members::single_voter(2)))
        })),
        shard_map: None,
        heartbeat_interval: Duration::from_millis(100),
        election_timeout: Duration::from_secs(1),
        sweep_pause: Duration::from_millis(10),
        sweep_batch: 1000,
        hash_mark_interval: Duration::from_secs(60),
        slow_apply: Duration::MAX,
        memory: MemoryShares { page_cache: 1 << 20, answers: 64 << 20, ..MemoryShares::of(1 << 30) },
        limits: LIMITS,
        progress_notify_interval: Duration::from_secs(600),
        pre_vote: true,
        peer_urls: Vec::new(),
        catchup_entries: 5000,
        force_new_cluster: false,
        tokens: TokenKind::Simple { life: Duration::from_secs(300) },
    }
}
