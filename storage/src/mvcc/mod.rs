//! Revisions of keys: which exist, which are visible at a revision, what a compaction drops.
//!
//! ```text
//!   Transaction ──changes──► Store ──► View ──► RangePlan ──► Fetch ──► RangeResult
//!        ▲                  │  │  │      └────► History (what a watch resumes from)
//!        └──── reads ───────┘  │  └─ freeze ──► a checkpoint
//!                              └ key_index, delta, system
//! ```
//!
//! * [`store`] is the latest state and has one writer; [`view`] is what everybody else sees.
//! * A stored value is the encoded KeyValue ([`key_value`]), written once and never re-encoded.
//! * Nothing here reads a disk except through a [`crate::job::Job`] that hands its reads out.
//!
//! It does not know leases, requests, authorization or Raft; [`system`] keeps their records without reading them.

pub mod delta;
pub mod effect_sum;
pub mod fetch;
pub mod history;
pub mod kept_views;
pub mod key_index;
pub mod key_range;
pub mod key_value;
pub mod range;
pub mod shard_map;
pub mod shard_map_text;
pub mod shard_read_error;
pub mod store;
pub mod system;
pub mod transaction;
pub mod view;
