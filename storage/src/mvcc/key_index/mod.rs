//! Which keys there are, at which revisions, in memory: a copy-on-write B+tree.
//!
//! ```text
//!   KeyIndex (one writer) ──root()──► IndexRoot (readers, no lock)
//!        │                                │
//!        ▼                                ▼
//!      Inner   separators, and per child: live keys, bytes, newest revision, lowest revision worth a compaction
//!        ▼
//!      Leaf    prefix, then per key: suffix, newest revision, create, version, lease, past revisions ──► Chunks
//! ```
//!
//! The room owns the map from key to revisions: the newest with create revision, version and lease, and the main, sub
//! and tombstone flag of every older one that no compaction dropped. So any revision from the compact revision on is
//! answered from memory. A 64-byte key takes about 50 bytes, an older revision at most 8.
//!
//! It never knows a value, the store's current or compact revision, or time; it does no I/O. Whether a revision may be
//! read at all is its caller's question.
//!
//! Invariants:
//! * A published [`IndexRoot`] never changes. A write copies the nodes on its path that a root shares, once per root,
//!   and changes the others in place.
//! * Counts are exact: a deleted key stays until a compaction drops its tombstone but weighs nothing.
//! * Nothing is lost by a compaction that a read at or above its revision, or a watch from it, could see
//!   (etcd-contract 13).
//! * Records of a checkpoint are hostile: [`IndexBuilder`] checks each and allocates in proportion to it.
//!
//! It is not a general map: there are no descending scans (callers that sort collect anyway, etcd-contract 17), and no
//! create revision or version of older revisions (they stand beside the value).

// In reading order, which `rustfmt` would sort away without the empty lines.
mod varint;

mod packed_keys;

mod past;

mod record;

mod summary;

mod leaf;

mod node;

mod inner;

mod root;

mod writer;

mod builder;

mod unshared;

mod kept_roots;

#[cfg(test)]
mod document_tests;
#[cfg(test)]
mod tests;

pub use builder::{IndexBuilder, KeyIndexError};
pub use kept_roots::{KEPT_ROOTS_BYTES_DEFAULT, KEPT_ROOTS_MAX, KeptRoots};
pub use record::KeyState;
pub use root::IndexRoot;
pub use writer::{CompactStep, DeleteOutcome, KEY_BYTES_MAX, KeyIndex, PutOutcome};
