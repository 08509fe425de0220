//! What a request gets back from apply: numbers, and where the values stand that the answer shows. The values are
//! fetched by the member that answers, off the apply thread.

use std::sync::Arc;

use basalt_storage::mvcc::range::{Hit, RangePlan};
use thiserror::Error;

use super::alarms::Alarm;
use super::auth::error::AuthError;
use super::downgrade::Release;
use super::member_bounds::MemberBound;
use super::members::Members;

/// The answer to one request.
#[derive(Clone, Debug)]
pub enum Answer {
    /// To a Put.
    Put(PutAnswer),
    /// To a DeleteRange.
    DeleteRange(DeleteAnswer),
    /// To a Txn.
    Txn(TxnAnswer),
    /// To a Compact.
    Compact {
        /// The store's revision.
        revision: i64,
    },
    /// To a LeaseGrant.
    LeaseGrant {
        /// The store's revision.
        revision: i64,
        /// The lease.
        id: i64,
        /// Granted seconds.
        ttl: i64,
    },
    /// To a change of members.
    Members {
        /// The store's revision.
        revision: i64,
        /// All after it.
        members: Arc<Members>,
    },
    /// To a LeaseRevoke, LeaseCheckpoint or other request that answers nothing but a header.
    Done {
        /// The store's revision.
        revision: i64,
    },
    /// To the beginning or end of a downgrade.
    Downgrade {
        /// The store's revision.
        revision: i64,
        /// What the cluster was before.
        cluster_version: Release,
    },
    /// To an Alarm.
    Alarm {
        /// The store's revision.
        revision: i64,
        /// What was found, armed or disarmed.
        alarms: Vec<Alarm>,
    },
}

/// The answer to a put.
#[derive(Clone, Copy, Debug)]
pub struct PutAnswer {
    /// Its revision.
    pub revision: i64,
    /// The version before, if it was asked for and there was one.
    pub previous: Option<Hit>,
}

/// The answer to a delete.
#[derive(Clone, Debug)]
pub struct DeleteAnswer {
    /// Its revision, or the store's where nothing was deleted.
    pub revision: i64,
    /// Keys deleted.
    pub deleted: i64,
    /// The deleted versions, if they were asked for.
    pub previous: Vec<Hit>,
}

/// The answer to a transaction.
#[derive(Clone, Debug)]
pub struct TxnAnswer {
    /// Revision for the header; nested ones show none (etcd-contract 10).
    pub revision: i64,
    /// Which branch was taken.
    pub succeeded: bool,
    /// One for each operation of that branch.
    pub responses: Vec<OpAnswer>,
}

/// The answer to one operation of a transaction.
#[derive(Clone, Debug)]
pub enum OpAnswer {
    /// To a range.
    Range(RangePlan),
    /// To a put.
    Put(PutAnswer),
    /// To a delete.
    DeleteRange(DeleteAnswer),
    /// To a nested transaction.
    Txn(TxnAnswer),
}

/// Why a request changed nothing. The texts for clients stand in one place, [`crate::api::status`].
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Refusal {
    /// `ignore_value` or `ignore_lease` on a key that is not there.
    #[error("key not found")]
    KeyNotFound,
    /// A lease that does not exist.
    #[error("lease not found")]
    LeaseNotFound,
    /// A lease that exists already.
    #[error("lease exists")]
    LeaseExists,
    /// A time to live above the limit.
    #[error("lease time to live too large")]
    LeaseTtlTooLarge,
    /// A revision below the compact revision.
    #[error("revision compacted")]
    Compacted,
    /// A revision above the store's.
    #[error("future revision")]
    FutureRevision,
    /// The NOSPACE alarm is armed.
    #[error("database space exceeded")]
    NoSpace,
    /// The CORRUPT alarm is armed.
    #[error("corrupt cluster")]
    Corrupt,
    /// No such member, or one that left.
    #[error("member not found")]
    MemberNotFound,
    /// A member of that id is there.
    #[error("member exists")]
    MemberExists,
    /// Another member is reached there.
    #[error("peer URL exists")]
    PeerUrlExists,
    /// As many learners as there may be.
    #[error("too many learners")]
    TooManyLearners,
    /// It votes already.
    #[error("not a learner")]
    NotALearner,
    /// A learner that lacks too much.
    #[error("learner not ready")]
    LearnerNotReady,
    /// Another data directory spoke under its id before.
    #[error("the member has lost its data")]
    MemberWiped,
    /// Nobody else votes.
    #[error("the only voter")]
    LastVoter,
    /// More than may be said of members.
    #[error(transparent)]
    MemberBound(#[from] MemberBound),
    /// Users or roles stand in the way.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// Not the release before this one.
    #[error("invalid downgrade target")]
    DowngradeTarget,
    /// One is under way already.
    #[error("downgrade under way")]
    DowngradeUnderWay,
    /// An alarm action that is none (etcd panics, we refuse: etcd-contract 43).
    #[error("unknown alarm action")]
    UnknownAlarmAction,
}

impl Answer {
    /// The revision for the header.
    pub fn revision(&self) -> i64 {
        match self {
            Answer::Put(put) => put.revision,
            Answer::DeleteRange(delete) => delete.revision,
            Answer::Txn(txn) => txn.revision,
            Answer::Compact { revision }
            | Answer::LeaseGrant { revision, .. }
            | Answer::Done { revision }
            | Answer::Alarm { revision, .. }
            | Answer::Downgrade { revision, .. }
            | Answer::Members { revision, .. } => *revision,
        }
    }

    /// All values that the answer shows, in the order in which it shows them.
    pub fn hits(&self) -> Vec<Hit> {
        let mut hits = Vec::new();
        match self {
            Answer::Put(put) => hits.extend(put.previous),
            Answer::DeleteRange(delete) => hits.extend(&delete.previous),
            Answer::Txn(txn) => txn.collect_hits(&mut hits),
            _ => {}
        }
        hits
    }
}

impl TxnAnswer {
    /// Appends the values that the answer shows, in the order in which it shows them.
    pub fn collect_hits(&self, hits: &mut Vec<Hit>) {
        for response in &self.responses {
            match response {
                OpAnswer::Range(plan) => hits.extend(&plan.hits),
                OpAnswer::Put(put) => hits.extend(put.previous),
                OpAnswer::DeleteRange(delete) => hits.extend(&delete.previous),
                OpAnswer::Txn(txn) => txn.collect_hits(hits),
            }
        }
    }
}
