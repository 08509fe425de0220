//! One node: the API, consensus, apply, watches and leases, and what carries them.
//!
//! ```text
//!   program ─► config, logging
//!      │─► node (threads) ─► apply ─► basalt_storage
//!      │         └─► watch, lease
//!      └─► listen ─► edge ─► api (gRPC) ─► node handle
//!                      └──► pages (health, version, metrics)
//! ```
//!
//! Rooms use what stands to their right; `apply`, `watch`, `lease` and the core of `node` are pure.

pub mod api;
pub mod apply;
pub mod auto_compaction;
pub mod config;
pub mod edge;
pub mod http;
pub mod lease;
pub mod listen;
pub mod logging;
pub mod metrics;
pub mod node;
pub mod pages;
pub mod program;
pub mod watch;
