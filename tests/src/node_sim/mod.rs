//! A whole node on one thread: what the server's threads do, cut into pieces of one step or one request to the disk,
//! in an order that a seed draws.
//!
//! ```text
//!   requests ─► SimulatedNode: Core, ticks, order ─► LogSide ─► ApplySide ─► outcomes
//!                                                      ▲           │ frozen state
//!                                                      └──── CheckpointSide     SnapshotSide ◄─ a View
//!   other members, watchers, leases ─► cluster_face         WatchSide ◄─ events      LeaseSide ◄─ renewals
//! ```
//!
//! Consensus, log, machine, checkpoints, opening and the words between them are the server's own; what is said again here
//! is only which thread waits for what.
//!
//! Users, roles and tokens are the server's own too: [`auth_side`] asks them what apply thread and API ask.
//!
//! * A life ends by an injected fault and by nothing else ([`Over`](crate::over::Over)): every other failure fails the
//!   test.
//! * Everything in it but the disk is lost in a crash.

mod apply_side;
mod auth_side;
mod carrying;
mod checkpoint_side;
mod cluster_face;
mod leader_losses;
mod lease_side;
mod log_side;
mod member_clock;
mod node;
mod overlaps;
mod said;
mod snapshot_side;
mod transfer_side;
mod turns;
mod watch_side;

pub use apply_side::Outcome;
pub use member_clock::MemberClock;
pub use node::SimulatedNode;
pub use overlaps::Overlaps;
pub use said::{Appended, Said};
pub use snapshot_side::TakenSnapshot;
