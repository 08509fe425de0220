//! Why there is no profile.

use std::io;

use thiserror::Error;

/// Why there is no profile.
#[derive(Debug, Error)]
pub(super) enum ProfileError {
    /// Another is being taken. Go's words.
    #[error("cpu profiling already in use")]
    InUse,
    /// Nobody waits for it any more.
    #[error("the request went away")]
    Gone,
    /// jemalloc samples nothing.
    #[error("the heap is not sampled: {0}")]
    NoHeap(&'static str),
    /// What jemalloc wrote is not what it writes.
    #[cfg(feature = "heap-profiles")]
    #[error("jemalloc wrote a heap profile that cannot be read: {0:?}")]
    HeapForm(String),
    /// The system did not let us.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What came of it.
        #[source]
        source: io::Error,
    },
}

impl ProfileError {
    /// For `map_err`: what was tried when the system failed.
    pub(super) fn system<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::System { what, source: source.into() }
    }
}
