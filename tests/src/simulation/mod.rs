//! Whole members of a cluster on one thread: their cores, logs, machines and disks, a network that loses, delays, repeats
//! and cuts, and clients that forget nothing. One seed decides everything; the same seed gives the same run, bit for bit.
//!
//! ```text
//!   Clients ─► SimulatedNode ─┬─ outcomes ─► Ledger, Model      (equal on all members, nothing lost, nothing twice)
//!      ▲           ▲          └─ messages ─► Network ─► SimulatedNode
//!      └─ answers ─┤             └─ whole states ─► Transfers ─► SimulatedNode
//!   Faults ────────┴── power cuts, restarts, partitions, pauses, slow disks; at the end all heal
//! ```
//!
//! | invariant | where |
//! | --- | --- |
//! | I1 one leader a term | [`cluster`], at every change of role |
//! | I2, I4 same entries with same effects on all members | [`Ledger`](crate::ledger::Ledger), at every applied entry |
//! | I3, I5 nothing acknowledged is lost | the same, and a comparison of every member at the end |
//! | I6 revisions never go back | the same |
//! | I7 linearizable reads | [`clients`], at every read |
//! | I20 liveness | [`cluster`], after the faults |
//! | nothing is applied twice | [`Ledger`](crate::ledger::Ledger): an id is sent once |

pub mod clients;
pub mod cluster;
pub mod faults;
pub mod network;
pub mod transfers;
