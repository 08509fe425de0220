//! Harness of the system tests: a whole node on a simulated disk and a virtual clock, on one thread.
//!
//! ```text
//!   Workload ─► Client ─► SimulatedNode ─► Outcome ─► Ledger ─► Model
//!                           │  core, log, apply, sweep, checkpoint: one step or one I/O at a time
//!                           └─► SimulatedDisk ─► power cut ─► SimulatedNode::open
//! ```
//!
//! * [`node_sim`] is the node; a seed decides what advances next, so that a seed replays a run exactly.
//! * [`over`] says when a node may end: by a fault that the test injected, and by nothing else.
//! * [`ledger`] is what a client that forgets nothing knows: what was acknowledged must be there, in every later life,
//!   and nothing but what was sent.
//! * [`anatomy`] says what each byte of a data directory is, and [`stored`] reads all of it: for flipped bits.
//! * [`simulation`] is many nodes, a network between them, and clients: whatever fails, the invariants hold.
//! * [`auth_history`] is what was known of users, roles and tokens after each entry.
//! * [`model`] says what a log of requests must come to, as simply as it can be said.

pub mod anatomy;
pub mod auth_history;
pub mod background;
pub mod client;
pub mod ledger;
pub mod model;
pub mod node_sim;
pub mod opening;
pub mod over;
pub mod simulation;
pub mod stored;
pub mod workload;
