//! Who belongs to the cluster, and its health.

use std::sync::Arc;

use basalt_proto::etcdserverpb::{MemberListRequest, MemberListResponse};
use basalt_proto::health::health_check_response::ServingStatus;
use basalt_proto::health::{HealthCheckRequest, HealthCheckResponse};

use super::chunks::Chunks;
use super::member_changes::wire_members;
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
        let members = wire_members(&self.node.members.load());
        Chunks::of(&MemberListResponse { header: Some(self.header().at(0)), members })
    }

    /// Only the server as a whole, the service of no name, has a health. Who is asked at all serves, as in etcd also without a leader;
    /// what can be done meanwhile, `/health` and `/readyz` say.
    pub(super) fn health_check(request: &HealthCheckRequest) -> Reply {
        Reply::Ready(match health_of(request) {
            ServingStatus::ServiceUnknown => Err(Status::new(Code::NotFound, "unknown service")),
            status => Ok(health_response(status)),
        })
    }

    /// The first answer of a watch, and the last one: nothing of it changes as long as this process serves.
    pub(super) fn watched_health(request: &HealthCheckRequest) -> Chunks {
        health_response(health_of(request))
    }
}

fn health_of(request: &HealthCheckRequest) -> ServingStatus {
    if request.service.is_empty() { ServingStatus::Serving } else { ServingStatus::ServiceUnknown }
}

fn health_response(status: ServingStatus) -> Chunks {
    Chunks::of(&HealthCheckResponse { status: status as i32 })
}
