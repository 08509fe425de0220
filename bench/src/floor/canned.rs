//! Small answers, encoded once.

use basalt_proto::etcdserverpb::{
    LeaseGrantResponse, LeaseKeepAliveResponse, PutResponse, RangeResponse, ResponseHeader, StatusResponse, TxnResponse,
};
use basalt_proto::mvccpb::KeyValue;
use bytes::Bytes;
use prost::Message;

/// Every lease lasts an hour, on paper.
const LEASE_TTL_SECONDS: i64 = 3600;
/// The value of every key that is read singly.
const OBJECT_VALUE_BYTES: usize = 1024;

/// The header of all answers.
pub const HEADER: ResponseHeader = ResponseHeader { cluster_id: 1, member_id: 1, revision: 1, raft_term: 1 };

/// The answers of calls that need no thought.
pub struct Canned {
    /// A put that was done.
    pub put: Bytes,
    /// A transaction that succeeded.
    pub txn: Bytes,
    /// One key.
    pub object: Bytes,
    /// A member that has a leader, itself.
    pub status: Bytes,
}

impl Canned {
    /// Encodes them.
    pub fn new() -> Self {
        let header = Some(HEADER);
        let object = KeyValue { value: vec![0x5a; OBJECT_VALUE_BYTES].into(), mod_revision: 1, ..Default::default() };
        let object = RangeResponse { header, kvs: vec![object], more: false, count: 1 };
        Self {
            put: encoded(&PutResponse { header, ..Default::default() }),
            txn: encoded(&TxnResponse { header, succeeded: true, ..Default::default() }),
            object: encoded(&object),
            status: encoded(&StatusResponse { header, leader: 1, ..Default::default() }),
        }
    }
}

/// A lease that was granted.
pub fn granted(id: i64) -> Bytes {
    encoded(&LeaseGrantResponse { header: Some(HEADER), id, ttl: LEASE_TTL_SECONDS, ..Default::default() })
}

/// A lease that lives on.
pub fn kept_alive(id: i64) -> Bytes {
    encoded(&LeaseKeepAliveResponse { header: Some(HEADER), id, ttl: LEASE_TTL_SECONDS })
}

/// A message as bytes.
pub fn encoded(message: &impl Message) -> Bytes {
    message.encode_to_vec().into()
}
