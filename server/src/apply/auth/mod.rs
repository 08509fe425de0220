//! Users, roles and what they may do: replicated, and asked before a request changes anything.
//!
//! ```text
//!   records of the system store ──► AuthState ──► Permissions of each user
//!   a request about users or roles ──► AuthState::evaluate ──► records (effects)
//!   any other request, and on whose behalf ──► AuthState::check ──► go on, or why not
//! ```
//!
//! * Nobody is let through by default: while authentication is on, a request without a principal is refused, and a kind of
//!   request that has no rule in [`check`] does not compile.
//! * Passwords come here hashed. Tokens do not come here at all: they are each member's own (`crate::auth`).
//! * What is decided here is decided by replicated state alone, so that all members agree (etcd-contract 49).
//! * Names, records and all of them together have bounds ([`bounds`]), asked where something grows: what is stored can be
//!   written down, sent to another member and saved in a snapshot.
//! * What a request costs here grows with what it says and what it changes, not with the product of both: a lease is judged once
//!   for a request, and the ranges of a user are joined anew once for a request that changed them.
//!
//! It knows no clock, no connection and no token.

pub mod bounds;
pub mod check;
pub mod error;
mod management;
pub mod permissions;
pub mod state;

#[cfg(test)]
mod tests;
