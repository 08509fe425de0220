//! The head of a segment: whose it is, and where its first batch takes up.

use std::fmt;

use bytes::{Bytes, BytesMut};

use super::little_endian::{array, put, u32_at, u64_at};
use super::record::HardState;

/// Unit of everything in a segment: no write rewrites bytes of a block that an earlier batch wrote.
pub(super) const BLOCK_BYTES: usize = 4096;
pub(super) const MAGIC: [u8; 8] = *b"basltWAL";
pub(super) const FORMAT_VERSION: u32 = 1;
/// Incompatible features that this release understands: none yet.
pub(super) const FEATURES_KNOWN: u32 = 0;
/// The head stands in this many blocks, one after the other: losing one must not make a segment full of
/// acknowledged batches look as if it had never begun.
pub(super) const HEAD_COPIES: usize = 2;
/// Offset of the first batch.
pub(super) const HEAD_AREA_BYTES: usize = HEAD_COPIES * BLOCK_BYTES;

pub(super) const MAGIC_AT: usize = 0;
pub(super) const VERSION_AT: usize = MAGIC_AT + 8;
pub(super) const FEATURES_AT: usize = VERSION_AT + 4;
pub(super) const CLUSTER_AT: usize = FEATURES_AT + 4;
pub(super) const MEMBER_AT: usize = CLUSTER_AT + 8;
pub(super) const INCARNATION_AT: usize = MEMBER_AT + 8;
pub(super) const SALT_AT: usize = INCARNATION_AT + 16;
pub(super) const SEQUENCE_AT: usize = SALT_AT + 8;
pub(super) const FIRST_BATCH_AT: usize = SEQUENCE_AT + 8;
pub(super) const TERM_AT: usize = FIRST_BATCH_AT + 8;
pub(super) const VOTE_AT: usize = TERM_AT + 8;
pub(super) const COMMIT_AT: usize = VOTE_AT + 8;
pub(super) const PREVIOUS_INDEX_AT: usize = COMMIT_AT + 8;
pub(super) const PREVIOUS_TERM_AT: usize = PREVIOUS_INDEX_AT + 8;
pub(super) const CRC_AT: usize = PREVIOUS_TERM_AT + 8;
pub(super) const HEAD_BYTES: usize = CRC_AT + 4;

const _: () = assert!(HEAD_BYTES <= 512, "a head fits into one sector");

/// Whose log it is (DESIGN, incarnation: a wiped member under an old identity has no vote).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Cluster id.
    pub cluster: u64,
    /// Member id.
    pub member: u64,
    /// Random number with which the data directory was born.
    pub incarnation: u128,
}

impl fmt::Display for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cluster, member, incarnation } = self;
        write!(formatter, "member {member:x} of cluster {cluster:x}, incarnation {incarnation:032x}")
    }
}

/// The state of the log between two batches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) hard_state: HardState,
    pub(super) last_index: u64,
    pub(super) last_term: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHead {
    pub(super) identity: Identity,
    /// Random: a batch of another life of the file, or bytes that a client made up, never carry it.
    pub(super) salt: u64,
    pub(super) sequence: u64,
    /// Number of the first batch.
    pub(super) first_batch: u64,
    /// The log before the first batch.
    pub(super) position: Position,
}

/// What a block that should hold a head holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HeadBlock {
    Valid(SegmentHead),
    Newer { version: u32, features: u32 },
    Invalid,
}

impl SegmentHead {
    /// All copies, filling the head area.
    pub(super) fn encode_area(&self) -> Bytes {
        let mut area = BytesMut::zeroed(HEAD_AREA_BYTES);
        for block in area.chunks_exact_mut(BLOCK_BYTES) {
            self.encode(block);
        }
        area.freeze()
    }

    fn encode(&self, block: &mut [u8]) {
        let Position { hard_state, last_index, last_term } = self.position;
        put(block, MAGIC_AT, &MAGIC);
        put(block, VERSION_AT, &FORMAT_VERSION.to_le_bytes());
        put(block, FEATURES_AT, &FEATURES_KNOWN.to_le_bytes());
        put(block, INCARNATION_AT, &self.identity.incarnation.to_le_bytes());
        for (at, number) in [
            (CLUSTER_AT, self.identity.cluster),
            (MEMBER_AT, self.identity.member),
            (SALT_AT, self.salt),
            (SEQUENCE_AT, self.sequence),
            (FIRST_BATCH_AT, self.first_batch),
            (TERM_AT, hard_state.term),
            (VOTE_AT, hard_state.vote),
            (COMMIT_AT, hard_state.commit),
            (PREVIOUS_INDEX_AT, last_index),
            (PREVIOUS_TERM_AT, last_term),
        ] {
            put(block, at, &number.to_le_bytes());
        }
        let crc = crc32fast::hash(&block[..CRC_AT]);
        put(block, CRC_AT, &crc.to_le_bytes());
    }

    pub(super) fn decode(block: &[u8]) -> HeadBlock {
        if block.len() < HEAD_BYTES || block[..VERSION_AT] != MAGIC {
            return HeadBlock::Invalid;
        }
        let (version, features) = (u32_at(block, VERSION_AT), u32_at(block, FEATURES_AT));
        if version > FORMAT_VERSION || features & !FEATURES_KNOWN != 0 {
            return HeadBlock::Newer { version, features };
        }
        if version != FORMAT_VERSION || u32_at(block, CRC_AT) != crc32fast::hash(&block[..CRC_AT]) {
            return HeadBlock::Invalid;
        }
        let number = |at| u64_at(block, at);
        let incarnation = u128::from_le_bytes(array(block, INCARNATION_AT));
        HeadBlock::Valid(Self {
            identity: Identity { cluster: number(CLUSTER_AT), member: number(MEMBER_AT), incarnation },
            salt: number(SALT_AT),
            sequence: number(SEQUENCE_AT),
            first_batch: number(FIRST_BATCH_AT),
            position: Position {
                hard_state: HardState { term: number(TERM_AT), vote: number(VOTE_AT), commit: number(COMMIT_AT) },
                last_index: number(PREVIOUS_INDEX_AT),
                last_term: number(PREVIOUS_TERM_AT),
            },
        })
    }
}
