//! This node as a client of itself, on behalf of a caller: what services over the store do is judged as if the caller had done
//! it.

use std::collections::VecDeque;
use std::sync::Arc;

use basalt_proto::etcdserverpb::{ResponseHeader, WatchCreateRequest, WatchResponse};
use basalt_proto::mvccpb::Event;
use bytes::Bytes;
use prost::Message;

use super::chunks::Chunks;
use super::method::Method;
use super::service::{Service, decode};
use super::status::{self, Code, Status};
use super::stream::Sent;
use super::watch_permission::may_watch;
use crate::auth::Caller;

/// How often a name that locks and elections are asked by is kept: it stands in keys, their prefix and its end, and in a watch of
/// these.
pub(super) const NAME_TIMES: usize = 6;

/// A client. Cheap to clone.
#[derive(Clone)]
pub(super) struct OwnClient {
    pub service: Arc<Service>,
    pub caller: Caller,
}

impl OwnClient {
    /// Calls a unary method.
    ///
    /// # Errors
    /// The method's.
    pub async fn call<R: Message + Default>(&self, method: Method, request: &impl Message) -> Result<R, Status> {
        let answer = self.service.call(method, request.encode_to_vec().into(), self.caller.clone());
        decode(whole(answer.settled().await?))
    }

    /// Watches a range from a revision on.
    ///
    /// # Errors
    /// Of a caller who may not.
    pub async fn watch(&self, key: &[u8], range_end: &[u8], start_revision: i64) -> Result<OwnWatch, Status> {
        let key = Bytes::copy_from_slice(key);
        let range_end = Bytes::copy_from_slice(range_end);
        let request = WatchCreateRequest { key, range_end, start_revision, ..WatchCreateRequest::default() };
        let asked = may_watch(&self.service.node.auth, &self.caller, &request).map_err(unknown_of)?;
        let sent = Sent::open(&self.service);
        sent.create(request, asked).await;
        Ok(OwnWatch { service: self.service.clone(), sent, events: VecDeque::new() })
    }
}

/// The events of a watch.
pub(super) struct OwnWatch {
    service: Arc<Service>,
    sent: Sent,
    events: VecDeque<(ResponseHeader, Event)>,
}

impl OwnWatch {
    /// The next event, with the header that it came under; `None` when what happened since its start was compacted: look at
    /// the store again.
    ///
    /// # Errors
    /// Of a watch that ended, and of going down.
    pub async fn next(&mut self) -> Result<Option<(ResponseHeader, Event)>, Status> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            let messages = tokio::select! {
                biased;
                () = self.service.stopped() => return Err(status::stopped()),
                messages = std::future::poll_fn(|context| self.sent.poll_next(context)) => messages,
            };
            for message in messages.ok_or_else(status::stopped)? {
                let response: WatchResponse = decode(whole(message))?;
                if response.canceled && response.compact_revision > 0 {
                    return Ok(None);
                }
                if response.canceled {
                    return Err(unknown_of(&response.cancel_reason));
                }
                let header = response.header.unwrap_or_default();
                self.events.extend(response.events.into_iter().map(|event| (header, event)));
            }
        }
    }
}

fn whole(message: Chunks) -> Bytes {
    message.into_pieces().concat().into()
}

fn unknown_of(text: &str) -> Status {
    Status::new(Code::Unknown, text)
}

/// An error of a call inside as etcd's services over the store pass it on: its text, without its code. What says that the node
/// cannot do it now keeps its code, so that clients come again.
pub(super) fn passed_on(error: Status) -> Status {
    if error.code == Code::Unavailable { error } else { Status::new(Code::Unknown, error.message) }
}
