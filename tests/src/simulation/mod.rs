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
//! In some seeds clients are users with tokens ([`accounts`]), and some of them change users and roles while others call.
//!
//! What must hold is in [`invariants`], one file each. What goes wrong is known before a run begins ([`schedule`]), so that a
//! run can be repeated without some of it.

pub mod accounts;
pub mod agenda;
pub mod clients;
pub mod cluster;
pub mod faults;
pub mod frames;
pub mod invariants;
pub mod keepers;
pub mod network;
pub mod plan;
pub mod registers;
pub mod report;
pub mod schedule;
pub mod transfers;
pub mod trial;
pub mod watchers;
