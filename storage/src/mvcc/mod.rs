//! Revisions of keys: which exist, which are visible at a revision, what a compaction drops.

pub mod key_range;
pub mod key_value;
pub mod shard_map;
pub mod delta;
