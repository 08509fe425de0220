//! The service Lock: a lock is held by the first candidate of its name.

use std::sync::Arc;

use basalt_proto::etcdserverpb::{DeleteRangeRequest, DeleteRangeResponse, RangeRequest, RangeResponse};
use basalt_proto::v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse};
use bytes::Bytes;

use super::candidates::{Waiting, prefix_of};
use super::chunks::Chunks;
use super::method::Method;
use super::own_client::{OwnClient, passed_on};
use super::service::{Reply, Service};
use super::status::{self, Status};
use crate::auth::Caller;

impl Service {
    /// Answers when the caller has the lock.
    pub(super) fn lock(self: &Arc<Self>, request: LockRequest, caller: Caller) -> Reply {
        let client = OwnClient { service: self.clone(), caller };
        Reply::later(async move { client.lock(request).await.map_err(passed_on) })
    }

    pub(super) fn unlock(self: &Arc<Self>, request: UnlockRequest, caller: Caller) -> Reply {
        let client = OwnClient { service: self.clone(), caller };
        Reply::later(async move {
            let delete = DeleteRangeRequest { key: request.key, ..DeleteRangeRequest::default() };
            let deleted = client.call::<DeleteRangeResponse>(Method::DeleteRange, &delete).await.map_err(passed_on)?;
            Ok(Chunks::of(&UnlockResponse { header: deleted.header }))
        })
    }
}

impl OwnClient {
    async fn lock(&self, request: LockRequest) -> Result<Chunks, Status> {
        let prefix = prefix_of(&request.name);
        let lease = self.lease_or_new(request.lease).await?;
        let candidate = self.enter(&prefix, lease, Bytes::new()).await?;
        let waiting = Waiting::begin(self, &candidate);
        let mut header = Some(candidate.header);
        if self.wait_turn(&prefix, candidate.revision).await? {
            // Its lease may have ended meanwhile, and its place with it.
            let own = RangeRequest { key: candidate.key.clone(), ..RangeRequest::default() };
            let found: RangeResponse = self.call(Method::Range, &own).await?;
            if found.kvs.first().is_none_or(|found| found.create_revision != candidate.revision) {
                return Err(status::session_expired());
            }
            header = found.header;
        }
        waiting.succeeded();
        Ok(Chunks::of(&LockResponse { header, key: candidate.key }))
    }
}
