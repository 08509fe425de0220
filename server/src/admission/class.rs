//! Which queue a request waits in, and what it weighs there.

use basalt_proto::etcdserverpb::TxnRequest;
use basalt_proto::etcdserverpb::request_op::Request as Op;
use basalt_proto::log::Request;
use basalt_proto::log::request::Kind;
use basalt_storage::mvcc::shard_map::{ShardId, ShardMap};
use prost::Message;

use crate::apply::query::{has_put, parts_bytes};

/// A queue of its own: one for each shard, and one for what belongs to none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class(u32);

impl Class {
    /// Leases, alarms, compaction, and transactions without a key.
    pub const CONTROL: Class = Class(0);

    /// The class of a shard.
    pub fn of_shard(shard: ShardId) -> Self {
        Class(shard.0 + 1)
    }

    /// Where the class stands in a list of all: the control class, then the shards.
    pub fn position(self) -> usize {
        self.0 as usize
    }
}

/// A request that waits to be ordered.
#[derive(Debug)]
pub struct Proposal {
    /// Checked, with an id of its own.
    pub request: Request,
    /// Where it waits: by its first key, also if it touches several shards.
    pub class: Class,
    /// Its encoded length.
    pub length: usize,
    /// What it adds to a log entry.
    pub bytes: usize,
    /// What it takes in memory while it waits, about.
    pub held_bytes: usize,
    /// Whether the store may be larger after it.
    pub grows: bool,
}

impl Proposal {
    /// Classes and weighs a request.
    pub fn new(request: Request, shards: &ShardMap) -> Self {
        let (class, grows) = match &request.kind {
            Some(Kind::Put(put)) => (Class::of_shard(shards.shard_of(&put.key)), true),
            Some(Kind::DeleteRange(delete)) => (Class::of_shard(shards.shard_of(&delete.key)), false),
            Some(Kind::Txn(txn)) => {
                let shard = first_key(txn).map(|key| Class::of_shard(shards.shard_of(key)));
                (shard.unwrap_or(Class::CONTROL), has_put(txn))
            }
            Some(Kind::LeaseGrant(_)) => (Class::CONTROL, true),
            _ => (Class::CONTROL, false),
        };
        let length = request.encoded_len();
        // In the entry the request stands behind a tag of one byte and its length.
        let bytes = 1 + prost::length_delimiter_len(length) + length;
        let parts = if let Some(Kind::Txn(txn)) = &request.kind { parts_bytes(txn) } else { 0 };
        Self { request, class, length, bytes, held_bytes: bytes + parts, grows }
    }
}

/// The first key that a transaction may touch: of its operations before its compares.
fn first_key(txn: &TxnRequest) -> Option<&[u8]> {
    let operations = txn.success.iter().chain(&txn.failure);
    let mut keys = operations.filter_map(|op| match op.request.as_ref()? {
        Op::RequestRange(range) => Some(&range.key[..]),
        Op::RequestPut(put) => Some(&put.key[..]),
        Op::RequestDeleteRange(delete) => Some(&delete.key[..]),
        Op::RequestTxn(nested) => first_key(nested),
    });
    keys.next().or_else(|| txn.compare.first().map(|compare| &compare.key[..]))
}
