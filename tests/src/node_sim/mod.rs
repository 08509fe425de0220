//! A whole node on one thread: what the server's threads do, cut into pieces of one step or one request to the disk,
//! in an order that a seed draws.
//!
//! ```text
//!   requests ─► SimulatedNode: Core, ticks, order ─► LogSide ─► ApplySide ─► outcomes
//!                                                      ▲           │ frozen state
//!                                                      └──── CheckpointSide     SnapshotSide ◄─ a View
//! ```
//!
//! Consensus, log, machine, checkpoints, opening and the words between them are the server's own; what is said again here
//! is only which thread waits for what.
//!
//! * A life ends by an injected fault and by nothing else ([`Over`](crate::over::Over)): every other failure fails the
//!   test.
//! * Everything in it but the disk is lost in a crash.

mod apply_side;
mod checkpoint_side;
mod log_side;
mod node;
mod overlaps;
mod snapshot_side;
mod transfer_side;

pub use apply_side::Outcome;
pub use node::{Said, SimulatedNode};
pub use overlaps::Overlaps;
pub use snapshot_side::TakenSnapshot;
