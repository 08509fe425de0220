//! Traces of calls, for a collector of OpenTelemetry; nothing of it exists unless `--enable-distributed-tracing` is given.
//!
//! ```text
//! call's head ─► tracer: to be kept? ─► span of the call ─► span of the operation ─► ended ─► exporter ─► collector
//!                context, sampler       span                operation                         bounded, in batches
//! ```
//!
//! A call is a span under the name, kind and attributes that etcd's gRPC library gives it, and what etcd does for it is a
//! span below (`operation`). A client's `traceparent` says to which trace a call belongs and whether it is kept; without
//! one, the rate decides. Resource and scope name this process; no other process is called with a trace.
//!
//! Invariants:
//! * Where tracing is off, a call costs one branch; where a call is not kept, no more than looking for its `traceparent`.
//! * The server never waits for the collector: what does not fit into the queue is dropped, and counted.
//! * Attributes show keys, never values, and no more than a bounded part of a key. Who reads traces sees keys.

mod context;
mod exporter;
mod operation;
mod sampler;
mod span;
mod tracer;

pub use exporter::Exporter;
pub use operation::{Operated, renewal, watch};
pub use span::{Above, Span, Value};
pub use tracer::Tracer;
