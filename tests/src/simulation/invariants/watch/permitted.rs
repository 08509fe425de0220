//! I23: a watcher is told of no entry by a member that did not let it read its keys at that entry or after it; and its watch is
//! ended for want of permission only where it had none.

use basalt_server::apply::auth::error::AuthError;

use super::Wanted;
use crate::auth_history::AuthHistory;
use crate::model::{Access, ModelAuth};

/// For whom a member told something, and between which entries: that up to which it had applied when the stream began, and
/// when it spoke.
#[derive(Clone, Debug)]
pub struct Listener<'a> {
    /// `None` for nobody.
    pub user: Option<&'a str>,
    /// When the stream began.
    pub begun: u64,
    /// When the member spoke.
    pub applied: u64,
}

fn may(auth: &ModelAuth, user: Option<&str>, wanted: &Wanted) -> Result<(), AuthError> {
    auth.may(user, Access::Read, &wanted.key, &wanted.range_end)
}

/// Events up to this revision are told.
///
/// # Panics
/// When the listener might not hear them.
pub fn told(listener: &Listener<'_>, wanted: &Wanted, revision: i64, history: &AuthHistory) {
    let entry = history.entry_of(revision);
    let is_let = history.any(entry, listener.applied, |auth| may(auth, listener.user, wanted).is_ok());
    assert!(is_let, "I23: {listener:?} was told of revision {revision}, which is of entry {entry}, of {wanted:?}");
}

/// A watch ends, or does not begin, for want of permission.
///
/// # Panics
/// When it was never wanting.
pub fn denied(listener: &Listener<'_>, wanted: &[&Wanted], reason: &str, history: &AuthHistory) {
    let is_meant = |error: AuthError| match error {
        AuthError::UserEmpty => reason.ends_with("user name is empty"),
        _ => reason.ends_with("permission denied"),
    };
    let was_denied = |auth: &ModelAuth| wanted.iter().any(|one| may(auth, listener.user, one).is_err_and(is_meant));
    let was_denied = history.any(listener.begun, listener.applied, was_denied);
    assert!(was_denied, "I23: {listener:?} was told {reason:?} of {wanted:?}");
}
