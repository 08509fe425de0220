//! Questions that only another member can answer, most of them the leader.

use std::time::Duration;

use basalt_proto::etcdserverpb::{HashKvRequest, HashKvResponse, LeaseTimeToLiveRequest, LeaseTimeToLiveResponse};
use basalt_proto::peer::peer_client::PeerClient;
use basalt_proto::peer::{HashKvRequest as PeerHashKvRequest, TimeToLiveRequest};
use tonic::transport::Channel;

use super::peers::Peers;

/// How long a member may take to be reached; the caller bounds the rest.
const REACH_TIMEOUT: Duration = Duration::from_secs(2);

impl Peers {
    /// Asks the leader how long a lease lives.
    ///
    /// # Errors
    /// The leader's status, or why it was not reached.
    pub async fn time_to_live(
        &self,
        leader: u64,
        request: LeaseTimeToLiveRequest,
    ) -> Result<LeaseTimeToLiveResponse, tonic::Status> {
        let request = TimeToLiveRequest { cluster_id: self.identity.cluster_id, request: Some(request) };
        let answer = self.client(leader).await?.time_to_live(request).await;
        self.checked(leader, answer).await
    }

    /// Asks all other members for the hash of their keys at a revision, each for as long as `timeout`.
    pub async fn hashes_of_others(
        &self,
        revision: i64,
        timeout: Duration,
    ) -> Vec<(u64, Result<HashKvResponse, tonic::Status>)> {
        let members = self.members.load_full();
        let others = members.iter().map(|member| member.id).filter(|id| *id != self.identity.member_id);
        let asked = others.map(async |id| {
            let late = |_| Err(tonic::Status::deadline_exceeded("no answer in time"));
            (id, tokio::time::timeout(timeout, self.hash_kv(id, revision)).await.unwrap_or_else(late))
        });
        // One after another: a member that walks over its data must not wait for room in the others' answers.
        let mut answers = Vec::new();
        for answer in asked {
            answers.push(answer.await);
        }
        answers
    }

    async fn hash_kv(&self, member: u64, revision: i64) -> Result<HashKvResponse, tonic::Status> {
        let cluster_id = self.identity.cluster_id;
        let request = PeerHashKvRequest { cluster_id, request: Some(HashKvRequest { revision }) };
        let answer = self.client(member).await?.hash_kv(request).await;
        self.checked(member, answer).await
    }

    pub(super) async fn client(&self, member: u64) -> Result<PeerClient<Channel>, tonic::Status> {
        if let Some(client) = self.asked.lock().await.get(&member) {
            return Ok(client.clone());
        }
        let mut reason = "its peer URLs are not known".to_owned();
        for url in self.urls(member) {
            match tokio::time::timeout(REACH_TIMEOUT, self.connector.connect(&url)).await {
                Ok(Ok(client)) => {
                    self.asked.lock().await.insert(member, client.clone());
                    return Ok(client);
                }
                Ok(Err(error)) => reason = error,
                Err(_) => reason = "no answer in time".to_owned(),
            }
        }
        Err(tonic::Status::unavailable(format!("cannot reach member {member:x}: {reason}")))
    }

    /// An answer; a connection that failed is forgotten, so that the next question opens one.
    pub(super) async fn checked<T>(
        &self,
        member: u64,
        answer: Result<tonic::Response<T>, tonic::Status>,
    ) -> Result<T, tonic::Status> {
        if answer.is_err() {
            self.asked.lock().await.remove(&member);
        }
        Ok(answer?.into_inner())
    }
}
