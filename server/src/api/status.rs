//! The only place that knows etcd's error codes and texts (etcd-contract 3.0). clientv3 matches by text, so both are
//! exact.

use basalt_proto::TXN_NESTING_MAX;

use crate::apply::answer::Refusal;
use crate::apply::auth::bounds::{ALL_BYTES_MAX, NAME_BYTES_MAX, RECORD_BYTES_MAX};
use crate::apply::member_bounds::MemberBound;
use crate::node::gather::ANSWER_BYTES_MAX;
use crate::node::handle::Unavailable;

/// gRPC status codes by their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)] // the names are gRPC's
pub enum Code {
    Ok = 0,
    Canceled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
    Unauthenticated = 16,
}

impl Code {
    /// gRPC's word for it, as metrics label it.
    pub fn name(self) -> &'static str {
        match self {
            Code::Ok => "OK",
            Code::Canceled => "Canceled",
            Code::Unknown => "Unknown",
            Code::InvalidArgument => "InvalidArgument",
            Code::DeadlineExceeded => "DeadlineExceeded",
            Code::NotFound => "NotFound",
            Code::PermissionDenied => "PermissionDenied",
            Code::ResourceExhausted => "ResourceExhausted",
            Code::FailedPrecondition => "FailedPrecondition",
            Code::OutOfRange => "OutOfRange",
            Code::Unimplemented => "Unimplemented",
            Code::Internal => "Internal",
            Code::Unavailable => "Unavailable",
            Code::DataLoss => "DataLoss",
            Code::Unauthenticated => "Unauthenticated",
        }
    }
}

/// Why a call failed, as the client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The code.
    pub code: Code,
    /// The text.
    pub message: String,
}

impl Status {
    /// A status.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

macro_rules! statuses {
    ($($(#[$doc:meta])* $name:ident = $code:ident, $text:literal;)*) => {
        $($(#[$doc])* pub fn $name() -> Status { Status::new(Code::$code, $text) })*
    };
}

statuses! {
    /// A request without a key.
    empty_key = InvalidArgument, "etcdserver: key is not provided";
    /// An operation without content, or a put that keeps what is not there.
    key_not_found = InvalidArgument, "etcdserver: key not found";
    /// A value beside `ignore_value`.
    value_provided = InvalidArgument, "etcdserver: value is provided";
    /// A lease beside `ignore_lease`.
    lease_provided = InvalidArgument, "etcdserver: lease is provided";
    /// Above `--max-txn-ops`.
    too_many_ops = InvalidArgument, "etcdserver: too many operations in txn request";
    /// Two puts of a key, or a put inside a deleted range.
    duplicate_key = InvalidArgument, "etcdserver: duplicate key given in txn request";
    /// A sort enum that is none.
    invalid_sort_option = InvalidArgument, "etcdserver: invalid sort option";
    /// Above `--max-request-bytes`.
    request_too_large = InvalidArgument, "etcdserver: request is too large";
    /// Below the compact revision.
    compacted = OutOfRange, "etcdserver: mvcc: required revision has been compacted";
    /// Above the store's revision.
    future_revision = OutOfRange, "etcdserver: mvcc: required revision is a future revision";
    /// Above the longest lease.
    lease_ttl_too_large = OutOfRange, "etcdserver: too large lease TTL";
    /// The quota is used up.
    no_space = ResourceExhausted, "etcdserver: mvcc: database space exceeded";
    /// Too many entries committed and not applied. etcd's map names the form of this error that its clients know, which has
    /// no code on the wire (etcd-contract 41).
    too_many_requests = Unknown, "etcdserver: too many requests";
    /// No such lease.
    lease_not_found = NotFound, "etcdserver: requested lease not found";
    /// A lease of that id exists.
    lease_exists = FailedPrecondition, "etcdserver: lease already exists";
    /// No such member.
    member_not_found = NotFound, "etcdserver: member not found";
    /// A member of that id is there.
    member_exists = FailedPrecondition, "etcdserver: member ID already exist";
    /// Another member is reached there.
    peer_url_exists = FailedPrecondition, "etcdserver: Peer URLs already exists";
    /// Too few voters have ever started. In etcd's map like [`too_many_requests`].
    member_not_enough_started = Unknown, "etcdserver: re-configuration failed due to not enough started members";
    /// Metadata `client-api-version` that is no text.
    invalid_client_version = InvalidArgument, "etcdserver: invalid client api version";
    /// Peer URLs that are none.
    member_bad_urls = InvalidArgument, "etcdserver: given member URLs are invalid";
    /// It votes already.
    member_not_learner = FailedPrecondition, "etcdserver: can only promote a learner member";
    /// A learner that lacks more than a tenth.
    learner_not_ready = FailedPrecondition, "etcdserver: can only promote a learner member which is in sync with leader";
    /// As many learners as there may be.
    too_many_learners = FailedPrecondition, "etcdserver: too many learner members in cluster";
    /// This member serves little while it has no vote.
    not_for_learners = FailedPrecondition, "etcdserver: rpc not supported for learner";
    /// Too few members are reached for a change of them.
    unhealthy = Unavailable, "etcdserver: unhealthy cluster";
    /// The CORRUPT alarm is armed.
    corrupt = DataLoss, "etcdserver: corrupt cluster";
    /// Stored bytes are not what was written.
    damaged = DataLoss, "basalt: stored data is damaged; see the server's log";
    /// The server is going down.
    stopped = Unavailable, "etcdserver: server stopped";
    /// Not taken in time, for want of a leader.
    deadline_exceeded = DeadlineExceeded, "context deadline exceeded";
    /// A call took longer than it may.
    timed_out = Unavailable, "etcdserver: request timed out";
    /// The same, and its leader was lost meanwhile.
    timed_out_after_leader_failure = Unavailable, "etcdserver: request timed out, possibly due to previous leader failure";
    /// The same, and whoever orders requests was not reached all the time.
    timed_out_without_connection = Unavailable, "etcdserver: request timed out, possibly due to connection lost";
    /// This member does not lead.
    not_leader = FailedPrecondition, "etcdserver: not leader";
    /// No voter has that id.
    bad_leader_transferee = FailedPrecondition, "etcdserver: bad leader transferee";
    /// The new leader did not take over in time. etcd's map misses this error (etcd-contract 41).
    leader_transfer_timed_out = Unknown, "etcdserver: request timed out, leader transfer took too long";
    /// Another leads than at the beginning of the call, or nobody does.
    leader_changed = Unavailable, "etcdserver: leader changed";
    /// Nobody leads.
    no_leader = Unavailable, "etcdserver: no leader";
    /// To turn authentication on takes a user root.
    root_user_missing = FailedPrecondition, "etcdserver: root user does not exist";
    /// And its role root.
    root_role_missing = FailedPrecondition, "etcdserver: root user does not have root role";
    /// A user of that name is there.
    user_exists = FailedPrecondition, "etcdserver: user name already exists";
    /// Nobody asks.
    user_empty = InvalidArgument, "etcdserver: user name is empty";
    /// No such user.
    user_not_found = FailedPrecondition, "etcdserver: user name not found";
    /// A role of that name is there.
    role_exists = FailedPrecondition, "etcdserver: role name already exists";
    /// No such role.
    role_not_found = FailedPrecondition, "etcdserver: role name not found";
    /// A role without a name.
    role_empty = InvalidArgument, "etcdserver: role name is empty";
    /// Name and password do not go together.
    authentication_failed = InvalidArgument, "etcdserver: authentication failed, invalid user ID or password";
    /// A grant of nothing.
    permission_missing = InvalidArgument, "etcdserver: permission not given";
    /// The user may not do that.
    permission_denied = PermissionDenied, "etcdserver: permission denied";
    /// The user does not have that role.
    role_not_granted = FailedPrecondition, "etcdserver: role is not granted to the user";
    /// The role does not have that permission.
    permission_not_granted = FailedPrecondition, "etcdserver: permission is not granted to the role";
    /// A token that is none, or none any more.
    invalid_token = Unauthenticated, "etcdserver: invalid auth token";
    /// It would lock everybody out, or names no range.
    invalid_auth_management = InvalidArgument, "etcdserver: invalid auth management";
    /// Users or roles changed since the token was made, or since the request was let through.
    old_auth_revision = InvalidArgument, "etcdserver: revision of auth store is old";
    /// Its lease ended while it waited for a lock. etcd gives errors of its services over the store this code.
    session_expired = Unknown, "mutex: session is expired";
    /// A proclamation of who does not lead.
    election_not_leader = Unknown, "election: not leader";
    /// Nobody campaigns.
    election_without_leader = Unknown, "election: no leader";
    /// A proclamation or resignation of nobody.
    leader_missing = Unknown, "\"leader\" field must be provided";
    /// A user without a password shows or gets one. etcd's map misses this error.
    no_password = Unknown, "auth: authentication failed, password was given for no password user";
    /// A downgrade to what is no version.
    downgrade_version_format = InvalidArgument, "etcdserver: wrong downgrade target version format";
    /// A downgrade by more than one release, or to none below.
    downgrade_target = InvalidArgument, "etcdserver: invalid downgrade target version";
    /// A second downgrade.
    downgrade_under_way = FailedPrecondition, "etcdserver: cluster has a downgrade job in progress";
    /// A downgrade action that is none. etcd's map misses this error.
    unknown_method = Unknown, "etcdserver: unknown method";
    /// Of auth calls while it is off.
    auth_not_enabled = FailedPrecondition, "etcdserver: authentication is not enabled";
}

/// Transactions nested deeper than the log can be read back.
pub fn nested_too_deep() -> Status {
    let text = format!("basalt: transactions are nested more than {TXN_NESTING_MAX} deep; nest them less");
    Status::new(Code::InvalidArgument, text)
}

/// A name that no snapshot could hold.
pub fn name_too_long() -> Status {
    let text = format!("basalt: the name of a user or role has at most {NAME_BYTES_MAX} bytes");
    Status::new(Code::InvalidArgument, text)
}

/// A user with too many roles, or a role with too many permissions.
pub fn auth_record_too_long() -> Status {
    let text = format!(
        "basalt: a user with its roles, or a role with its permissions, has at most {RECORD_BYTES_MAX} bytes: use several, or wider ranges"
    );
    Status::new(Code::InvalidArgument, text)
}

/// Too many users and roles.
pub fn auth_too_large() -> Status {
    let text = format!("basalt: all users and roles together have at most {ALL_BYTES_MAX} bytes: delete some");
    Status::new(Code::FailedPrecondition, text)
}

/// An answer above what gRPC sends at once, in grpc-go's words (etcd-contract 40).
pub fn answer_too_large(bytes: usize) -> Status {
    let text = format!("grpc: trying to send message larger than max ({bytes} vs. {ANSWER_BYTES_MAX})");
    Status::new(Code::ResourceExhausted, text)
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::KeyNotFound => key_not_found(),
            Refusal::LeaseNotFound => lease_not_found(),
            Refusal::LeaseExists => lease_exists(),
            Refusal::LeaseTtlTooLarge => lease_ttl_too_large(),
            Refusal::Compacted => compacted(),
            Refusal::FutureRevision => future_revision(),
            Refusal::NoSpace => no_space(),
            Refusal::Corrupt => corrupt(),
            Refusal::MemberNotFound => member_not_found(),
            Refusal::MemberExists => member_exists(),
            Refusal::PeerUrlExists => peer_url_exists(),
            Refusal::TooManyLearners => too_many_learners(),
            Refusal::NotALearner => member_not_learner(),
            Refusal::LearnerNotReady => learner_not_ready(),
            Refusal::LastVoter => {
                Status::new(Code::FailedPrecondition, "basalt: the only voting member cannot be removed")
            }
            Refusal::MemberWiped => Status::new(Code::FailedPrecondition, "basalt: the member has lost its data"),
            Refusal::MemberBound(bound) => bound.into(),
            Refusal::Auth(error) => error.into(),
            Refusal::DowngradeTarget => downgrade_target(),
            Refusal::DowngradeUnderWay => downgrade_under_way(),
            Refusal::UnknownAlarmAction => Status::new(Code::InvalidArgument, "basalt: unknown alarm action"),
        }
    }
}

impl From<MemberBound> for Status {
    fn from(bound: MemberBound) -> Self {
        let code = match bound {
            MemberBound::Member => Code::InvalidArgument,
            MemberBound::Cluster => Code::FailedPrecondition,
        };
        Status::new(code, format!("basalt: {bound}"))
    }
}

impl From<Unavailable> for Status {
    fn from(error: Unavailable) -> Self {
        match error {
            Unavailable::Stopped => stopped(),
            Unavailable::LeaderChanged => leader_changed(),
            Unavailable::TimedOut => timed_out(),
            Unavailable::TooManyRequests => too_many_requests(),
            Unavailable::TooLarge => request_too_large(),
            Unavailable::AnswerTooLarge { bytes } => answer_too_large(bytes),
            Unavailable::NotRead => Status::new(
                Code::DeadlineExceeded,
                "basalt: the snapshot was not read for 60 s and was given up; take it again",
            ),
            Unavailable::NotInSnapshot => Status::new(
                Code::FailedPrecondition,
                "basalt: a record is longer than a snapshot can hold; see the server's log",
            ),
            Unavailable::Damaged => damaged(),
            Unavailable::Refused(refusal) => refusal.into(),
        }
    }
}
