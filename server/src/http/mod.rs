//! The pages that a browser, a probe or Prometheus asks for (etcd-contract 2.4, 42, 43).
//!
//! ```text
//! PageRequest ─► access (hosts, origins) ─► path ─► health, checks, version, metrics, vars ─► PageResponse
//!                 421, CORS headers          404        Probe, Metrics
//! ```
//!
//! Owns what is answered: status, headers and body of every path, byte for byte those of etcd 3.7.3 (the tests hold
//! what the real one said). Pure but for the counters and for what the [`Probe`] does: no socket, no framework, no
//! task, but that of the page of figures, which is made apart ([`SharedPage`]). The edge builds a [`PageRequest`] from whatever HTTP it speaks and writes the [`PageResponse`] out.
//!
//! It answers neither gRPC nor what stands under `/v3/`; for the JSON gateway there it says who is let in.
//!
//! Invariants:
//! * Health pages answer with a failed check, never with an error page: a node that cannot serve says why.
//! * The listener of `--listen-metrics-urls` shows health and metrics only, to everybody.

mod access;
mod checks;
mod health;
mod message;
mod probe;
mod query;
mod shared_page;
mod site;

#[cfg(test)]
mod tests;

pub use message::{PageRequest, PageResponse};
pub use probe::{AlarmKind, Probe, Versions};
pub use query::Query;
pub use shared_page::SharedPage;
pub use site::{Listener, Site};
