//! Snapshots: the whole store as the bbolt file that etcd's tools and etcd itself read, and back.

pub mod bbolt;
mod error;

pub use error::SnapshotError;
