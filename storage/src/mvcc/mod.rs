//! Revisions of keys: which exist, which are visible at a revision, what a compaction drops.

pub mod key_index;
pub mod key_range;
