//! Why a tree cannot be read.

use std::io;

use thiserror::Error;

use crate::revision::Revision;

/// A read that has no answer. None of these changes anything; the caller repairs from another member or stops.
#[derive(Debug, Error)]
pub enum PagesError {
    /// The disk did not give the bytes at this page.
    #[error("reading at page {page}")]
    Read {
        /// The first page asked for.
        page: u64,
        /// What the disk said.
        #[source]
        source: io::Error,
    },
    /// A page is not what its parent says: a flipped bit, a torn, lost or misdirected write, or a newer format.
    #[error("page {page} is corrupt: {flaw}")]
    Corrupt {
        /// Where it begins.
        page: u64,
        /// What is wrong.
        flaw: &'static str,
    },
    /// An entry does not match the checksum in its leaf.
    #[error("entry {revision:?} in the leaf at page {page} is corrupt")]
    CorruptEntry {
        /// Where the leaf begins.
        page: u64,
        /// Which entry.
        revision: Revision,
    },
    /// A root that this program did not write.
    #[error("malformed tree root: {0}")]
    MalformedRoot(&'static str),
}
