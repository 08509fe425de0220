//! What this node tells Prometheus.
//!
//! Owns one registry and every family in it. There is one [`Metrics`] for a process, created before any thread and
//! handed around in an `Arc`; its public fields are the handles, so a name that nobody registered cannot be counted.
//!
//! ```text
//! families         the table: field, kind, etcd's name, etcd's help          counted where it happens
//! grpc_calls       grpc_server_*: a counter for each (method, code)          counted by the edge, by index
//! client_requests  requests by version of the client, so many and no more    counted by the edge
//! operations       durations by operation and outcome                        counted by apply and the edge
//! figures          what the node knows anyway (revision, size, leader ...)   copied in before a scrape
//! recent           the last syncs of the log, for a percentile of now         observed by the log thread
//! process          process_* and os_fd_*                                     read from /proc at a scrape
//! vestiges         etcd names of machinery that does not exist here          always zero
//! ```
//!
//! Names, kinds, label names and buckets are those of etcd 3.7.3 where the meaning is etcd's (etcd-contract 8; the test
//! compares with a list taken from the real one); ours are called `basalt_<room>_<noun>_<unit>`. Names beginning with
//! `go_` are not here: they speak of a garbage collector and would be inventions.
//!
//! Invariants:
//! * All that etcd shows from the start is there from the start, at zero: an alert on `rate()` needs the first sample.
//! * Labels are bounded: methods, codes, shards, members, some versions. Never a key, never a client's address.
//! * Counting is an atomic addition or two; nothing that a request passes takes a lock or hashes a label. Handles of
//!   fields with labels are fetched once, by who counts.

mod client_requests;
mod families;
mod family;
mod figures;
mod grpc_calls;
mod grpc_method;
mod operations;
mod process;
mod recent;
mod vestiges;

#[cfg(test)]
mod tests;

pub use client_requests::ClientRequests;
pub use families::Metrics;
pub use figures::{ClassFigures, Figures, Identity, ShardFigures};
pub use grpc_calls::GrpcCalls;
pub use grpc_method::{CallKind, GrpcMethod};
pub use operations::{Operation, OperationSeconds, OutcomeSeconds};
pub use recent::Recent;
