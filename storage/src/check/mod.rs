//! Check: whether a data directory is what it should be, and if not, what is wrong where.
//!
//! ```text
//!   check ─► manifest: four copies ─► log: batches, does it fit ─► of each shard: index runs, pages with map, both
//!                                                                ─► system runs ─► files that nothing names
//! ```
//!
//! * It reads all that the manifest names, once, and changes nothing. The caller holds the lock of the directory.
//! * It goes on behind damage: each file is judged for itself as far as it can be read.
//! * Damage is what a node would refuse, or would answer with an error, or wrongly. What a crash may leave is a
//!   [`Severity::Note`].
//! * Memory: the index of one shard, as a running node holds it, and some MiB.
//!
//! Of index and pages it knows: every revision that the index names, after the compaction that the manifest knows of, has
//! its entry, alive, of that key; and every living entry is in the index, unless that compaction drops it.
//!
//! It does not interpret system records, compare sums of effects (these are of all history), or repair.

mod directory;
mod finding;
mod index_check;
mod shard_check;
#[cfg(test)]
mod tests;

pub use directory::{CheckError, Checked, check};
pub use finding::{Finding, Observer, Severity};
