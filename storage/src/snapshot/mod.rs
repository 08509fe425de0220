//! Snapshots: the whole store as the bbolt file that etcd's tools, and etcd itself, read.
//!
//! This room turns stored revisions and system tables into that file's bytes, and reads such a file back. It owns the
//! file format ([`bbolt`]), etcd's schema in it ([`SystemTables`], [`SnapshotPlan`]) and the digest behind it.
//!
//! ```text
//!   View ─► ViewSlots ─► Survivors ─┬─► SnapshotPlan ─► SnapshotLayout (size) ─► SnapshotWriter ◄─ ViewSlots again,
//!                                   │        ▲                                        │             with values
//!            ContentHash (hashes) ◄─┘   SystemTables                                  ▼ chunks, then the SHA-256
//!
//!   file ─► check_digest, bbolt::Reader ─► buckets and entries
//! ```
//!
//! Invariants:
//! * Both passes read one view. The writer notices if they did not, and then gives no digest.
//! * Bucket `key` is what a finished compaction leaves: a file does not show how far a member's own compaction is.
//! * Values are passed through byte for byte, canonical or not (they are hashed).
//! * Writing is [`SnapshotJob`], pulled by its receiver: it hands its page reads out, and makes no byte that nobody
//!   asked for. Reading a file waits for its source: for tools, and for threads that do nothing else.
//!
//! It does not: cut chunks to messages, choose a view, wait for a checkpoint, or interpret values. Snapshots between
//! members are another format, which the server writes from [`StoredRevisions`].

pub mod bbolt;
mod digest;
mod error;
mod job;
#[cfg(test)]
mod job_tests;
mod protobuf;
mod shard_slots;
mod stored_revisions;
mod stream;
mod survivors;
mod system_tables;
#[cfg(test)]
pub(crate) mod view_rig;
mod view_slots;

pub use digest::{DIGEST_BYTES, DigestCheck, check_digest};
pub use error::SnapshotError;
pub use job::{NextChunk, SnapshotJob};
pub use stored_revisions::{NextRevisions, StoredRevision, StoredRevisions};
pub use stream::{SnapshotEnd, SnapshotLayout, SnapshotPlan, SnapshotWriter};
pub use system_tables::{ConfStateRecord, KEY_BUCKET, MemberRecord, SCHEMA_VERSION, SystemTables, Table};

pub(crate) use shard_slots::Values;
pub(crate) use survivors::{Compaction, Survivors};
pub(crate) use view_slots::ViewSlots;
