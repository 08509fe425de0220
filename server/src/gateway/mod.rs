//! The JSON gateway under `/v3/`: etcd's API for clients that speak HTTP and JSON (etcd-contract 2.3).
//!
//! ```text
//!   POST /v3/kv/put, JSON ─► routes ─► transcoder ─► a gRPC call inside this process ─► api::grpc
//!   GET, a websocket ─► handshake ─► websocket ─┘                                            │
//!   JSON, or a line for each message ◄── answer ◄── json_writer ◄── its frames and its status┘
//! ```
//!
//! * It adds nothing to the API and takes nothing away: a request is a gRPC call, counted, limited and judged like any other.
//! * Names are those of the `.proto` files, numbers of 64 bits are strings, what is zero is left out, what is unknown is
//!   passed over.
//! * A token in `Authorization` says who asks. The name in a client's certificate does not: while authentication is on, a client
//!   that shows one is refused (etcd-contract 2.3).
//! * JSON of an answer is never whole: it is written as the client takes it, from bytes that the budget of answers counts.
//! * A websocket is one call: messages of its client are the request's body, lines of the answer are messages to it. It is
//!   bounded as a call is, and ends with either side (docs/decisions 0034).
//! * [`document`] describes it all, for whoever generates clients; nobody can ask a node for it.
//!
//! It knows no method by itself: paths, messages and kinds of calls come from the descriptors and the table of [`routes`].

mod answer;
mod call;
mod failure;
#[doc(hidden)]
pub mod foreign;
mod frames;
mod handshake;
mod json_writer;
mod metered;
mod openapi;
mod routes;
mod transcoder;
mod websocket;

#[cfg(test)]
mod tests;

pub use answer::GatewayBody;
pub use call::Gateway;
pub use openapi::document;
