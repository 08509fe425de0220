//! What goes into a commit and what comes out of it.

use std::io;

use thiserror::Error;

use crate::revision::Revision;

use super::allocator::{AllocatorError, MapRoot};
use super::error::PagesError;
use super::leaf::NewEntry;
use super::leaf_rewrite::RewriteLimits;
use super::page_writer::PageWriter;
use super::tree_root::SharedRoot;

/// What a commit changes.
#[derive(Clone, Debug, Default)]
pub struct TreeChanges {
    /// New entries, ascending and above [`super::TreeRoot::last_revision`].
    pub appended: Vec<NewEntry>,
    /// Revisions that no reader of the new root wants. Unknown and already dead ones are ignored. One that this
    /// commit appends is unknown to it.
    pub dead: Vec<Revision>,
    /// How much is tidied up on the way.
    pub rewrite: RewriteLimits,
}

/// A commit that is durable as soon as a manifest names its roots.
#[derive(Debug)]
pub struct Committed {
    /// To be told [`PageWriter::committed`] or [`PageWriter::abandoned`] before the next commit.
    pub writer: PageWriter,
    /// The new tree. Publish it only after the manifest is durable.
    pub root: SharedRoot,
    /// The new map of free pages.
    pub map_root: MapRoot,
}

/// A commit that did not happen.
#[derive(Debug, Error)]
#[error("commit failed")]
pub struct CommitError {
    /// The writer as it was before; `None` after a failed sync.
    pub writer: Option<Box<PageWriter>>,
    /// Why.
    #[source]
    pub cause: CommitFailure,
}

/// Why a commit did not happen.
#[derive(Debug, Error)]
pub enum CommitFailure {
    /// The disk is full. Nothing has changed; try again when there is space.
    #[error("no space for the commit")]
    NoSpace(#[source] io::Error),
    /// A page that the commit builds on cannot be read: the file needs repair.
    #[error(transparent)]
    Pages(#[from] PagesError),
    /// The map of free pages is damaged or full.
    #[error(transparent)]
    Allocator(#[from] AllocatorError),
    /// A write failed. The durable tree is untouched.
    #[error("writing pages")]
    Write(#[source] io::Error),
    /// A sync failed: stop the node, a second one may lie.
    #[error("syncing pages")]
    Sync(#[source] io::Error),
    /// An appended revision is not above the one before it.
    #[error("revision {0:?} is out of order")]
    OutOfOrder(Revision),
    /// An entry is larger than [`super::ENTRY_BYTES_MAX`].
    #[error("the entry of revision {0:?} is too large")]
    TooLarge(Revision),
}
