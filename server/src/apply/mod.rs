//! The replicated state machine.
//!
//! ```text
//!   LogEntry ──► Machine::apply ──► evaluate ──► Effects ──► install ──► Store
//!                      └──► Answer (numbers, and where the values to show are stored)
//! ```
//!
//! * Nothing but [`effects::Effect`] changes state, and what a request changes is decided before anything is.
//! * Apply reads indexes, not disks: values that a decision needs are handed in by [`values::Values`]; values that an
//!   answer shows are named by it and fetched later, elsewhere.
//! * No clock, thread, randomness or hash order in here: all members come to equal effects.
//!
//! It pushes to nobody: the driver takes answers and effects and hands them on.

pub mod alarms;
pub mod answer;
pub mod auth;
pub mod downgrade;
pub mod effects;
pub mod known;
pub mod latest;
pub mod lease_table;
pub mod machine;
pub mod members;
mod needed_values;
mod next_version;
pub mod query;
pub mod read_txn;
pub mod txn;
pub mod values;
