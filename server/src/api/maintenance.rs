//! The service Maintenance.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use basalt_proto::etcdserverpb::downgrade_request::DowngradeAction;
use basalt_proto::etcdserverpb::{
    AlarmRequest, AlarmResponse, AlarmType, DefragmentResponse, DowngradeInfo, DowngradeRequest, DowngradeResponse,
    HashKvRequest, HashKvResponse, HashResponse, MoveLeaderRequest, MoveLeaderResponse, StatusResponse, alarm_request,
};
use basalt_proto::log::request::Kind;
use basalt_proto::membershippb::DowngradeInfoSetRequest;
use bytes::Bytes;
use prometheus::IntGauge;
use tokio::sync::mpsc::error::SendTimeoutError;

use super::chunks::Chunks;
use super::policy::Policy;
use super::service::{Reply, Service};
use super::status::{self, Code, Status};
use crate::apply::alarms::AlarmKind;
use crate::apply::downgrade::Release;
use crate::auth::Caller;
use crate::config::etcd_version;
use crate::failpoints::{self, Point};
use crate::node::content::SnapshotChunk;
use crate::node::handle::Unavailable;

/// How often a call that moves the lead looks whether it did.
const TRANSFER_POLL: Duration = Duration::from_millis(10);

/// One of those that a figure counts, until it ends or its call is given up.
struct UnderWay(IntGauge);

impl UnderWay {
    fn count(figure: &IntGauge) -> Self {
        figure.inc();
        Self(figure.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Service {
    /// A GET sees what was armed and disarmed before it; arming and disarming go through the log (etcd-contract 42, 43).
    pub(super) fn alarm(self: &Arc<Self>, request: AlarmRequest, caller: &Caller) -> Reply {
        if alarm_request::AlarmAction::try_from(request.action).is_err() {
            return Reply::Ready(Err(Status::new(Code::InvalidArgument, "basalt: unknown alarm action")));
        }
        if request.action() != alarm_request::AlarmAction::Get {
            return match self.authorize(Policy::Root, caller) {
                Ok(()) => self.propose(Kind::Alarm(request), caller),
                Err(status) => Reply::Ready(Err(status)),
            };
        }
        let service = self.clone();
        let kind = AlarmKind::from_number(request.alarm);
        // NONE means all. Of a kind that nobody knows none is armed.
        let unknown = kind.is_none() && request.alarm != AlarmType::None as i32;
        Reply::later(async move {
            service.view_as_if_ordered().await?;
            let listed = service.node.ask(move |machine| machine.alarms().list(kind));
            let alarms = if unknown { Vec::new() } else { service.within(listed).await? };
            let header = service.header().at(service.node.view().revision);
            let alarms = alarms.into_iter().map(|alarm| alarm.to_wire()).collect();
            Ok(Chunks::of(&AlarmResponse { header: Some(header), alarms }))
        })
    }

    pub(super) fn status(self: &Arc<Self>) -> Reply {
        let service = self.clone();
        Reply::later(async move {
            let alarms = service.within(service.node.ask(|machine| machine.alarms().list(None))).await?;
            Ok(Chunks::of(&service.status_response(&alarms)))
        })
    }

    fn status_response(&self, alarms: &[crate::apply::alarms::Alarm]) -> StatusResponse {
        let gauges = &self.node.gauges;
        let leader = self.node.leader();
        let downgrade = **self.node.downgrade.load();
        let mut errors: Vec<String> =
            leader.is_none().then(|| "etcdserver: no leader".to_owned()).into_iter().collect();
        if self.metrics.damaged_answers_total.get() > 0 {
            errors.push("basalt: stored data is damaged; see the server's log".to_owned());
        }
        // Go prints the message as text; the spaces vary by build of etcd (etcd-contract 54).
        errors.extend(alarms.iter().map(|alarm| format!("memberID:{}  alarm:{}", alarm.member_id, alarm.kind.name())));
        StatusResponse {
            header: Some(self.header().at(self.node.view().revision)),
            version: etcd_version().to_owned(),
            db_size: gauges.db_size.load(Ordering::Relaxed).try_into().unwrap_or(i64::MAX),
            leader: leader.unwrap_or(0),
            raft_index: gauges.committed_index.load(Ordering::Relaxed),
            raft_term: gauges.term.load(Ordering::Relaxed),
            raft_applied_index: gauges.applied_index.load(Ordering::Relaxed),
            errors,
            db_size_in_use: gauges.db_size_in_use.load(Ordering::Relaxed).try_into().unwrap_or(i64::MAX),
            is_learner: self.is_learner(),
            storage_version: downgrade.cluster_version().to_string(),
            db_size_quota: self.node.limits.quota_bytes,
            downgrade_info: Some(DowngradeInfo {
                enabled: downgrade.target().is_some(),
                target_version: downgrade.target().map(|target| target.to_string()).unwrap_or_default(),
            }),
        }
    }

    /// Has another voter lead. Without header, as in etcd (etcd-contract 44, 47).
    pub(super) fn move_leader(self: &Arc<Self>, request: &MoveLeaderRequest) -> Reply {
        let (node, target) = (&self.node, request.target_id);
        if !node.gauges.leads.load(Ordering::Relaxed) {
            return Reply::Ready(Err(status::not_leader()));
        }
        if !node.members.load().voters().contains(&target) {
            return Reply::Ready(Err(status::bad_leader_transferee()));
        }
        if target != node.identity.member_id {
            node.transfer_leadership(target);
        }
        let service = self.clone();
        Reply::later(async move {
            let moved = async {
                while service.node.leader() != Some(target) {
                    tokio::time::sleep(TRANSFER_POLL).await;
                }
            };
            match tokio::time::timeout(service.request_timeout, moved).await {
                Ok(()) => Ok(Chunks::of(&MoveLeaderResponse { header: None })),
                Err(_) => Err(status::leader_transfer_timed_out()),
            }
        })
    }

    /// Begins or ends a downgrade, or says whether one could begin (etcd-contract 48).
    pub(super) fn downgrade(self: &Arc<Self>, request: DowngradeRequest, caller: Caller) -> Reply {
        let target = Release::parse(&request.version);
        match DowngradeAction::try_from(request.action) {
            Ok(DowngradeAction::Validate | DowngradeAction::Enable) if target.is_none() => {
                Reply::Ready(Err(status::downgrade_version_format()))
            }
            Ok(DowngradeAction::Validate) => {
                let service = self.clone();
                Reply::later(async move {
                    let view = service.linearizable_view().await?;
                    let downgrade = **service.node.downgrade.load();
                    downgrade.check(target)?;
                    let header = Some(service.header().at(view.revision));
                    let version = downgrade.cluster_version().minor_text();
                    Ok(Chunks::of(&DowngradeResponse { header, version }))
                })
            }
            Ok(DowngradeAction::Enable) => {
                let ver = target.map(|target| target.to_string()).unwrap_or_default();
                self.propose(Kind::DowngradeInfoSet(DowngradeInfoSetRequest { enabled: true, ver }), &caller)
            }
            Ok(DowngradeAction::Cancel) => {
                self.propose(Kind::DowngradeInfoSet(DowngradeInfoSetRequest::default()), &caller)
            }
            Err(_) => Reply::Ready(Err(status::unknown_method())),
        }
    }

    /// Rewrites every partly dead leaf, beside all other work. Files keep within bounds by themselves; this only comes
    /// nearer to what lives. The answer has no header at all (etcd-contract 44).
    pub(super) fn defragment(self: &Arc<Self>) -> Reply {
        let service = self.clone();
        Reply::later(async move {
            failpoints::hit_in_task(Point::DefragBeforeCopy).await;
            if failpoints::fails(Point::DefragOpenFileError) {
                return Err(Status::new(Code::Unknown, "failpoint: defragOpenFileError"));
            }
            let started = Instant::now();
            let under_way = UnderWay::count(&service.metrics.defrag_inflight);
            service.node.defragment().await?;
            drop(under_way);
            service.metrics.defrag_seconds.observe(started.elapsed().as_secs_f64());
            Ok(Chunks::of(&DefragmentResponse { header: None }))
        })
    }

    /// A bbolt file of the whole store, then its SHA-256 (etcd-contract 51).
    pub(super) async fn snapshot(
        self: &Arc<Self>,
        out: &tokio::sync::mpsc::Sender<Result<Chunks, Status>>,
    ) -> Result<(), Status> {
        let started = Instant::now();
        let mut snapshot = self.node.snapshot().await?;
        let version = Bytes::from(snapshot.release.to_string());
        while let Some(SnapshotChunk { bytes, remaining }) = snapshot.next().await? {
            // SnapshotResponse: remaining_bytes 2, blob 3, version 4.
            let mut message = Chunks::default();
            message.number(2, remaining);
            message.shared(3, &bytes);
            message.shared(4, &version);
            match out.send_timeout(Ok(message), self.node.limits.snapshot_unread).await {
                Ok(()) => {}
                Err(SendTimeoutError::Closed(_)) => return Ok(()),
                // What it pins goes with it, and the next one begins.
                Err(SendTimeoutError::Timeout(_)) => return Err(Unavailable::NotRead.into()),
            }
        }
        self.metrics.backend_snapshot_seconds.observe(started.elapsed().as_secs_f64());
        Ok(())
    }

    pub(super) fn hash(self: &Arc<Self>) -> Reply {
        let service = self.clone();
        Reply::later(async move {
            let started = Instant::now();
            let (hash, revision) = service.node.content_hash().await?;
            service.metrics.hash_seconds.observe(started.elapsed().as_secs_f64());
            Ok(Chunks::of(&HashResponse { header: Some(service.header().at(revision)), hash }))
        })
    }

    pub(super) fn hash_kv(self: &Arc<Self>, request: HashKvRequest) -> Reply {
        let service = self.clone();
        Reply::later(async move { Ok(Chunks::of(&service.hash_kv_here(request.revision).await?)) })
    }

    /// The hash of all keys at a revision, 0 for the newest (etcd-contract 52).
    ///
    /// # Errors
    /// A revision that is compacted or not written yet; damage.
    pub async fn hash_kv_here(&self, revision: i64) -> Result<HashKvResponse, Status> {
        let started = Instant::now();
        let hash = self.node.hash_kv(revision).await?;
        self.metrics.hash_rev_seconds.observe(started.elapsed().as_secs_f64());
        Ok(HashKvResponse {
            header: Some(self.header().at(self.node.view().revision)),
            hash: hash.hash,
            compact_revision: hash.compact_revision,
            hash_revision: hash.revision,
        })
    }
}
