//! What holds whatever fails, by the numbers of the list that `docs/faults.md` has. Each file is one of them: it takes what
//! happened, and panics where it cannot be.
//!
//! | | |
//! | --- | --- |
//! | I1 | [`one_leader`] |
//! | I2 | [`log_matching`] |
//! | I3 | [`leader_completeness`] |
//! | I4, I5 | [`Ledger`](crate::ledger::Ledger): the same entries with the same answers and effects on all members, all that was acknowledged in every later life, nothing twice |
//! | I6 | [`revisions`] |
//! | I7, I8 | [`reads`], and [`linearizable`] by a search |
//! | I9 to I14 | [`watch`] |
//! | I15 | [`leases`] |
//! | I16 | [`compaction`] |
//! | I17 | [`recovery`] |
//! | I18 | [`checksums`] |
//! | I19 | [`bounds`] |
//! | I20 | [`liveness`] |
//! | I21 | [`permissions`], and the [`Ledger`](crate::ledger::Ledger) for what is applied |
//! | I22 | [`AuthHistory`](crate::auth_history::AuthHistory) |
//! | I23 | [`watch::permitted`] |
//! | I24 | in the simulated node, at the streams that asked for a leader |

pub mod bounds;
pub mod checksums;
pub mod compaction;
pub mod leader_completeness;
pub mod leases;
pub mod linearizable;
pub mod liveness;
pub mod log_matching;
pub mod one_leader;
pub mod permissions;
pub mod reads;
pub mod recovery;
pub mod revisions;
pub mod watch;
