//! Whether two lists of URLs lead to the same addresses, as etcd 3.7 tells (`pkg/netutil`): by their texts, or else by where the
//! names of their hosts lead.
//!
//! ```text
//!   a new cluster's flags ─► advertised ─┐
//!                                        ├─► lookups ─► origin
//!   members of a running one (peer) ─────┘      └─────► hosts ─► the system's resolver
//! ```
//!
//! Owns how hosts are looked up for that, and for how long. It connects to nothing, and keeps nothing: where a name leads may
//! change.
//!
//! Invariants:
//! * What is equal as it is written is never looked up: such a start needs no resolver.
//! * `localhost` is not looked up, as in etcd: it is nothing but itself.
//! * All lookups of one question have ended 30 s after it was asked, whatever the resolver does.

mod advertised;
mod hosts;
mod lookups;
mod origin;

pub use advertised::expect_advertised;
pub use hosts::{Hosts, SystemHosts};
pub use lookups::Lookups;
