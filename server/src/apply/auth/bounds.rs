//! How long what is known of users and roles may be: all of it is in memory on every member and goes to a lagging one at once, and a
//! name beyond what a snapshot holds would end snapshots.

use basalt_storage::snapshot::bbolt::KEY_BYTES_MAX;

use super::error::AuthError;

/// Bytes of the name of a user or role, which is a key in a snapshot. etcd's process ends at a longer one.
pub const NAME_BYTES_MAX: usize = KEY_BYTES_MAX;
/// Bytes of one user with its roles, or of one role with its permissions: 10,000 permissions have 400 bytes each.
pub const RECORD_BYTES_MAX: usize = 4 << 20;
/// Bytes of all users and roles.
pub const ALL_BYTES_MAX: usize = 64 << 20;

const _: () = assert!(NAME_BYTES_MAX < RECORD_BYTES_MAX && RECORD_BYTES_MAX < ALL_BYTES_MAX);

/// Whether a user or role may have this name.
///
/// # Errors
/// [`AuthError::NameTooLong`].
pub(super) fn check_name(name: &str) -> Result<(), AuthError> {
    if name.len() <= NAME_BYTES_MAX { Ok(()) } else { Err(AuthError::NameTooLong) }
}

/// Whether a record of `before` bytes, 0 for a new one, may come to have `after`, where all have `all` together. What came from
/// elsewhere may be longer: that it grows no shorter is no reason to refuse what makes it no longer.
///
/// # Errors
/// [`AuthError::RecordTooLong`], [`AuthError::TooManyBytes`].
pub(super) fn check_growth(before: usize, after: usize, all: usize) -> Result<(), AuthError> {
    let grown = after.saturating_sub(before);
    if grown == 0 {
        return Ok(());
    }
    if after > RECORD_BYTES_MAX {
        return Err(AuthError::RecordTooLong);
    }
    if all + grown > ALL_BYTES_MAX { Err(AuthError::TooManyBytes) } else { Ok(()) }
}
