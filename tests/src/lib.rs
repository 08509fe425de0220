//! Harness of the system tests: a whole node on a simulated disk and a virtual clock, on one thread.
//!
//! ```text
//!   Workload ─► SimulatedNode ─► Outcome ─► Ledger ─► Model
//!                 │  core, log, apply, sweep, checkpoint: one step or one I/O at a time
//!                 └─► SimulatedDisk ─► power cut ─► SimulatedNode::open
//! ```
//!
//! * [`node_sim`] is the node; a seed decides what advances next, so that a seed replays a run exactly.
//! * [`ledger`] is the client that forgets nothing: what was acknowledged must be there, in every later life.
//! * [`model`] says what a log of requests must come to, as simply as it can be said.

pub mod background;
pub mod ledger;
pub mod model;
pub mod node_sim;
pub mod opening;
pub mod workload;
