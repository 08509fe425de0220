//! The service Election: the first candidate of a name leads.

use std::sync::Arc;

use basalt_proto::etcdserverpb::request_op::Request;
use basalt_proto::etcdserverpb::{PutRequest, RangeRequest, RangeResponse, ResponseHeader};
use basalt_proto::mvccpb::KeyValue;
use basalt_proto::mvccpb::event::EventType;
use basalt_proto::v3electionpb::{
    CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest, ProclaimResponse,
    ResignRequest, ResignResponse,
};
use bytes::Bytes;
use tokio::sync::mpsc::Sender;

use super::candidates::{Waiting, prefix_of};
use super::chunks::Chunks;
use super::method::Method;
use super::own_client::{OwnClient, passed_on};
use super::service::{Reply, Service};
use super::status::{self, Status};
use crate::auth::Caller;

impl Service {
    /// Answers when the caller leads.
    pub(super) fn campaign(self: &Arc<Self>, request: CampaignRequest, caller: Caller) -> Reply {
        let client = OwnClient { service: self.clone(), caller };
        Reply::later(async move { client.campaign(request).await.map_err(passed_on) })
    }

    pub(super) fn proclaim(self: &Arc<Self>, request: ProclaimRequest, caller: Caller) -> Reply {
        let client = OwnClient { service: self.clone(), caller };
        Reply::later(async move {
            let leader = request.leader.ok_or_else(status::leader_missing)?;
            let header = client.proclaim(&leader, request.value).await.map_err(passed_on)?;
            Ok(Chunks::of(&ProclaimResponse { header }))
        })
    }

    pub(super) fn leader(self: &Arc<Self>, request: LeaderRequest, caller: Caller) -> Reply {
        let client = OwnClient { service: self.clone(), caller };
        Reply::later(async move {
            let (header, first) = client.first(&prefix_of(&request.name)).await.map_err(passed_on)?;
            let first = first.ok_or_else(status::election_without_leader)?;
            Ok(shown(header, first))
        })
    }

    /// Who does not lead resigns from nothing, and is told no error.
    pub(super) fn resign(self: &Arc<Self>, request: ResignRequest, caller: Caller) -> Reply {
        let client = OwnClient { service: self.clone(), caller };
        Reply::later(async move {
            let leader = request.leader.ok_or_else(status::leader_missing)?;
            let (header, _) = client.leave(&leader.key, leader.rev).await.map_err(passed_on)?;
            Ok(Chunks::of(&ResignResponse { header }))
        })
    }

    /// The leader, and every change from there on, until the client goes.
    ///
    /// # Errors
    /// Where etcd only ends the stream.
    pub(super) async fn observe(
        self: &Arc<Self>,
        request: &LeaderRequest,
        caller: Caller,
        out: &Sender<Result<Chunks, Status>>,
    ) -> Result<(), Status> {
        let client = OwnClient { service: self.clone(), caller };
        let prefix = prefix_of(&request.name);
        tokio::select! {
            biased;
            () = out.closed() => Ok(()),
            observed = client.observe(&prefix, out) => observed.map_err(passed_on),
        }
    }
}

fn shown(header: ResponseHeader, kv: KeyValue) -> Chunks {
    Chunks::of(&LeaderResponse { header: Some(header), kv: Some(kv) })
}

impl OwnClient {
    async fn campaign(&self, request: CampaignRequest) -> Result<Chunks, Status> {
        let CampaignRequest { name, lease, value } = request;
        let prefix = prefix_of(&name);
        let lease = self.lease_or_new(lease).await?;
        let candidate = self.enter(&prefix, lease, value.clone()).await?;
        let waiting = Waiting::begin(self, &candidate);
        let (key, rev) = (candidate.key.clone(), candidate.revision);
        let leader = LeaderKey { name, key, rev, lease };
        if candidate.found.is_some_and(|found| found.value != value) {
            self.proclaim(&leader, value).await?;
        }
        if self.wait_turn(&prefix, rev).await? {
            // Its lease may have ended meanwhile; etcd does not look.
            let own = RangeRequest { key: leader.key.clone(), ..RangeRequest::default() };
            let found: RangeResponse = self.call(Method::Range, &own).await?;
            if found.kvs.first().is_none_or(|found| found.create_revision != rev) {
                return Err(status::session_expired());
            }
        }
        waiting.succeeded();
        Ok(Chunks::of(&CampaignResponse { header: Some(candidate.header), leader: Some(leader) }))
    }

    async fn proclaim(&self, leader: &LeaderKey, value: Bytes) -> Result<Option<ResponseHeader>, Status> {
        let lease = self.lease_or_new(leader.lease).await?;
        let put = PutRequest { key: leader.key.clone(), value, lease, ..PutRequest::default() };
        let (header, is_leader) = self.if_still(&leader.key, leader.rev, Request::RequestPut(put)).await?;
        if is_leader { Ok(header) } else { Err(status::election_not_leader()) }
    }

    async fn observe(&self, prefix: &[u8], out: &Sender<Result<Chunks, Status>>) -> Result<(), Status> {
        loop {
            let (header, first) = self.wait_first(prefix).await?;
            let (key, from) = (first.key.clone(), header.revision + 1);
            if out.send(Ok(shown(header, first))).await.is_err() {
                return Ok(());
            }
            let mut watch = self.watch(&key, b"", from)?;
            while let Some((header, event)) = watch.next().await? {
                // The next one leads.
                if event.r#type == EventType::Delete as i32 {
                    break;
                }
                if out.send(Ok(shown(header, event.kv.unwrap_or_default()))).await.is_err() {
                    return Ok(());
                }
            }
        }
    }
}
