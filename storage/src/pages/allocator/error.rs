//! What can go wrong in the allocator, by what the caller does about it.

use thiserror::Error;

use super::extent::{Extent, TransactionId};

/// Errors of the allocator. But for [`Self::Load`], none is cured by calling again.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum AllocatorError {
    /// Read this page of the file, give it to [`super::Allocator::load`], and repeat the call; nothing has changed.
    #[error("map page {0} must be loaded first")]
    Load(u64),
    /// A map page on disk is not what was written: the file is corrupt.
    #[error("map page {page} is damaged: {reason}")]
    Damaged {
        /// The page of the file.
        page: u64,
        /// What does not hold.
        reason: &'static str,
    },
    /// The bytes of a map root make no sense.
    #[error("malformed map root: {0}")]
    MalformedRoot(&'static str),
    /// A page was handed to `load` that is no part of the current map.
    #[error("page {0} is no page of the map in use")]
    NotInMap(u64),
    /// A page that is free was freed again; nothing has changed.
    #[error("page {page} born in transaction {} is already free in transaction {}", birth.0, transaction.0)]
    DoubleFree {
        /// The first page of the extent that is already free.
        page: u64,
        /// The birth that the caller gave.
        birth: TransactionId,
        /// The transaction that tried.
        transaction: TransactionId,
    },
    /// An extent to free that no allocation can have returned, or whose birth lies in the future.
    #[error("no such extent: {} pages at {}", .0.pages, .0.page)]
    BadExtent(Extent),
    /// A request for no page, or for more than a region can hold.
    #[error("an extent of {0} pages cannot be allocated")]
    ExtentSize(u32),
    /// The file has reached the largest size that the map can describe.
    #[error("the page file is at its largest size")]
    Full,
}
