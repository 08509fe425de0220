//! Who is ordered next, and who is told to come back: proposals wait in a queue for each shard until the core packs them
//! into log entries, so that a storm of events does not hurt pods (DESIGN D1).
//!
//! ```text
//!   caller ──► Gate: within the bounds of its class? ──► FairQueue: a queue for each class ──► log entry
//!                 ▲ how much has left                          │ a turn each, by bytes and weight
//!                 └────────────────────────────────────────────┘
//! ```
//!
//! * Proposals of one class leave in the order in which they came. Between classes no order is promised before an answer.
//! * A class that waits gets its turn in every round, however much others bring.
//! * What gives space back or keeps the cluster going (deletes, compaction, ends of leases, alarms) is refused only behind
//!   a bound twice that of others, and never for the delta.
//!
//! It orders nothing itself, knows neither Raft nor threads, and never waits.

mod class;
mod fair_queue;
mod gate;

#[cfg(test)]
mod tests;

pub use class::{Class, Proposal};
pub use fair_queue::{FairQueue, Totals};
pub use gate::{BYTES_WAITING_MAX, ClassLoad, Full, Gate, PROPOSALS_WAITING_MAX};
