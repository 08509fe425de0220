//! Raft's configuration as a manifest keeps it.

use prost::Message;

/// Field numbers are those of eraftpb.ConfState.
#[derive(Clone, PartialEq, Message)]
pub struct ConfStateRecord {
    /// Ids of the voters.
    #[prost(uint64, repeated, tag = "1")]
    pub voters: Vec<u64>,
    /// Ids of the learners.
    #[prost(uint64, repeated, tag = "2")]
    pub learners: Vec<u64>,
}

/// The configuration of a cluster of one.
pub fn single_voter(member_id: u64) -> Vec<u8> {
    ConfStateRecord { voters: vec![member_id], learners: Vec::new() }.encode_to_vec()
}
