//! When leases end: the clock that the leader alone runs.
//!
//! The replicated table of leases (ids, time to live, attached keys) belongs to apply and is equal on all members. What
//! stands here is local and volatile: the moment at which each lease expires on this member's monotonic clock.
//!
//! ```text
//!   promote(table) ─► LeaseClock ─ expired ─────► the node proposes revokes ─► forget
//!   grant, renew ──►      │ ────── checkpoints ─► the node proposes remainders ─► checkpointed
//!                         └─ demote: all of it is dropped
//! ```
//!
//! It never reads a clock, never proposes, never deletes a key, and a follower's clock is empty.
//!
//! Invariants:
//! * A lease is never called expired before its last answered renewal plus its full time to live, also not under the
//!   next leader: a renewal over a checkpointed remainder is answered only after the remainder's clearing is committed.
//! * A renewal is answered only after a quorum has confirmed that its member still led (`api/lease.rs`): the clock of one that
//!   was replaced unheard says nothing.
//! * An expired lease cannot be renewed; only its revoke ends it (etcd-contract 35).
//! * At most [`LeaseClockConfig::revokes_in_flight_max`] revokes are under way at any time.

mod clock;
#[cfg(test)]
mod clock_tests;

pub use clock::{LeaseClock, LeaseClockConfig, REVOKES_IN_FLIGHT_MAX, Renewal};
