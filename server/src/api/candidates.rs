//! Who waits for a lock or a lead: a key for each under one prefix, attached to its lease, served in the order of their creation
//! (etcd `client/v3/concurrency`). Each waits for the one before it alone, so that an end wakes one.

use basalt_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use basalt_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use basalt_proto::etcdserverpb::request_op::Request;
use basalt_proto::etcdserverpb::response_op::Response;
use basalt_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseGrantResponse, PutRequest, RangeRequest, RangeResponse,
    RequestOp, ResponseHeader, ResponseOp, TxnRequest, TxnResponse,
};
use basalt_proto::log::request::Kind;
use basalt_proto::mvccpb::KeyValue;
use basalt_proto::mvccpb::event::EventType;
use bytes::Bytes;

use super::method::Method;
use super::own_client::OwnClient;
use super::status::Status;
use crate::apply::auth::check::cluster_principal;
use crate::node::handle::Completed;

/// Seconds of a lease that is granted to who brings none (etcd `defaultSessionTTL`).
const LEASE_SECONDS: i64 = 60;

/// Somebody in the queue of a name. Its key is all that it keeps while it waits.
pub(super) struct Candidate {
    pub key: Bytes,
    name_bytes: usize,
    /// Its create revision: its place in the queue.
    pub revision: i64,
    pub lease: i64,
    /// Whether the lease was granted for this call: nobody comes back with it if that fails.
    pub lease_is_new: bool,
}

/// How it was to enter a queue.
pub(super) struct Entered {
    pub candidate: Candidate,
    /// Of the transaction that made or found the key.
    pub header: ResponseHeader,
    /// What the key held, if it was there before.
    pub found: Option<KeyValue>,
    /// The create revision of who is first, if that was asked for.
    pub first_revision: Option<i64>,
}

impl Candidate {
    /// Of the election, as it was asked for.
    pub fn name(&self) -> &[u8] {
        &self.key[..self.name_bytes]
    }

    /// With which the keys of all others begin too.
    fn prefix(&self) -> &[u8] {
        &self.key[..=self.name_bytes]
    }
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

/// The first key by creation of all that begin with a prefix (etcd `WithFirstCreate`), without its value.
fn first_of(prefix: &[u8]) -> RangeRequest {
    RangeRequest { keys_only: true, ..edge_of(prefix, SortOrder::Ascend, 0) }
}

/// The first or last by creation, of those created at `revision_max` or before; 0 for all.
fn edge_of(prefix: &[u8], order: SortOrder, revision_max: i64) -> RangeRequest {
    let (key, range_end) = under(prefix);
    RangeRequest {
        key,
        range_end,
        limit: 1,
        sort_order: order as i32,
        sort_target: SortTarget::Create as i32,
        max_create_revision: revision_max,
        ..RangeRequest::default()
    }
}

/// The first value that an operation read.
fn first_read(operation: ResponseOp) -> Option<KeyValue> {
    match operation.response {
        Some(Response::ResponseRange(range)) => range.kvs.into_iter().next(),
        _ => None,
    }
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

    /// Enters the queue of a name, unless this lease is in it, in one transaction; `looks_first`: it also looks who is first.
    ///
    /// # Errors
    /// The store's: who may not read what it looks at enters no queue.
    pub async fn enter(&self, name: &[u8], lease: i64, value: Bytes, looks_first: bool) -> Result<Entered, Status> {
        let lease_is_new = lease == 0;
        let lease = self.lease_or_new(lease).await?;
        let key: Bytes = [name, b"/", hexadecimal(lease).as_bytes()].concat().into();
        let put = PutRequest { key: key.clone(), value, lease, ..PutRequest::default() };
        let read = RangeRequest { key: key.clone(), ..RangeRequest::default() };
        let mut candidate = Candidate { key, name_bytes: name.len(), revision: 0, lease, lease_is_new };
        let look = looks_first.then(|| operation(Request::RequestRange(first_of(candidate.prefix()))));
        let with_look = |request| [operation(request)].into_iter().chain(look.clone()).collect();
        let request = TxnRequest {
            compare: vec![created_at(&candidate.key, 0)],
            success: with_look(Request::RequestPut(put)),
            failure: with_look(Request::RequestRange(read)),
        };
        let answer: TxnResponse = self.call(Method::Txn, &request).await?;
        let header = answer.header.unwrap_or_default();
        let mut operations = answer.responses.into_iter();
        let found = operations.next().and_then(first_read);
        let first_revision = operations.next().and_then(first_read).map(|first| first.create_revision);
        candidate.revision = found.as_ref().map_or(header.revision, |found| found.create_revision);
        Ok(Entered { candidate, header, found, first_revision })
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
        self.edge(&edge_of(prefix, SortOrder::Ascend, 0)).await
    }

    async fn edge(&self, request: &RangeRequest) -> Result<(ResponseHeader, Option<KeyValue>), Status> {
        let answer: RangeResponse = self.call(Method::Range, request).await?;
        Ok((answer.header.unwrap_or_default(), answer.kvs.into_iter().next()))
    }

    /// Waits until nobody is before a candidate; tells whether anybody was. From then on the candidate is taken out of its
    /// queue where its call ends.
    ///
    /// # Errors
    /// The store's, and of going down.
    pub async fn wait_turn(&self, candidate: &Candidate, waiting: &mut Waiting) -> Result<bool, Status> {
        let mut waited = false;
        loop {
            let before = edge_of(candidate.prefix(), SortOrder::Descend, candidate.revision - 1);
            let (header, before) = self.edge(&RangeRequest { keys_only: true, ..before }).await?;
            let Some(before) = before else { return Ok(waited) };
            waited = true;
            waiting.arm();
            let mut watch = self.watch(&before.key, b"", header.revision + 1).await?;
            while let Some((_, event)) = watch.next().await? {
                if event.r#type == EventType::Delete as i32 {
                    break;
                }
            }
        }
    }

    /// The header of a look that finds a candidate's key where it was; `None` if its lease ended, and its place with it.
    ///
    /// # Errors
    /// The store's.
    pub async fn still_there(&self, candidate: &Candidate) -> Result<Option<ResponseHeader>, Status> {
        let own = RangeRequest { key: candidate.key.clone(), keys_only: true, ..RangeRequest::default() };
        let (header, found) = self.edge(&own).await?;
        Ok(found.filter(|found| found.create_revision == candidate.revision).map(|_| header))
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
            let mut watch = self.watch(&key, &range_end, header.revision + 1).await?;
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

/// Takes a candidate out of its queue if its call ends before its turn, so that it keeps nobody waiting until its lease ends.
pub(super) struct Waiting {
    client: OwnClient,
    key: Bytes,
    revision: i64,
    /// Whether its client can come back to its place.
    client_comes_back: bool,
    armed: bool,
}

impl Waiting {
    /// Armed only if somebody waits on account of it: a key that was there before may be that of who has its turn.
    pub fn begin(client: &OwnClient, candidate: &Candidate, armed: bool) -> Self {
        let (client, key, revision) = (client.clone(), candidate.key.clone(), candidate.revision);
        Self { client, key, revision, client_comes_back: !candidate.lease_is_new, armed }
    }

    fn arm(&mut self) {
        self.armed = true;
    }

    /// The candidate stays where it is.
    pub fn over(mut self) {
        self.armed = false;
    }

    /// The wait failed: returns when the candidate is out of its queue, or after the time of a request.
    pub async fn leave(mut self) {
        if let Some(left) = self.take_out() {
            // If it fails the lease ends it.
            drop(left.await);
        }
    }

    fn take_out(&mut self) -> Option<impl Future<Output = Result<Completed, Status>> + use<>> {
        let service = &self.client.service;
        // A server that goes down leaves it there: its client comes back with its lease, elsewhere, and has kept its place.
        let keeps_place = self.client_comes_back && *service.stopping.borrow();
        if !std::mem::take(&mut self.armed) || keeps_place {
            return None;
        }
        // As the cluster: it had the right to write that key, and may have lost it while it waited.
        service.order(Kind::Txn(leaving(&self.key, self.revision)), Some(cluster_principal())).ok()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let Some(left) = self.take_out() else { return };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { drop(left.await) });
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
