//! Whether this member's data is that of the others: etcd's checks, which compare hashes and are asked for by its flags.
//!
//! ```text
//!   InitialCorruptCheck   a start, before it serves      own hash of all ─► the others' at that revision ─► stop, if one differs
//!   CompactHashCheck      the leader, every so often     hashes that compactions left ─► the others' ─► CORRUPT of the minority
//! ```
//!
//! The comparison that is always on, and costs no walk over the data, is another one: `node/hash_marks.rs`.
//!
//! * What is judged is judged purely: hashes in, verdict out. Only the doors ask others.
//! * A member that does not answer proves nothing.
//! * Only hashes under the same compact revision are compared: what is compacted and not swept yet is in no hash, but which
//!   revisions a hash covers hangs on it.

mod compactions;
mod initial;

pub use compactions::{CompactHashChecker, Finding, judge};
pub use initial::{Inconsistent, initial_check};

use basalt_proto::etcdserverpb::HashKvResponse;

/// What another member answered, or why it did not.
pub type Answer = (u64, Result<HashKvResponse, tonic::Status>);
