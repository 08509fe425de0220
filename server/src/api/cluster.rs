//! The service Cluster, as far as one member can, and what else is small: health and authentication's status.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use basalt_proto::etcdserverpb::{AuthStatusResponse, Member, MemberListResponse};
use basalt_proto::health::health_check_response::ServingStatus;
use basalt_proto::health::{HealthCheckRequest, HealthCheckResponse};

use super::chunks::Chunks;
use super::service::{Reply, Service};
use super::status::{Code, Status};

impl Service {
    /// The header of a cluster call shows no revision (etcd-contract 44).
    pub(super) fn member_list(self: &Arc<Self>) -> Reply {
        let member = Member {
            id: self.node.identity.member_id,
            name: self.member.name.clone(),
            peer_urls: self.member.peer_urls.clone(),
            client_urls: self.member.client_urls.clone(),
            is_learner: false,
        };
        let header = self.header().at(0);
        Reply::Ready(Ok(Chunks::of(&MemberListResponse { header: Some(header), members: vec![member] })))
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
        let serving = self.node.gauges.leads.load(Ordering::Relaxed);
        let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        Chunks::of(&HealthCheckResponse { status: status as i32 })
    }
}
