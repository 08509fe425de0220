//! Connections: every port of the server is opened, secured, limited and drained here, in one way.
//!
//! ```text
//!   bind ─► accept loop ─► ConnectionLimit ─► TLS handshake ─► first bytes ─► HTTP/1.1 or HTTP/2 ─► service
//!              │ back-off       │ silent give way │ 10 s           │ 10 s           │ request headers 10 s
//! ```
//!
//! Owns sockets, TLS with certificates that are read again when they change, the deadlines of a connection's first
//! seconds, and the settings of HTTP. It knows nothing of gRPC or etcd: requests go to any `tower` service, with a
//! [`ClientConnection`] in their extensions that says who asks. Beside it stands the side that connects, with the same TLS:
//! [`Dial`].
//!
//! An answer with status 101 may leave HTTP/1.1: what goes on then ([`Takeover`]) does so on the connection's own task, with its
//! place, under its stop and its deadlines. Over HTTP/1.1 a client that takes too little of what it asked for is left
//! ([`unread`]), as over HTTP/2 its call is ([`pace`]).
//!
//! What a client may do once it speaks HTTP/2 is judged by [`guard`], frame by frame, and bounded in each turn of its
//! connection by [`coalesced`] and [`turn`]; what `h2` bounds by itself is set in [`http2`].
//!
//! It never lets a peer cost more than a file descriptor and a small buffer before it has spoken: `tonic`'s own accept
//! loop spins when descriptors run out and waits for silent sockets for ever, and a handshake without deadline is
//! CVE-2026-73500 of etcd.
//!
//! Invariants:
//! * Each connection holds a permit of a [`ConnectionLimit`] from accept to close: of the one of all clients, or of the one
//!   of members, which no crowd of clients can use up. So files and logs always find descriptors. Where all are taken, who was
//!   not heard yet gives way.
//! * A common name is reported only if client certificates are asked for and this one was verified.
//! * [`Listener::serve`] owns the tasks of its connections: when it returns, none is left.

mod accept;
mod allowed_names;
mod any_certificate;
mod bind;
mod call;
mod client_certificates;
mod client_pings;
mod coalesced;
mod common_name;
mod connection;
mod control_budget;
mod dial;
mod error;
#[doc(hidden)]
pub mod foreign;
mod frame_heads;
mod generated;
mod guard;
mod handshakes;
mod http2;
#[cfg(test)]
mod http2_tests;
mod limit;
mod pace;
mod peer_tls;
#[cfg(test)]
mod places_tests;
mod remote_address;
mod request_body;
mod request_room;
mod server_certificates;
mod service_tls;
mod takeover;
#[cfg(test)]
mod tests;
mod tls;
mod transport;
mod turn;
mod unread;

pub use accept::{Deadlines, Endpoint, ListenOptions, Listener};
pub use call::{Part, Patient};
pub use connection::ClientConnection;
pub use dial::{ClientTls, Dial};
pub use error::ListenError;
pub use generated::ensure as ensure_certificate;
pub use handshakes::Handshakes;
pub use limit::ConnectionLimit;
pub use pace::{Hurry, Unhurried};
pub use peer_tls::PeerTlsClient;
pub use request_body::RequestBody;
pub use request_room::{HeldRequest, LargePage, OpenCall, RequestRoom, RequestRooms, WaitingRequest};
pub use service_tls::ServiceTls;
pub use takeover::{Takeover, Upgraded};
pub use tls::Tls;
