//! Points at which a test makes this program stop, sleep or fail, by gofail's protocol, so that etcd's own tools do it
//! (etcd-contract 5). They exist only in builds with the feature `failpoints`, which is refused in a release; without it a
//! point is nothing.
//!
//! ```text
//!   GOFAIL_FAILPOINTS, GOFAIL_HTTP ──► http ──► registry: terms of each point ◄── hit, by every thread
//! ```
//!
//! * Points have the names that etcd gives to the place of the same meaning. A name that etcd has and we have not has no place
//!   here, and is not offered: tools look for a name before they use it.
//! * Where to stop is the caller's: only what drives I/O has points, never the pure rooms.

#[cfg(all(feature = "failpoints", not(debug_assertions)))]
compile_error!("failpoints let anybody who reaches a port stop the process: never in a release");

#[cfg(feature = "failpoints")]
mod http;
#[cfg(feature = "failpoints")]
mod registry;
#[cfg(feature = "failpoints")]
mod terms;

#[cfg(feature = "failpoints")]
pub use registry::start;

macro_rules! points {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// A point, named as etcd's that stands in a like place.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[cfg_attr(not(feature = "failpoints"), allow(dead_code))]
        pub enum Point {
            $($(#[$doc])* $name,)*
        }

        #[cfg(feature = "failpoints")]
        impl Point {
            /// All of them, in the order of their numbers.
            const ALL: &'static [Point] = &[$(Point::$name,)*];

            /// etcd's name.
            fn name(self) -> &'static str {
                match self {
                    $(Point::$name => $text,)*
                }
            }
        }
    };
}

points! {
    /// Entries and votes are about to be written.
    RaftBeforeSave = "raftBeforeSave",
    /// They are durable.
    RaftAfterSave = "raftAfterSave",
    /// The log is about to be synced.
    WalBeforeSync = "walBeforeSync",
    /// It is.
    WalAfterSync = "walAfterSync",
    /// A leader is about to send messages.
    RaftBeforeLeaderSend = "raftBeforeLeaderSend",
    /// A follower is.
    RaftBeforeFollowerSend = "raftBeforeFollowerSend",
    /// What one turn of consensus came to was handed out.
    RaftBeforeAdvance = "raftBeforeAdvance",
    /// Heartbeats, and answers to them, are lost while this returns.
    RaftDropHeartbeat = "raftDropHeartbeat",
    /// Segments below a checkpoint were recycled.
    RaftAfterWalRelease = "raftAfterWALRelease",
    /// A checkpoint is about to be begun.
    RaftBeforeSaveSnap = "raftBeforeSaveSnap",
    /// It is written.
    RaftAfterSaveSnap = "raftAfterSaveSnap",
    /// The state of another member is about to be installed.
    RaftBeforeApplySnap = "raftBeforeApplySnap",
    /// It is.
    RaftAfterApplySnap = "raftAfterApplySnap",
    /// It is about to be opened.
    ApplyBeforeOpenSnapshot = "applyBeforeOpenSnapshot",
    /// It is open.
    ApplyAfterOpenSnapshot = "applyAfterOpenSnapshot",
    /// A change of members is about to be applied.
    BeforeApplyOneConfChange = "beforeApplyOneConfChange",
    /// Any other entry is.
    BeforeApplyOneEntryNormal = "beforeApplyOneEntryNormal",
    /// The member is about to say who it is.
    BeforePublishing = "beforePublishing",
    /// A checkpoint is about to be made durable.
    BeforeCommit = "beforeCommit",
    /// It is.
    AfterCommit = "afterCommit",
    /// `Defragment` is about to rewrite.
    DefragBeforeCopy = "defragBeforeCopy",
    /// `Defragment` fails while this returns.
    DefragOpenFileError = "defragOpenFileError",
    /// A step of a compaction is about to drop revisions.
    CompactBeforeCommitBatch = "compactBeforeCommitBatch",
    /// It has.
    CompactAfterCommitBatch = "compactAfterCommitBatch",
    /// A compaction is about to be applied.
    CompactBeforeCommitScheduledCompact = "compactBeforeCommitScheduledCompact",
    /// It is.
    CompactAfterCommitScheduledCompact = "compactAfterCommitScheduledCompact",
    /// The last step of a compaction is done.
    CompactBeforeSetFinishedCompact = "compactBeforeSetFinishedCompact",
    /// Whoever waits for it knows.
    CompactAfterSetFinishedCompact = "compactAfterSetFinishedCompact",
    /// Messages of watches are about to go to their connections.
    BeforeSendWatchResponse = "beforeSendWatchResponse",
    /// The watch room is about to look at its clock.
    BeforeSyncWatchers = "beforeSyncWatchers",
    /// A manual request for progress is about to be looked at.
    BeforeProgressIfSync = "beforeProgressIfSync",
    /// A lease's time is about to be looked up.
    BeforeLookupWhenLeaseTimeToLive = "beforeLookupWhenLeaseTimeToLive",
    /// The same for another member.
    BeforeLookupWhenForwardLeaseTimeToLive = "beforeLookupWhenForwardLeaseTimeToLive",
    /// A keepalive that came from another member is about to be done.
    BeforeServeHttpLeaseRenew = "beforeServeHTTPLeaseRenew",
    /// A keepalive is about to have the remainder of its lease forgotten.
    BeforeCheckpointInLeaseRenew = "beforeCheckpointInLeaseRenew",
    /// A message of a `RangeStream` is about to be read.
    BeforeRangeStreamChunk = "beforeRangeStreamChunk",
}

/// Does what a test asked for at this point, on a thread that may be held up.
#[inline]
pub fn hit(point: Point) {
    #[cfg(feature = "failpoints")]
    registry::hit(point);
    #[cfg(not(feature = "failpoints"))]
    let _ = point;
}

/// The same in a task: others of its thread go on.
#[inline]
pub async fn hit_in_task(point: Point) {
    #[cfg(feature = "failpoints")]
    registry::hit_in_task(point).await;
    #[cfg(not(feature = "failpoints"))]
    let _ = point;
}

/// Whether a test has this point return, where that means that something fails.
#[inline]
pub fn fails(point: Point) -> bool {
    #[cfg(feature = "failpoints")]
    return registry::returns(point);
    #[cfg(not(feature = "failpoints"))]
    {
        let _ = point;
        false
    }
}
