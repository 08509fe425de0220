//! The manifest: the only root of a data directory.
//!
//! It names the state of all shards and of `system` at one log index. What it does not name does not exist, and what
//! the newest durable one names is untouchable until its successor is durable.
//!
//! ```text
//!   file `manifest`   0        64 KiB    128 KiB   192 KiB   256 KiB
//!                     │ slot 0  │ slot 1  │ slot 0  │ slot 1  │
//!                     └── first copies ───┴───── mirrors ─────┘       generation G stands in slot G mod 2
//! ```
//!
//! Invariants:
//! * Generation G+1 is written only when G is durable, into the slot of G-1: both copies, then one sync. A crash in
//!   between leaves G whole. An attempt that was given up is repeated under the same number.
//! * A start writes the generation that it found once more, byte for byte, where it stands: it may have been in a page
//!   cache only, and then the other slot holds the last durable one.
//! * Pages and runs that a manifest names are synced, and their directory entries too, before it is written.
//! * Everything that it names is bounded so that it fits a slot; the compiler adds it up (`content.rs`).
//! * Reading takes the newest valid of four copies. Whether an older one may be used is not decided here: a log that
//!   knows a newer generation than the one found means a lost manifest, and the node must refuse to serve.
//!
//! Format: `docs/disk-format-manifest.md`.

mod codec;
mod content;
mod error;
mod read_manifest;
mod slots;
#[cfg(test)]
mod tests;
mod write_manifest;

pub use codec::VERSION_FIRST;
pub use content::{MAP_ROOT_BYTES_MAX, MEMBERSHIP_BYTES_MAX, Manifest, ShardManifest, TREE_ROOT_BYTES_MAX};
pub use error::ManifestError;
pub use read_manifest::{BadCopy, ManifestFound, ReadManifest, read_job};
pub use slots::{MANIFEST_FILE_BYTES, MANIFEST_NAME, SLOT_BYTES};
pub use write_manifest::{WriteManifest, rewrite_job, write_job};
