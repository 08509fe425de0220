//! Requests that are kept beyond the look at them: until they are ordered, until a View is new enough, until the watch room has
//! its turn. Their keys and values are slices of the message that they came in, so that nothing is copied; and all of that
//! message stays in memory with the shortest of them. So does what HTTP/2 read along with the message, which is why a short one is
//! copied before anything else.
//!
//! Whoever keeps one counts what it says. So a message may not be much longer than that: of one that is, with fields that nobody
//! knows or what is said twice, keys and values are copied.

use basalt_proto::etcdserverpb::compare::TargetUnion;
use basalt_proto::etcdserverpb::request_op::Request as Op;
use basalt_proto::etcdserverpb::watch_request::RequestUnion;
use basalt_proto::etcdserverpb::{
    AuthRoleGrantPermissionRequest, AuthRoleRevokePermissionRequest, DeleteRangeRequest, PutRequest, RangeRequest,
    TxnRequest, WatchRequest,
};
use bytes::Bytes;
use prost::Message;

use super::service::decode;
use super::status::Status;

/// What a message may be longer than what is known of it. Whoever encodes as etcd's clients do is longer by nothing.
const SURPLUS_BYTES_MAX: usize = 256;

/// A message up to this length is copied out of what was read from its connection: a buffer of up to 16 KiB, which whoever sends
/// every message by itself would else have kept for each call that waits.
const SHORT_BYTES_MAX: usize = 1 << 10;

/// The message, with nothing beside it in memory if it is short.
pub(super) fn by_itself(message: Bytes) -> Bytes {
    if message.len() <= SHORT_BYTES_MAX { Bytes::copy_from_slice(&message) } else { message }
}

/// A request whose keys and values are slices.
pub(super) trait KeptRequest: Message + Default {
    /// Copies them.
    fn copy_slices(&mut self);

    /// Copies them if the request came in a message of so many bytes and says much less. Costs nothing for a short message.
    fn leave_message(&mut self, message_bytes: usize) {
        if message_bytes > SURPLUS_BYTES_MAX && message_bytes - SURPLUS_BYTES_MAX > self.encoded_len() {
            self.copy_slices();
        }
    }
}

/// Decodes a request that is kept.
///
/// # Errors
/// As [`decode`].
pub(super) fn decode_kept<M: KeptRequest>(message: Bytes) -> Result<M, Status> {
    let message_bytes = message.len();
    let mut request: M = decode(message)?;
    request.leave_message(message_bytes);
    Ok(request)
}

fn copy(slices: &mut [&mut Bytes]) {
    // An empty slice keeps its message too.
    slices.iter_mut().for_each(|slice| **slice = Bytes::copy_from_slice(slice));
}

impl KeptRequest for PutRequest {
    fn copy_slices(&mut self) {
        copy(&mut [&mut self.key, &mut self.value]);
    }
}

impl KeptRequest for RangeRequest {
    fn copy_slices(&mut self) {
        copy(&mut [&mut self.key, &mut self.range_end]);
    }
}

impl KeptRequest for DeleteRangeRequest {
    fn copy_slices(&mut self) {
        copy(&mut [&mut self.key, &mut self.range_end]);
    }
}

/// Nested as deep as decoding lets through.
impl KeptRequest for TxnRequest {
    fn copy_slices(&mut self) {
        for compare in &mut self.compare {
            copy(&mut [&mut compare.key, &mut compare.range_end]);
            if let Some(TargetUnion::Value(value)) = &mut compare.target_union {
                copy(&mut [value]);
            }
        }
        for operation in self.success.iter_mut().chain(&mut self.failure) {
            match &mut operation.request {
                Some(Op::RequestRange(range)) => range.copy_slices(),
                Some(Op::RequestPut(put)) => put.copy_slices(),
                Some(Op::RequestDeleteRange(delete)) => delete.copy_slices(),
                Some(Op::RequestTxn(nested)) => nested.copy_slices(),
                None => {}
            }
        }
    }
}

impl KeptRequest for WatchRequest {
    fn copy_slices(&mut self) {
        if let Some(RequestUnion::CreateRequest(create)) = &mut self.request_union {
            copy(&mut [&mut create.key, &mut create.range_end]);
        }
    }
}

impl KeptRequest for AuthRoleGrantPermissionRequest {
    fn copy_slices(&mut self) {
        if let Some(permission) = &mut self.perm {
            copy(&mut [&mut permission.key, &mut permission.range_end]);
        }
    }
}

impl KeptRequest for AuthRoleRevokePermissionRequest {
    fn copy_slices(&mut self) {
        copy(&mut [&mut self.key, &mut self.range_end]);
    }
}

#[cfg(test)]
mod tests {
    use basalt_proto::authpb::Permission;
    use basalt_proto::etcdserverpb::{Compare, RequestOp, WatchCreateRequest};

    use super::*;

    /// A field that nobody knows: its number is 99, its length two bytes.
    fn with_unknown(request: &impl Message, bytes: usize) -> Bytes {
        assert!((128..1 << 14).contains(&bytes), "{bytes}");
        let length = [bytes as u8 | 0x80, (bytes >> 7) as u8];
        [&*request.encode_to_vec(), &[0x9a, 0x06], &length, &vec![7; bytes]].concat().into()
    }

    /// Whether a request keeps its message where that has so much beside.
    fn keeps<M: KeptRequest + PartialEq + std::fmt::Debug>(request: &M, unknown_bytes: usize) -> bool {
        let message = with_unknown(request, unknown_bytes);
        let kept: M = decode_kept(message.clone()).expect("it decodes");
        assert_eq!(&kept, request);
        !message.is_unique()
    }

    fn all() -> TxnRequest {
        let range = RangeRequest { key: "a".into(), range_end: "b".into(), ..RangeRequest::default() };
        let put = PutRequest { key: "c".into(), value: "d".into(), ..PutRequest::default() };
        let delete = DeleteRangeRequest { key: "e".into(), range_end: "f".into(), prev_kv: true };
        let op = |request| RequestOp { request: Some(request) };
        let target_union = Some(TargetUnion::Value("v".into()));
        let compare = Compare { key: "g".into(), range_end: "h".into(), target_union, ..Compare::default() };
        let inner =
            TxnRequest { compare: vec![compare], success: vec![op(Op::RequestRange(range))], failure: Vec::new() };
        TxnRequest {
            compare: Vec::new(),
            success: vec![op(Op::RequestPut(put)), op(Op::RequestTxn(inner))],
            failure: vec![op(Op::RequestDeleteRange(delete)), RequestOp { request: None }],
        }
    }

    #[test]
    fn a_short_message_does_not_keep_what_was_read_with_it() {
        let put = |bytes| PutRequest { key: vec![7; bytes].into(), ..PutRequest::default() };
        for (request, is_kept) in [(put(0), false), (put(1), false), (put(1_000), false), (put(1_100), true)] {
            let message = request.encode_to_vec();
            let read = Bytes::from([&*message, &[0; 16 << 10]].concat());
            let kept: PutRequest = decode_kept(read.slice(..message.len())).expect("it decodes");
            assert_eq!(kept, request);
            assert_eq!(!read.is_unique(), is_kept, "{} bytes", message.len());
        }
    }

    #[test]
    fn a_request_keeps_no_message_that_is_much_longer_than_it_says() {
        fn check<M: KeptRequest + PartialEq + std::fmt::Debug>(request: &M) {
            assert!(!keeps(request, 10_000), "{request:?}");
            let is_short = request.encoded_len() < SHORT_BYTES_MAX / 2;
            assert_eq!(keeps(request, 200), !is_short, "{request:?}: copied for nothing, or kept");
        }
        check(&PutRequest { key: "a".into(), value: vec![7; 2_000].into(), ..PutRequest::default() });
        check(&RangeRequest { key: "a".into(), range_end: "b".into(), ..RangeRequest::default() });
        check(&RangeRequest { key: vec![7; 2_000].into(), ..RangeRequest::default() });
        check(&DeleteRangeRequest { key: "a".into(), range_end: "b".into(), prev_kv: false });
        check(&all());
        let create = WatchCreateRequest { key: "a".into(), range_end: "b".into(), ..WatchCreateRequest::default() };
        check(&WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) });
        let perm = Some(Permission { perm_type: 0, key: "a".into(), range_end: "b".into() });
        check(&AuthRoleGrantPermissionRequest { name: "r".into(), perm });
        check(&AuthRoleRevokePermissionRequest { role: "r".into(), key: "a".into(), range_end: "b".into() });
    }
}
