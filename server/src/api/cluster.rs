//! The service Cluster, as far as one member can, and what else is small: health and authentication's status.

use std::sync::Arc;

use basalt_proto::etcdserverpb::{AuthStatusResponse, Member, MemberListRequest, MemberListResponse};
use basalt_proto::health::health_check_response::ServingStatus;
use basalt_proto::health::{HealthCheckRequest, HealthCheckResponse};

use super::chunks::Chunks;
use super::service::{Reply, Service};
use super::status::{Code, Status};

impl Service {
    /// Linearizable unless the client wants it otherwise. The header of a cluster call shows no revision (etcd-contract
    /// 44).
    pub(super) fn member_list(self: &Arc<Self>, request: &MemberListRequest) -> Reply {
        if !request.linearizable {
            return Reply::Ready(Ok(self.members()));
        }
        let service = self.clone();
        Reply::later(async move {
            service.linearizable_view().await?;
            Ok(service.members())
        })
    }

    fn members(&self) -> Chunks {
        let members = self.node.members.load();
        let listed = members.iter().map(|member| Member {
            id: member.id,
            name: member.name.clone(),
            peer_urls: member.peer_urls.clone(),
            client_urls: member.client_urls.clone(),
            is_learner: members.is_learner(member.id),
        });
        Chunks::of(&MemberListResponse { header: Some(self.header().at(0)), members: listed.collect() })
    }

    pub(super) fn auth_status(self: &Arc<Self>) -> Reply {
        let header = self.header().at(self.node.view().revision);
        let response = AuthStatusResponse { header: Some(header), enabled: false, auth_revision: 1 };
        Reply::Ready(Ok(Chunks::of(&response)))
    }

    /// Only the server as a whole, the service of no name, has a health.
    pub(super) fn health_check(self: &Arc<Self>, request: &HealthCheckRequest) -> Reply {
        if !request.service.is_empty() {
            return Reply::Ready(Err(Status::new(Code::NotFound, "unknown service")));
        }
        Reply::Ready(Ok(self.health()))
    }

    pub(super) fn health(&self) -> Chunks {
        let serving = self.node.leader().is_some();
        let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        Chunks::of(&HealthCheckResponse { status: status as i32 })
    }
}
