//! What clients call: checks, handlers, answers in wire form, and gRPC around them.
//!
//! ```text
//!   connection ─► grpc ─► method ─► service ─► kv, lease, cluster, maintenance ─► node handle
//!                  │                   │                  └── checks
//!                  └─► stream          └─► encode ─► chunks
//! ```
//!
//! * Only [`grpc`] and [`stream`] know gRPC; a handler takes a decoded request and gives pieces of a message.
//! * Only [`status`] knows etcd's error codes and texts.
//! * Stored values go out as they are stored: nothing here decodes and encodes a KeyValue to send it.

pub mod chunks;
pub mod status;
pub mod checks;
pub mod encode;
pub mod method;
pub mod service;
mod kv;
mod lease;
mod cluster;
pub mod maintenance;
mod stream;
pub mod grpc;
