//! One node: the API, consensus, apply, watches and leases, and what carries them.
//!
//! ```text
//!   program ─► edge ─► api (gRPC) ──► node (threads) ─► admission ─► apply ─► basalt_storage
//!      │         ├───► gateway (JSON) ─► api
//!      │         └───► pages ─► profiles    ├─► watch
//!      │                 └────► http        └─► lease
//!      │                     └───► auth (who calls)
//!      └─► listen, discovery, resolution, corruption, auto_compaction, logging, memory, read_again, config; metrics is
//!          counted by all
//! ```
//!
//! Rooms use what stands to their right (`tests/tests/rooms.rs` checks it); `admission`, `apply`, `watch`, `lease`,
//! `auto_compaction` and the core of `node` are pure.

pub mod admission;
pub mod api;
pub mod apply;
pub mod auth;
pub mod auto_compaction;
pub mod config;
pub mod control;
pub mod corruption;
pub mod discovery;
pub mod edge;
pub mod failpoints;
pub mod gateway;
pub mod http;
pub mod import;
pub mod lease;
pub mod listen;
pub mod logging;
pub mod memory;
pub mod metrics;
pub mod node;
pub mod pages;
pub mod peer;
pub mod peer_edge;
pub mod profiles;
pub mod program;
pub mod read_again;
pub mod resolution;
pub mod traces;
pub mod transfer;
pub mod watch;
