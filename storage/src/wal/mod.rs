//! The log: the durability of everything. What a batch's job has reported durable is found again by every later
//! start, or the start refuses to serve.
//!
//! ```text
//!   append ─► gathered batch ─► start_batch ─► LogJob: write, sync ─► finish_batch ─► ...
//!                                   │ segment full
//!                                   └─► rename or make a file, sync directory; write head, sync; write batch, sync
//!
//!   0000000000000007.wal   | head | head | batch 41 | batch 42 ... |           closed
//!   0000000000000008.wal   | head | head | batch 57 | batch 58 | zeros or old |  active
//!   0000000000000009.wal   | zeros, or a former segment |                     prepared: not begun
//!   0000000000000005.spare | a former segment |                               spare
//! ```
//!
//! Rules, each of which some test breaks if it is dropped:
//! * **One batch at a time.** No byte of batch N+1 is written before the sync of N returned; meanwhile the next one
//!   gathers. So only the last batch can be torn, and an invalid batch with a valid one of a higher number
//!   anywhere behind it was durable once: that is corruption, and recovery refuses (`segment_scan`, `replay`).
//! * **A block belongs to one batch.** Batches are aligned to blocks and never share one; nothing is ever changed in
//!   place. A conflict appends a record that truncates.
//! * **Name, then head, then batch.** The name of a segment is durable before its head is written, the head before
//!   its first batch. A head therefore proves that all batches before its first were durable.
//! * **A start never appends to an old tail.** What a page cache shows after a failed or missing sync may not be on
//!   the disk, and a second sync does not put it there. Only the last batch can be in that state; a start copies it,
//!   with its number, behind a head with the state before it, into a fresh segment with a fresh salt, and syncs,
//!   before anybody hears of its content. The caller then rewrites the manifest for the same reason.
//! * **Oldest first, one by one.** A segment is given up only behind a durable head that repeats the hard state, and
//!   its new name is durable before the next one goes, so that the segments left are always without a gap.
//! * A failed job ends the log. It is not repeated, but for preparing on a full disk: nothing needs that yet.
//!
//! It does not interpret entries, choose when to sync, know what a snapshot is, or keep entries in memory.
//! `docs/disk-format-wal.md` has the bytes.
//!
//! Reading order: `record`, `batch`, `segment_head` (the bytes); `segment_scan`, `replay`, `recovery`, `inspection` (reading);
//! `io_plan`, `log` (writing).

mod batch;
mod error;
mod inspection;
mod io_plan;
mod little_endian;
mod log;
mod record;
mod recovery;
mod replay;
mod segment_head;
mod segment_name;
mod segment_scan;
mod term_runs;

#[cfg(test)]
mod tests;

pub use error::WalError;
pub use inspection::{Inspected, inspect};
pub use io_plan::LogJob;
pub use log::{BATCH_BYTES_MAX, BatchDurable, Log, LogOptions, Prepared, Recycled};
pub use record::{Entry, HardState, Record};
pub(crate) use recovery::is_segment;
pub use recovery::{EndReason, Recovered, Recovery};
pub use segment_head::Identity;
pub(crate) use segment_name::DIRECTORY;
