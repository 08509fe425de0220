//! The service Lock: a lock is held by the first candidate of its name.

use std::sync::Arc;

use basalt_proto::etcdserverpb::{DeleteRangeRequest, DeleteRangeResponse, ResponseHeader};
use basalt_proto::v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse};
use bytes::Bytes;

use super::candidates::{Candidate, Entered, Waiting};
use super::chunks::Chunks;
use super::method::Method;
use super::own_client::{NAME_TIMES, OwnClient, passed_on};
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
        Reply::keeping(NAME_TIMES * request.key.len(), async move {
            let delete = DeleteRangeRequest { key: request.key.into(), ..DeleteRangeRequest::default() };
            let deleted = client.call::<DeleteRangeResponse>(Method::DeleteRange, &delete).await.map_err(passed_on)?;
            Ok(Chunks::of(&UnlockResponse { header: deleted.header }))
        })
    }
}

fn locked(header: ResponseHeader, candidate: &Candidate) -> Chunks {
    Chunks::of(&LockResponse { header: Some(header), key: candidate.key.to_vec() })
}

impl OwnClient {
    async fn lock(&self, request: LockRequest) -> Result<Chunks, Status> {
        let entered = self.enter(&request.name, request.lease, Bytes::new(), true).await?;
        drop(request);
        let Entered { candidate, header, first_revision, .. } = entered;
        if first_revision.is_none_or(|first| first == candidate.revision) {
            return Ok(locked(header, &candidate));
        }
        let mut waiting = Waiting::begin(self, &candidate, true);
        let waited = async {
            self.wait_turn(&candidate, &mut waiting).await?;
            self.still_there(&candidate).await
        };
        match waited.await {
            Ok(still_there) => {
                waiting.over();
                still_there.map(|header| locked(header, &candidate)).ok_or_else(status::session_expired)
            }
            Err(error) => {
                waiting.leave().await;
                Err(error)
            }
        }
    }
}
