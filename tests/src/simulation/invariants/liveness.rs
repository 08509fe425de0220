//! I20: when all faults are over and a majority is healthy, writes succeed and all members come to the same state.

use std::time::Duration;

/// How long a healed cluster may take to agree: ten election timeouts, and what it has to catch up.
pub const AGREEMENT: Duration = Duration::from_secs(40);

/// Writes that must succeed.
pub const WRITES: usize = 20;

/// A healed cluster is where it is `spent` after it healed.
///
/// # Panics
/// When it took too long; `state` says where everybody is.
pub fn within(spent: Duration, state: impl FnOnce() -> String) {
    assert!(spent < AGREEMENT, "I20: a healed cluster does not come to agree: {}", state());
}
