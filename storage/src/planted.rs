//! Bugs that are planted on purpose, one at a time, for the simulator to find: a net that catches none is no net. With the
//! feature `planted-bugs` alone, which tests set and nothing else does; without it every question here is answered by a
//! constant.

/// A bug that the simulator must find (`docs/faults.md` says how it does).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Bug {
    /// Batches of the log are not synced.
    LogUnsynced = 1,
    /// Names of new log segments are not synced.
    SegmentNamesUnsynced,
    /// Page files are not synced before the manifest that needs them.
    PagesUnsynced,
    /// Names of new runs and page files are not synced before the manifest that needs them.
    RunNamesUnsynced,
    /// A start forgets the last entry of its log.
    LastEntryForgotten,
    /// A start forgets for whom it voted.
    VoteForgotten,
    /// A follower answers an append before its entries are durable.
    AnswerBeforeSync,
    /// A vote leaves before it is durable.
    VoteBeforeSync,
    /// A read is answered without asking a quorum.
    ReadWithoutQuorum,
    /// A read joins a question that was asked before it came.
    ReadJoinsQuestion,
    /// A read does not wait for apply.
    ReadBeforeApply,
    /// A leader takes a round of any term.
    RoundOfAnyTerm,
    /// A leader takes a round as often as the network brings it.
    RoundTakenTwice,
    /// A round goes to the next leader although the last one may have ordered it.
    RoundGivenBackEarly,
    /// Entries of another leader keep what was proposed in their place.
    ProposedOfAnyTerm,
    /// A start applies the last entry of its checkpoint again.
    AppliedTwice,
    /// The log goes on behind its own entries when another member's state took the place of what they led to.
    LogRestartForgotten,
    /// A member that was removed stops on its own word, before the others know it.
    RemovedMemberStops,
    /// A watcher that comes up to date misses the revision behind what it was served.
    WatchSkipsRevision,
    /// A watcher that comes up to date is told what is before its revision, as far as it is served to another.
    WatchFromBefore,
    /// A renewal does not clear the remainder of a lease that was recorded before.
    RenewalKeepsRemainder,
    /// What a leader ends by itself is still ordered when it leads no more.
    RevokeOutlivesLeader,
    /// A member that lost its data votes on.
    WipedMemberVotes,
    /// What members say is taken whatever its checksum.
    ChecksumSkipped,
    /// A failed sync is taken for one that would succeed when it is repeated.
    SyncRetried,
    /// A learner votes.
    LearnerVotes,
    /// A whole state is announced for the entry behind its last one.
    StateAnnouncedAhead,
    /// A tombstone at the compact revision goes with what is below.
    TombstoneDropped,
    /// Progress is told to a watcher that lags behind.
    ProgressAhead,
    /// A watch from a revision to come is told what happens before it.
    FutureWatchServed,
    /// A leader answers a question by what it asked a quorum before it came.
    QuestionJoinsConfirmation,
    /// A range without an end is read as one that ends at the zero byte.
    RangeEndMisread,
    /// When the leader changes, who asked the former one reads as of what it confirmed before.
    ReadOfFormerLeader,
    /// What only root may is judged where it is asked for, and not again where it is applied.
    JudgedBeforeLogOnly,
    /// A request is applied by users and roles that changed since it was let in.
    OldPermissionsTaken,
    /// A whole state comes without its users and roles.
    StateWithoutUsers,
    /// A watch goes on when its client may not read its keys any more.
    WatchOutlivesPermission,
    /// A token stays good when its user has another password.
    TokenOutlivesPassword,
    /// Looks that find no leader end a watch also where others between them found one.
    LeaderLossAddsUp,
}

impl Bug {
    /// All of them.
    pub const ALL: [Bug; 39] = [
        Bug::LogUnsynced,
        Bug::SegmentNamesUnsynced,
        Bug::PagesUnsynced,
        Bug::RunNamesUnsynced,
        Bug::LastEntryForgotten,
        Bug::VoteForgotten,
        Bug::AnswerBeforeSync,
        Bug::VoteBeforeSync,
        Bug::ReadWithoutQuorum,
        Bug::ReadJoinsQuestion,
        Bug::ReadBeforeApply,
        Bug::RoundOfAnyTerm,
        Bug::RoundTakenTwice,
        Bug::RoundGivenBackEarly,
        Bug::ProposedOfAnyTerm,
        Bug::AppliedTwice,
        Bug::LogRestartForgotten,
        Bug::RemovedMemberStops,
        Bug::WatchSkipsRevision,
        Bug::WatchFromBefore,
        Bug::RenewalKeepsRemainder,
        Bug::RevokeOutlivesLeader,
        Bug::WipedMemberVotes,
        Bug::ChecksumSkipped,
        Bug::SyncRetried,
        Bug::LearnerVotes,
        Bug::StateAnnouncedAhead,
        Bug::TombstoneDropped,
        Bug::ProgressAhead,
        Bug::FutureWatchServed,
        Bug::QuestionJoinsConfirmation,
        Bug::RangeEndMisread,
        Bug::ReadOfFormerLeader,
        Bug::JudgedBeforeLogOnly,
        Bug::OldPermissionsTaken,
        Bug::StateWithoutUsers,
        Bug::WatchOutlivesPermission,
        Bug::TokenOutlivesPassword,
        Bug::LeaderLossAddsUp,
    ];
}

#[cfg(feature = "planted-bugs")]
mod plants {
    use std::sync::atomic::{AtomicU8, Ordering};

    use super::Bug;

    static PLANTED: AtomicU8 = AtomicU8::new(0);

    /// Plants one, instead of the one before; `None` for none.
    pub fn plant(bug: Option<Bug>) {
        PLANTED.store(bug.map_or(0, |bug| bug as u8), Ordering::Relaxed);
    }

    /// Whether it is there.
    pub fn is_planted(bug: Bug) -> bool {
        PLANTED.load(Ordering::Relaxed) == bug as u8
    }
}

#[cfg(feature = "planted-bugs")]
pub use plants::{is_planted, plant};

/// Whether it is there: never.
#[cfg(not(feature = "planted-bugs"))]
pub const fn is_planted(_bug: Bug) -> bool {
    false
}
