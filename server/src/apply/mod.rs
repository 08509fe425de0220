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
//! * What is decided never grows beyond what the rooms below can write down: a request that would make a record longer than its
//!   file, its manifest or a snapshot holds is refused here, by all members alike ([`member_bounds`], [`auth::bounds`]).
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
#[cfg(test)]
mod machine_tests;
pub mod member_bounds;
pub mod members;
mod needed_values;
mod next_version;
pub mod query;
pub mod read_txn;
pub mod txn;
pub mod values;
