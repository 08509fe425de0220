//! Answers in wire form. Field numbers are those of etcd's `rpc.proto`; stored values are handed through.

use basalt_proto::etcdserverpb::{
    AlarmResponse, CompactionResponse, DowngradeResponse, LeaseGrantResponse, LeaseRevokeResponse, ResponseHeader,
};
use basalt_storage::mvcc::key_value::MalformedKeyValue;
use basalt_storage::mvcc::range::RangePlan;
use bytes::Bytes;

use super::chunks::Chunks;
use crate::apply::answer::{Answer, DeleteAnswer, OpAnswer, PutAnswer, TxnAnswer};

/// Which parts of the header stand beside the revision.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeaderBase {
    /// The cluster.
    pub cluster_id: u64,
    /// Who answers.
    pub member_id: u64,
    /// Its term.
    pub raft_term: u64,
}

impl HeaderBase {
    /// A header that shows `revision`.
    pub fn at(self, revision: i64) -> ResponseHeader {
        ResponseHeader { cluster_id: self.cluster_id, member_id: self.member_id, revision, raft_term: self.raft_term }
    }
}

/// The header of an operation inside a transaction: only a revision (etcd-contract 10).
fn inner_header(revision: i64) -> ResponseHeader {
    HeaderBase::default().at(revision)
}

/// Encodes an answer; `values` are those of [`Answer::hits`], in that order.
///
/// # Errors
/// [`MalformedKeyValue`] when a stored value that must be looked into is none.
pub fn answer(answer: &Answer, base: HeaderBase, values: Vec<Bytes>) -> Result<Chunks, MalformedKeyValue> {
    let header = base.at(answer.revision());
    let mut values = values.into_iter();
    Ok(match answer {
        Answer::Put(answer) => put(answer, &header, &mut values),
        Answer::DeleteRange(answer) => delete_range(answer, &header, &mut values),
        Answer::Txn(answer) => txn(answer, &header, &mut values)?,
        Answer::Compact { .. } => Chunks::of(&CompactionResponse { header: Some(header) }),
        Answer::LeaseGrant { id, ttl, .. } => {
            Chunks::of(&LeaseGrantResponse { header: Some(header), id: *id, ttl: *ttl, error: String::new() })
        }
        // Changes of members are answered where they are asked for.
        Answer::Members { .. } | Answer::Done { .. } => Chunks::of(&LeaseRevokeResponse { header: Some(header) }),
        Answer::Downgrade { cluster_version, .. } => {
            Chunks::of(&DowngradeResponse { header: Some(header), version: cluster_version.minor_text() })
        }
        Answer::Alarm { alarms, .. } => {
            let alarms = alarms.iter().map(|alarm| alarm.to_wire()).collect();
            Chunks::of(&AlarmResponse { header: Some(header), alarms })
        }
    })
}

/// Encodes a RangeResponse: header 1, kvs 2, more 3, count 4.
///
/// # Errors
/// [`MalformedKeyValue`] when a stored value that must be looked into is none.
pub fn range(plan: &RangePlan, header: &ResponseHeader, values: Vec<Bytes>) -> Result<Chunks, MalformedKeyValue> {
    let result = plan.assemble(values)?;
    let mut chunks = Chunks::default();
    chunks.nested(1, Chunks::of(header));
    for key_value in &result.key_values {
        chunks.shared(2, key_value);
    }
    chunks.number(3, u64::from(result.more));
    chunks.number(4, plan.count.cast_unsigned());
    Ok(chunks)
}

/// PutResponse: header 1, prev_kv 2.
fn put(answer: &PutAnswer, header: &ResponseHeader, values: &mut impl Iterator<Item = Bytes>) -> Chunks {
    let mut chunks = Chunks::default();
    chunks.nested(1, Chunks::of(header));
    for value in values.take(answer.previous.iter().len()) {
        chunks.shared(2, &value);
    }
    chunks
}

/// DeleteRangeResponse: header 1, deleted 2, prev_kvs 3.
fn delete_range(answer: &DeleteAnswer, header: &ResponseHeader, values: &mut impl Iterator<Item = Bytes>) -> Chunks {
    let mut chunks = Chunks::default();
    chunks.nested(1, Chunks::of(header));
    chunks.number(2, answer.deleted.cast_unsigned());
    for value in values.take(answer.previous.len()) {
        chunks.shared(3, &value);
    }
    chunks
}

/// TxnResponse: header 1, succeeded 2, responses 3; ResponseOp: range 1, put 2, delete_range 3, txn 4.
fn txn(
    answer: &TxnAnswer,
    header: &ResponseHeader,
    values: &mut dyn Iterator<Item = Bytes>,
) -> Result<Chunks, MalformedKeyValue> {
    let mut chunks = Chunks::default();
    chunks.nested(1, Chunks::of(header));
    chunks.number(2, u64::from(answer.succeeded));
    for response in &answer.responses {
        let mut op = Chunks::default();
        match response {
            OpAnswer::Range(plan) => {
                let values = (&mut *values).take(plan.hits.len()).collect();
                op.nested(1, range(plan, &inner_header(plan.revision), values)?);
            }
            OpAnswer::Put(answer) => op.nested(2, put(answer, &inner_header(answer.revision), &mut &mut *values)),
            OpAnswer::DeleteRange(answer) => {
                op.nested(3, delete_range(answer, &inner_header(answer.revision), &mut &mut *values));
            }
            OpAnswer::Txn(answer) => op.nested(4, txn(answer, &ResponseHeader::default(), values)?),
        }
        chunks.nested(3, op);
    }
    Ok(chunks)
}
