//! Sorted runs: what is keyed and changes with every checkpoint, written as O(changed keys).
//!
//! ```text
//!   changed keys ─► WriteRun ─► run file          base run + newer runs ─► MergedRuns ─► batches of a start
//!                                                            └─► WriteRun::merge ─► new base run
//! ```
//!
//! A run is one file of records in strictly ascending key order; a record says what a key holds from here on, or that
//! it was removed. A state is a base run (which has no removals) and runs on top of it, oldest first; of several
//! records of a key the newest holds. A run is written once, named by a manifest, and never changed; which runs there
//! are is the manifest's business. Format: `docs/disk-format-runs.md`.
//!
//! Invariants:
//! * Every block is checked before a record of it is seen: CRC over the file's salt and the block's place, ascending
//!   keys, bounded lengths. Counts and the CRC of the whole file are checked at its end; until then, what was read is
//!   good but may be of an older file of the same name, so use nothing before the end.
//! * Memory is bounded whatever the run's size: one write chunk, and a read chunk for each run (`READ_BYTES_MAX` in
//!   all, but at least `READ_CHUNK_MIN` each); on top of it the values under way, whole: a long one is split in the file only.
//! * The file is synced when its job is done; its directory is not. Sync it before a manifest names the run.
//!
//! It does not search: who needs single keys keeps them in memory or in a tree.

mod block;
mod cursor;
mod encoder;
mod error;
mod format;
#[cfg(test)]
pub(crate) mod memory_disk;
mod merged_runs;
mod record;
mod run_meta;
#[cfg(test)]
mod tests;
mod write_run;

pub use error::RunError;
pub use format::{KEY_BYTES_MAX, run_name};
pub use merged_runs::{MergedRuns, NextBatch, Removals};
pub use record::Record;
pub use run_meta::{RUN_META_LEN, RunMeta};
pub use write_run::{RecordSource, Records, WriteRun};
