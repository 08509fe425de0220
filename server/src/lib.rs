//! One node.

pub mod auto_compaction;
pub mod config;
pub mod http;
pub mod metrics;
