//! The JSON gateway under `/v3/`: etcd's API for clients that speak HTTP and JSON (etcd-contract 2.3).
//!
//! ```text
//!   POST /v3/kv/put, JSON ─► routes ─► transcoder ─► a gRPC call inside this process ─► api::grpc
//!   JSON, or a line for each message ◄── transcoder ◄── its frames and its status
//! ```
//!
//! * It adds nothing to the API and takes nothing away: a request is a gRPC call, counted, limited and judged like any other.
//! * Names are those of the `.proto` files, numbers of 64 bits are strings, what is zero is left out, what is unknown is
//!   passed over.
//! * A token in `Authorization` says who asks. The name in a client's certificate does not: while authentication is on, a client
//!   that shows one is refused (etcd-contract 2.3).
//!
//! It knows no method by itself: paths, messages and kinds of calls come from the descriptors and the table of [`routes`].

mod call;
mod failure;
#[doc(hidden)]
pub mod foreign;
mod frames;
mod routes;
mod transcoder;

#[cfg(test)]
mod tests;

pub use call::{Gateway, GatewayBody};
