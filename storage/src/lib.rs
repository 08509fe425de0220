//! Bytes: the disk, the log, the pages, the revisions, the checkpoints and the snapshots of one node.
//!
//! ```text
//!   hashes ─► snapshot ─┐
//!  check, import ──────────┤
//!        checkpoint ────┴─► mvcc ─► pages ─► disk
//!             ├─► runs ─────────────────────► │
//!             └─► wal ──────────────────────► │
//! ```
//!
//! Invariants of the whole crate:
//! * It starts no thread, waits for none, and knows no async runtime, no network and no gRPC. Long work is a
//!   [`job::Job`]: it is stepped, hands out I/O, and gets the completions as input.
//! * [`disk`] is the only door to the operating system.
//! * Bytes read from a disk are hostile until their checksum was checked; a bad one is an error, never a panic.
//! * A failed sync is never retried: the error travels up and the node stops.

pub mod check;
pub mod checkpoint;
pub mod disk;
pub mod hashes;
pub mod import;
pub mod job;
pub mod mvcc;
pub mod pages;
pub mod planted;
pub mod revision;
pub mod runs;
pub mod snapshot;
pub mod wal;
