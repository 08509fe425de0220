//! Other members: what this one says to them, and what it lets them say.
//!
//! ```text
//!   node thread ─► Peers ─► Lane: queue ─► connection ─► stream of batches ══► peer_edge ─► checks ─► node thread
//!                              └ full, or cut: lost, and the node is told
//! ```
//!
//! * Two lanes lead to each member, each with a connection of its own: what is urgent (heartbeats, votes, reads and all
//!   answers) never waits behind entries.
//! * Nothing here waits for the node, and the node waits for nothing here: queues are bounded by bytes, and what does not fit
//!   is lost, which Raft expects.
//! * Keepalives of this member's clients go to the leader together ([`renewals`]).
//! * A whole state goes over a connection of its own, at a bounded rate, and goes on where it was cut off.
//! * A stream begins with a hello. Whoever is of another cluster, no member, or speaks a newer protocol is refused with one
//!   clear line on both sides; so is a batch whose checksum does not hold.
//! * What a member says is data: it ends its stream at worst.

mod arrivals;
mod ask;
mod connect;
mod departure;
pub mod frame;
mod join;
mod lane;
mod meters;
mod peers;
mod probe;
mod renewals;

pub use arrivals::{Arrival, ArrivalError, Arrivals};
pub use connect::{PeerConnector, PeerPings};
pub use join::{Joined, join, refuse_known};
pub use meters::{ReceivedMeters, StateMeters};
pub use peers::Peers;
pub use renewals::{RENEWALS_MAX, TAKES_LONGER};
