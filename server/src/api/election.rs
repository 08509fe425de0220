//! The service Election: the first candidate of a name leads.

use std::sync::Arc;

use basalt_proto::etcdserverpb::request_op::Request;
use basalt_proto::etcdserverpb::{PutRequest, ResponseHeader};
use basalt_proto::mvccpb::KeyValue;
use basalt_proto::mvccpb::event::EventType;
use basalt_proto::v3electionpb::{
    CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest, ProclaimResponse,
    ResignRequest, ResignResponse,
};
use bytes::Bytes;
use prost::Message;
use tokio::sync::mpsc::Sender;

use super::candidates::{Candidate, Entered, Waiting, prefix_of};
use super::chunks::Chunks;
use super::own_client::{NAME_TIMES, OwnClient, passed_on};
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
        Reply::keeping(NAME_TIMES * request.encoded_len(), async move {
            let leader = request.leader.ok_or_else(status::leader_missing)?;
            let (key, value) = (leader.key.into(), request.value.into());
            let header = client.proclaim(&key, leader.rev, leader.lease, value).await.map_err(passed_on)?;
            Ok(Chunks::of(&ProclaimResponse { header }))
        })
    }

    pub(super) fn leader(self: &Arc<Self>, request: LeaderRequest, caller: Caller) -> Reply {
        let client = OwnClient { service: self.clone(), caller };
        Reply::keeping(NAME_TIMES * request.name.len(), async move {
            let (header, first) = client.first(&prefix_of(&request.name)).await.map_err(passed_on)?;
            let first = first.ok_or_else(status::election_without_leader)?;
            Ok(shown(header, first))
        })
    }

    /// Who does not lead resigns from nothing, and is told no error.
    pub(super) fn resign(self: &Arc<Self>, request: ResignRequest, caller: Caller) -> Reply {
        let client = OwnClient { service: self.clone(), caller };
        Reply::keeping(NAME_TIMES * request.encoded_len(), async move {
            let leader = request.leader.ok_or_else(status::leader_missing)?;
            let (header, _) = client.leave(&leader.key.into(), leader.rev).await.map_err(passed_on)?;
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
        let (candidate, header, is_new) = self.stand(request).await?;
        let mut waiting = Waiting::begin(self, &candidate, is_new);
        let waited = async {
            let waited = self.wait_turn(&candidate, &mut waiting).await?;
            // Its lease may have ended meanwhile; etcd does not look.
            Ok(!waited || self.still_there(&candidate).await?.is_some())
        };
        match waited.await {
            Ok(leads) => {
                waiting.over();
                let (name, key) = (candidate.name().to_vec(), candidate.key.to_vec());
                let leader = LeaderKey { name, key, rev: candidate.revision, lease: candidate.lease };
                let answer = CampaignResponse { header: Some(header), leader: Some(leader) };
                if leads { Ok(Chunks::of(&answer)) } else { Err(status::session_expired()) }
            }
            // Whoever campaigns again with its lease finds its place.
            Err(error) if !candidate.lease_is_new => {
                waiting.over();
                Err(error)
            }
            Err(error) => {
                waiting.leave().await;
                Err(error)
            }
        }
    }

    /// Enters the queue with a value; tells whether its place in it is new. What was asked is gone when this returns: the wait
    /// is long, and all of it stands in the store.
    async fn stand(&self, request: CampaignRequest) -> Result<(Candidate, ResponseHeader, bool), Status> {
        let value = Bytes::from(request.value);
        let Entered { candidate, header, found, .. } =
            self.enter(&request.name, request.lease, value.clone(), false).await?;
        let is_new = found.is_none();
        if found.is_some_and(|found| found.value != value) {
            let proclaimed = self.proclaim(&candidate.key, candidate.revision, candidate.lease, value).await;
            if let Err(error) = proclaimed {
                // The error of the first is what is told.
                drop(self.leave(&candidate.key, candidate.revision).await);
                return Err(error);
            }
        }
        Ok((candidate, header, is_new))
    }

    async fn proclaim(
        &self,
        key: &Bytes,
        revision: i64,
        lease: i64,
        value: Bytes,
    ) -> Result<Option<ResponseHeader>, Status> {
        let lease = self.lease_or_new(lease).await?;
        let put = PutRequest { key: key.clone(), value, lease, ..PutRequest::default() };
        let (header, is_leader) = self.if_still(key, revision, Request::RequestPut(put)).await?;
        if is_leader { Ok(header) } else { Err(status::election_not_leader()) }
    }

    async fn observe(&self, prefix: &[u8], out: &Sender<Result<Chunks, Status>>) -> Result<(), Status> {
        loop {
            let (header, first) = self.wait_first(prefix).await?;
            // A copy: a slice of it would keep its value as long as it leads.
            let (key, from) = (Bytes::copy_from_slice(&first.key), header.revision + 1);
            if out.send(Ok(shown(header, first))).await.is_err() {
                return Ok(());
            }
            let mut watch = self.watch(&key, b"", from).await?;
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
