//! Who waits for a lock or a lead: a key for each under one prefix, attached to its lease, served in the order of their creation
//! (etcd `client/v3/concurrency`). Each waits for the one before it alone, so that an end wakes one.

use basalt_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use basalt_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use basalt_proto::etcdserverpb::request_op::Request;
use basalt_proto::etcdserverpb::response_op::Response;
use basalt_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseGrantResponse, PutRequest, RangeRequest, RangeResponse,
    RequestOp, ResponseHeader, TxnRequest, TxnResponse,
};
use basalt_proto::log::request::Kind;
use basalt_proto::mvccpb::KeyValue;
use basalt_proto::mvccpb::event::EventType;
use bytes::Bytes;

use super::method::Method;
use super::own_client::OwnClient;
use super::status::Status;
use crate::apply::auth::check::cluster_principal;

/// Seconds of a lease that is granted to who brings none (etcd `defaultSessionTTL`).
const LEASE_SECONDS: i64 = 60;

/// A candidate's key.
pub(super) struct Candidate {
    pub key: Bytes,
    /// Its create revision: its place in the queue.
    pub revision: i64,
    /// Of the transaction that made or found it.
    pub header: ResponseHeader,
    /// What it held, if it was there before.
    pub found: Option<KeyValue>,
}

/// The keys of all candidates for a name begin so.
pub(super) fn prefix_of(name: &[u8]) -> Bytes {
    [name, b"/"].concat().into()
}

/// All keys that begin with a prefix of [`prefix_of`].
fn under(prefix: &[u8]) -> (Bytes, Bytes) {
    let end = [&prefix[..prefix.len() - 1], b"0"].concat();
    (Bytes::copy_from_slice(prefix), end.into())
}

/// As Go prints a number in hexadecimal.
fn hexadecimal(id: i64) -> String {
    let sign = if id < 0 { "-" } else { "" };
    format!("{sign}{:x}", id.unsigned_abs())
}

fn operation(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

/// That a key has this create revision; 0: that it is not there.
fn created_at(key: &Bytes, revision: i64) -> Compare {
    Compare {
        result: CompareResult::Equal as i32,
        target: CompareTarget::Create as i32,
        key: key.clone(),
        range_end: Bytes::new(),
        target_union: Some(TargetUnion::CreateRevision(revision)),
    }
}

/// The first value that a transaction read.
fn first_read(answer: TxnResponse) -> Option<KeyValue> {
    let read = answer.responses.into_iter().find_map(|response| match response.response {
        Some(Response::ResponseRange(range)) => Some(range.kvs),
        _ => None,
    });
    read?.into_iter().next()
}

/// Does something with a key as long as it is the one that was created then.
fn as_long_as(key: &Bytes, revision: i64, then: Request) -> TxnRequest {
    TxnRequest { compare: vec![created_at(key, revision)], success: vec![operation(then)], failure: Vec::new() }
}

fn leaving(key: &Bytes, revision: i64) -> TxnRequest {
    let delete = DeleteRangeRequest { key: key.clone(), ..DeleteRangeRequest::default() };
    as_long_as(key, revision, Request::RequestDeleteRange(delete))
}

impl OwnClient {
    /// A client's lease, or a new one where it brings none.
    ///
    /// # Errors
    /// Of granting it.
    pub async fn lease_or_new(&self, lease: i64) -> Result<i64, Status> {
        if lease != 0 {
            return Ok(lease);
        }
        let request = LeaseGrantRequest { ttl: LEASE_SECONDS, id: 0 };
        Ok(self.call::<LeaseGrantResponse>(Method::LeaseGrant, &request).await?.id)
    }

    /// Enters the queue of a name, unless this lease is in it.
    ///
    /// # Errors
    /// The store's.
    pub async fn enter(&self, prefix: &[u8], lease: i64, value: Bytes) -> Result<Candidate, Status> {
        let key: Bytes = [prefix, hexadecimal(lease).as_bytes()].concat().into();
        let put = PutRequest { key: key.clone(), value, lease, ..PutRequest::default() };
        let read = RangeRequest { key: key.clone(), ..RangeRequest::default() };
        let request = TxnRequest {
            compare: vec![created_at(&key, 0)],
            success: vec![operation(Request::RequestPut(put))],
            failure: vec![operation(Request::RequestRange(read))],
        };
        let answer: TxnResponse = self.call(Method::Txn, &request).await?;
        let header = answer.header.unwrap_or_default();
        let found = first_read(answer);
        let revision = found.as_ref().map_or(header.revision, |found| found.create_revision);
        Ok(Candidate { key, revision, header, found })
    }

    /// Does something with a candidate's key as long as it is the one that was created then; gives the header, and whether.
    ///
    /// # Errors
    /// The store's.
    pub async fn if_still(
        &self,
        key: &Bytes,
        revision: i64,
        then: Request,
    ) -> Result<(Option<ResponseHeader>, bool), Status> {
        let answer: TxnResponse = self.call(Method::Txn, &as_long_as(key, revision, then)).await?;
        Ok((answer.header, answer.succeeded))
    }

    /// Takes a candidate out of its queue.
    ///
    /// # Errors
    /// The store's.
    pub async fn leave(&self, key: &Bytes, revision: i64) -> Result<(Option<ResponseHeader>, bool), Status> {
        let answer: TxnResponse = self.call(Method::Txn, &leaving(key, revision)).await?;
        Ok((answer.header, answer.succeeded))
    }

    /// The candidate that was there first.
    ///
    /// # Errors
    /// The store's.
    pub async fn first(&self, prefix: &[u8]) -> Result<(ResponseHeader, Option<KeyValue>), Status> {
        self.edge(prefix, SortOrder::Ascend, 0).await
    }

    /// The first or last by creation, of those created at `revision_max` or before; 0 for all.
    async fn edge(
        &self,
        prefix: &[u8],
        order: SortOrder,
        revision_max: i64,
    ) -> Result<(ResponseHeader, Option<KeyValue>), Status> {
        let (key, range_end) = under(prefix);
        let request = RangeRequest {
            key,
            range_end,
            limit: 1,
            sort_order: order as i32,
            sort_target: SortTarget::Create as i32,
            max_create_revision: revision_max,
            ..RangeRequest::default()
        };
        let answer: RangeResponse = self.call(Method::Range, &request).await?;
        Ok((answer.header.unwrap_or_default(), answer.kvs.into_iter().next()))
    }

    /// Waits until nobody is before a candidate; tells whether anybody was.
    ///
    /// # Errors
    /// The store's, and of going down.
    pub async fn wait_turn(&self, prefix: &[u8], revision: i64) -> Result<bool, Status> {
        let mut waited = false;
        loop {
            let (header, before) = self.edge(prefix, SortOrder::Descend, revision - 1).await?;
            let Some(before) = before else { return Ok(waited) };
            waited = true;
            let mut watch = self.watch(&before.key, b"", header.revision + 1)?;
            while let Some((_, event)) = watch.next().await? {
                if event.r#type == EventType::Delete as i32 {
                    break;
                }
            }
        }
    }

    /// The first candidate of a name, once there is one, with the header that shows it.
    ///
    /// # Errors
    /// The store's, and of going down.
    pub async fn wait_first(&self, prefix: &[u8]) -> Result<(ResponseHeader, KeyValue), Status> {
        loop {
            let (header, first) = self.first(prefix).await?;
            if let Some(first) = first {
                return Ok((header, first));
            }
            let (key, range_end) = under(prefix);
            let mut watch = self.watch(&key, &range_end, header.revision + 1)?;
            while let Some((header, event)) = watch.next().await? {
                let is_put = event.r#type == EventType::Put as i32;
                if let Some(kv) = event.kv.filter(|_| is_put) {
                    // What comes after it is told from here on.
                    return Ok((ResponseHeader { revision: kv.mod_revision, ..header }, kv));
                }
            }
        }
    }
}

/// Takes a candidate out of its queue if its caller gives up, so that it keeps nobody waiting until its lease ends.
pub(super) struct Waiting {
    left: Option<(OwnClient, Bytes, i64)>,
}

impl Waiting {
    /// From now on.
    pub fn begin(client: &OwnClient, candidate: &Candidate) -> Self {
        Self { left: Some((client.clone(), candidate.key.clone(), candidate.revision)) }
    }

    /// It got what it waited for.
    pub fn succeeded(mut self) {
        self.left = None;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let Some((client, key, revision)) = self.left.take() else { return };
        // A server that goes down leaves it there: its client comes back with its lease, elsewhere, and has kept its place.
        if *client.service.stopping.borrow() {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            // If it fails the lease ends it.
            // As the cluster: it had the right to write that key, and may have lost it while it waited.
            let request = leaving(&key, revision);
            runtime.spawn(async move {
                if let Ok(left) = client.service.order(Kind::Txn(request), Some(cluster_principal())) {
                    drop(left.await);
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_etcds_clients() {
        assert_eq!(hexadecimal(0x18ac_a226), "18aca226");
        assert_eq!(hexadecimal(-31), "-1f");
        assert_eq!(hexadecimal(i64::MIN), "-8000000000000000");
        assert_eq!(under(&prefix_of(b"l")), (Bytes::from_static(b"l/"), Bytes::from_static(b"l0")));
        assert_eq!(under(&prefix_of(b"")), (Bytes::from_static(b"/"), Bytes::from_static(b"0")));
    }
}
