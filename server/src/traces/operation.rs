//! The spans that etcd makes below a call: their names and attributes (`server/etcdserver/v3_server.go`, `v3rpc/watch.go`).

use basalt_proto::etcdserverpb::request_op::Request;
use basalt_proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, LeaseRevokeRequest, PutRequest, RangeRequest, RequestOp,
    TxnRequest, WatchCreateRequest,
};

use super::span::{Above, Span, Value};
use crate::apply::query::is_read_only;

/// A request for which etcd makes a span.
pub enum Operated<'a> {
    /// Range, in one message.
    Range(&'a RangeRequest),
    /// Range, in many.
    RangeStream(&'a RangeRequest),
    /// Put.
    Put(&'a PutRequest),
    /// DeleteRange.
    DeleteRange(&'a DeleteRangeRequest),
    /// Txn.
    Txn(&'a TxnRequest),
    /// Compact.
    Compact(&'a CompactionRequest),
    /// LeaseGrant.
    LeaseGrant(&'a LeaseGrantRequest),
    /// LeaseRevoke.
    LeaseRevoke(&'a LeaseRevokeRequest),
}

impl Operated<'_> {
    /// Begins its span below that of the call.
    pub fn begin(&self, call: &Above) -> Span {
        match self {
            Self::Range(request) => {
                let mut span = range(call, "range", request);
                span.attribute("keys_only", Value::Flag(request.keys_only));
                span
            }
            Self::RangeStream(request) => range(call, "range_streaming", request),
            Self::Put(request) => {
                let mut span = call.child("put");
                span.attribute("key", Value::key(&request.key));
                span
            }
            Self::DeleteRange(request) => {
                let mut span = call.child("delete_range");
                span.attribute("range_begin", Value::key(&request.key));
                span.attribute("range_end", Value::key(&request.range_end));
                span
            }
            Self::Txn(request) => txn(call, request),
            Self::Compact(request) => {
                let mut span = call.child("compact");
                span.attribute("is_physical", Value::Flag(request.physical));
                span.attribute("rev", Value::Integer(request.revision));
                span
            }
            Self::LeaseGrant(request) => {
                let mut span = lease(call, "lease_grant", request.id);
                span.attribute("ttl", Value::Integer(request.ttl));
                span
            }
            Self::LeaseRevoke(request) => lease(call, "lease_revoke", request.id),
        }
    }
}

/// One message of a stream that keeps leases.
pub fn renewal(call: &Above, id: i64) -> Span {
    lease(call, "lease_renew", id)
}

/// A watch of a stream.
pub fn watch(call: &Above, request: &WatchCreateRequest) -> Span {
    let mut span = call.child("watch");
    span.attribute("key", Value::key(&request.key));
    span.attribute("range_end", Value::key(&request.range_end));
    span.attribute("start_rev", Value::Integer(request.start_revision));
    span.attribute("progress_notify", Value::Flag(request.progress_notify));
    span.attribute("prev_kv", Value::Flag(request.prev_kv));
    span.attribute("fragment", Value::Flag(request.fragment));
    span
}

fn lease(call: &Above, name: &'static str, id: i64) -> Span {
    let mut span = call.child(name);
    span.attribute("id", Value::Integer(id));
    span
}

fn range(call: &Above, name: &'static str, request: &RangeRequest) -> Span {
    let mut span = call.child(name);
    span.attribute("range_begin", Value::key(&request.key));
    span.attribute("range_end", Value::key(&request.range_end));
    span.attribute("rev", Value::Integer(request.revision));
    span.attribute("limit", Value::Integer(request.limit));
    span.attribute("count_only", Value::Flag(request.count_only));
    span
}

fn txn(call: &Above, request: &TxnRequest) -> Span {
    let count = |count: usize| Value::Integer(i64::try_from(count).unwrap_or(i64::MAX));
    let compared = request.compare.iter().map(|compare| &compare.key).find(|key| !key.is_empty());
    let success = &request.success;
    let put_lease = success.iter().find_map(|op| match &op.request {
        Some(Request::RequestPut(put)) => Some(put.lease),
        _ => None,
    });
    let mut span = call.child("txn");
    span.attribute("compare_first_key", Value::key(compared.map_or(&[], |key| key)));
    span.attribute("success_first_key", Value::key(success.iter().map(key).find(|key| !key.is_empty()).unwrap_or(&[])));
    span.attribute("success_first_type", Value::Text(success.iter().find_map(kind).unwrap_or("").into()));
    span.attribute("success_first_lease", Value::Integer(put_lease.unwrap_or(-1)));
    span.attribute("compare_len", count(request.compare.len()));
    span.attribute("success_len", count(success.len()));
    span.attribute("failure_len", count(request.failure.len()));
    span.attribute("read_only", Value::Flag(is_read_only(request)));
    span
}

fn key(op: &RequestOp) -> &[u8] {
    match &op.request {
        Some(Request::RequestPut(put)) => &put.key,
        Some(Request::RequestRange(range)) => &range.key,
        Some(Request::RequestDeleteRange(delete)) => &delete.key,
        Some(Request::RequestTxn(_)) | None => &[],
    }
}

fn kind(op: &RequestOp) -> Option<&'static str> {
    Some(match op.request.as_ref()? {
        Request::RequestPut(_) => "put",
        Request::RequestRange(_) => "range",
        Request::RequestDeleteRange(_) => "delete_range",
        Request::RequestTxn(_) => "txn",
    })
}
