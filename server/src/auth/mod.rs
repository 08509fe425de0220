//! Who a caller is: what clients show of themselves, and what this member makes of it.
//!
//! ```text
//!   metadata, certificate ──► Credentials ──► Auth::identify ──► Caller ──► Principal, for the log
//!   name and password ──► passwords ──► an Authentication in the log ──► Tokens of every member
//! ```
//!
//! * What a caller may do is not decided here: [`crate::apply::auth`] does that, by replicated state.
//! * A password is in memory for the time of its call, and nowhere else: the log has its hash, lines of log nothing.
//! * Tokens of the simple kind are each member's own memory, and end with it; the log has digests of them only. They live by the
//!   monotonic clock. Those that say themselves whose they are ([`jwt`]) need no memory, and live by the wall clock.
//!
//! It pushes to nobody, and knows no method of the API.

pub mod caller;
pub mod jwt;
mod jwt_rotation;
mod now;
mod passwords;
mod provider;
mod tokens;

pub use caller::{Caller, Credentials};
pub use jwt_rotation::RotatingKeys;
pub use now::{Auth, Identified};
pub use passwords::{HashingError, Passwords, ShownPassword};
pub use provider::{TokenKind, TokenProvider};
pub use tokens::{Secret, Tokens};
