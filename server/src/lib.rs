//! One node.

pub mod config;
pub mod metrics;
