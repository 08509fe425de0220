//! What clients call: checks, handlers, answers in wire form, and gRPC around them.
//!
//! ```text
//!   connection ─► grpc ─► method ─► service ─► kv, lease, cluster, maintenance, auth ─► node handle
//!                  │                 policy             └── checks
//!                  └─► stream          └─► encode ─► chunks
//! ```
//!
//! * Only [`grpc`] and [`stream`] know gRPC; a handler takes a decoded request and gives pieces of a message.
//! * Only [`policy`] says who may call what; nothing is read or ordered past it.
//! * Only [`status`] knows etcd's error codes and texts.
//! * Stored values go out as they are stored: nothing here decodes and encodes a KeyValue to send it.

mod auth;
mod candidates;
pub mod checks;
pub mod chunks;
pub mod client_deadline;
mod cluster;
mod describe;
mod election;
pub mod encode;
pub mod grpc;
mod kept_request;
mod kv;
mod leader;
pub mod leader_loss;
mod lease;
mod lock;
pub mod maintenance;
pub mod member_changes;
pub mod method;
mod own_client;
pub mod pieces;
pub mod policy;
pub mod request_messages;
pub mod service;
pub mod status;
mod steps;
mod stream;
mod tally;
#[cfg(test)]
mod tests;
mod timeouts;
mod traced;
mod txn_writes;
pub mod watch_permission;
