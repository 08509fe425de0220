//! Why users, roles or permissions stand in the way. The texts for clients stand in `crate::api::status`.

use thiserror::Error;

/// A refusal of this room.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum AuthError {
    /// To turn authentication on takes a user of this name.
    #[error("no user root")]
    RootUserMissing,
    /// To turn authentication on takes this role of the user root.
    #[error("the user root has no role root")]
    RootRoleMissing,
    /// A user of that name is there.
    #[error("user exists")]
    UserExists,
    /// Nobody asks, or a user without a name.
    #[error("no user name")]
    UserEmpty,
    /// No such user.
    #[error("user not found")]
    UserNotFound,
    /// A role of that name is there.
    #[error("role exists")]
    RoleExists,
    /// No such role.
    #[error("role not found")]
    RoleNotFound,
    /// A role without a name.
    #[error("no role name")]
    RoleEmpty,
    /// The name of a user or role is longer than [`NAME_BYTES_MAX`](super::bounds::NAME_BYTES_MAX).
    #[error("name too long")]
    NameTooLong,
    /// A user's or role's record would be longer than [`RECORD_BYTES_MAX`](super::bounds::RECORD_BYTES_MAX).
    #[error("record of a user or role too long")]
    RecordTooLong,
    /// All of them would be longer than [`ALL_BYTES_MAX`](super::bounds::ALL_BYTES_MAX).
    #[error("users and roles too long together")]
    TooManyBytes,
    /// A grant of nothing.
    #[error("no permission given")]
    PermissionMissing,
    /// Name and password do not go together.
    #[error("authentication failed")]
    AuthenticationFailed,
    /// A user without a password has none to be checked or set.
    #[error("a user without a password")]
    NoPassword,
    /// The user may not do that.
    #[error("permission denied")]
    PermissionDenied,
    /// The user does not have that role.
    #[error("role not granted")]
    RoleNotGranted,
    /// The role does not have that permission.
    #[error("permission not granted")]
    PermissionNotGranted,
    /// Authentication is off.
    #[error("authentication is off")]
    NotEnabled,
    /// Users or roles changed since the request was let through.
    #[error("old revision of users and roles")]
    OldRevision,
    /// A token that is none, or none any more.
    #[error("invalid token")]
    InvalidToken,
    /// It would lock everybody out, or names no range.
    #[error("invalid management of users and roles")]
    InvalidManagement,
}
