//! A whole state on its way from one member to another: what the other lacks stands in no log any more.
//!
//! ```text
//!   Machine ─► MemberSnapshot ─► SnapshotStream ─► chunks ──► Receiving ─► fresh files ─► Filled, to be installed
//!                (one View)       (pulled, a piece at a time)
//! ```
//!
//! Owns what the chunks say (`proto/basalt/snapshot/v1`) and every check of it: what is stored, never how.
//!
//! Invariants:
//! * All of a snapshot is of one log entry: View, records, members and sums are taken at one instant.
//! * Every byte that arrives is hostile: what cannot be is an error, never a panic, and nothing of it counts.
//! * A stream may end anywhere and go on in another: revisions above the last that arrived.
//! * Memory: the sender some MiB for each shard, the receiver as an import has it.
//!
//! It does not: carry bytes, choose when, or install anything.

mod receiving;
mod source;
#[cfg(test)]
pub(crate) mod tests;

pub use receiving::{Expected, ReceiveError, Receiving};
pub use source::{MemberSnapshot, NextChunk, SnapshotStream};

/// Version of the format that this release writes, and the newest that it reads.
const FORMAT_VERSION: u32 = 1;
/// Bytes of a chunk, unless one revision or record alone is longer.
const CHUNK_BYTES: usize = 1 << 20;
