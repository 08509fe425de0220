//! Checkpoints: the state of all shards and of `system` at one log index, made durable under one manifest.
//!
//! ```text
//!   Store::freeze ──► CheckpointJob ──► pages of each shard, runs of each index, runs of system
//!                                  └──► manifest ──► Store::checkpointed
//!   manifest ──► recovery::open ──► Store, Checkpointer
//!   revisions of another store ──► Filling ──┬─► the same files, and their first manifest
//!                                            └─► Filled ──► Checkpointer::install ──► Store, Checkpointer
//! ```
//!
//! * The manifest is the only root: what it does not name is garbage, and is removed at the next start, once the log
//!   has confirmed the manifest. A refused checkpoint removes its own.
//! * A checkpoint changes nothing that the last durable manifest names. A crash anywhere leaves that one.
//! * It contains exactly the effects up to its log index; the log is replayed from there.

pub mod manifest;

mod changed_keys;
mod checkpointer;
mod filling;
mod job;
mod merge_rule;
pub mod recovery;
mod recovery_error;
mod reserve;
#[cfg(test)]
mod tests;

pub use checkpointer::{Checkpointer, InstallError, PAGES_DIRECTORY, RUNS_DIRECTORY, Salt, page_file_name};
pub use filling::{COMMIT_BYTES, Figures, FillError, Filled, Filling, clear};
pub(crate) use filling::{raised, stored};
pub use job::{Checkpoint, CheckpointError, CheckpointJob};
pub use reserve::{RESERVE_BYTES, RESERVE_NAME, Reserve};
