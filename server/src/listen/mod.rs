//! Connections: every port of the server is opened, secured, limited and drained here, in one way.
//!
//! ```text
//!   bind ─► accept loop ─► ConnectionLimit ─► TLS handshake ─► first bytes ─► HTTP/1.1 or HTTP/2 ─► service
//!              │ back-off       │ closed          │ 10 s           │ 10 s           │ request headers 10 s
//! ```
//!
//! Owns sockets, TLS with certificates that are read again when they change, the deadlines of a connection's first
//! seconds, and the settings of HTTP. It knows nothing of gRPC or etcd: requests go to any `tower` service, with a
//! [`ClientConnection`] in their extensions that says who asks. Beside it stands the side that connects, with the same TLS:
//! [`Dial`].
//!
//! It never lets a peer cost more than a file descriptor and a small buffer before it has spoken: `tonic`'s own accept
//! loop spins when descriptors run out and waits for silent sockets for ever, and a handshake without deadline is
//! CVE-2026-73500 of etcd.
//!
//! Invariants:
//! * Each connection holds a permit of the one [`ConnectionLimit`] of the process from accept to close, so that files
//!   and logs always find descriptors.
//! * A common name is reported only if client certificates are asked for and this one was verified.
//! * [`Listener::serve`] owns the tasks of its connections: when it returns, none is left.

mod accept;
mod allowed_names;
mod bind;
mod call;
mod client_certificates;
mod coalesced;
mod connection;
mod dial;
mod error;
#[doc(hidden)]
pub mod foreign;
mod http2;
#[cfg(test)]
mod http2_tests;
mod limit;
mod peer_tls;
mod request_body;
mod service_tls;
#[cfg(test)]
mod tests;
mod tls;
mod transport;

pub use accept::{Deadlines, ListenOptions, Listener};
pub use connection::ClientConnection;
pub use dial::{ClientTls, Dial};
pub use error::ListenError;
pub use limit::ConnectionLimit;
pub use peer_tls::PeerTlsClient;
pub use request_body::RequestBody;
pub use service_tls::ServiceTls;
pub use tls::Tls;
