//! Import: a database of etcd becomes a data directory of ours.
//!
//! ```text
//!   bbolt::Reader ─┬─► Tables: leases, alarms, users, versions ... ─► what is kept, is its caller's to say ─┐
//!                  └─► read_revisions ─► Filling::push ─► pages, index            Filling::set_record ◄────┘
//!                                                                  Filling::finish ─► manifest: it counts
//! ```
//!
//! Owns how etcd's schema is read back: revision keys, KeyValues, the records of bucket `meta`, and the mark of a
//! directory that is being filled ([`Marker`]).
//!
//! Invariants:
//! * Every byte of the file is hostile: what cannot be is an error that names the page or the revision, never a panic,
//!   and never memory beyond as many bytes as the file has, one node of it, and the index of keys.
//! * KeyValues are stored byte for byte, canonical or not: HashKV of every revision is etcd's.
//! * All revisions come over, also those that an unfinished compaction of etcd has yet to drop: the sweep of the first
//!   start drops them.
//!
//! It does not decide which file may be imported, whose directory it becomes, or what happens to the old one.

mod error;
mod marker;
mod meta;
mod revisions;
mod tables;
#[cfg(test)]
mod tests;

pub use error::ImportError;
pub use marker::{Marker, NameKind, name_kind};
pub use meta::DatabaseMeta;
pub use revisions::{Revisions, bump, read_revisions};
pub use tables::Tables;
