//! What a test asked to go wrong, as the error says it.

use std::error::Error;
use std::io;

use thiserror::Error as ErrorText;

/// A fault that a test asked for. Every error of such a fault carries it, however deep below another error, so that a
/// test can tell the failure that it caused from a bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ErrorText)]
pub enum InjectedFault {
    /// The disk was stopped, as before a power cut.
    #[error("crashed")]
    Stopped,
    /// A sync failed, of a file or directory, for whatever reason it gave.
    #[error("injected: the sync fails")]
    Sync,
    /// A write failed.
    #[error("injected: the write fails")]
    Write,
    /// A byte cannot be read.
    #[error("injected: the read fails")]
    Read,
    /// The disk is full.
    #[error("injected: no space left")]
    Full,
}

impl InjectedFault {
    /// The fault that `error`, or what caused it, comes from; `None` for every other error.
    pub fn behind(error: &(dyn Error + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(fault) = error.downcast_ref::<io::Error>().and_then(Self::of) {
                return Some(fault);
            }
            next = error.source();
        }
        None
    }

    fn of(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref().copied()
    }

    /// The error that says so, of a kind that callers know.
    pub(super) fn error(self, kind: io::ErrorKind) -> io::Error {
        io::Error::new(kind, self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pages::PagesError;

    #[test]
    fn it_is_found_below_other_errors_and_nowhere_else() {
        let fault = InjectedFault::Sync.error(io::ErrorKind::Other);
        assert_eq!(InjectedFault::behind(&fault), Some(InjectedFault::Sync));
        let deeper = PagesError::Read { page: 1, source: InjectedFault::Read.error(io::ErrorKind::Other) };
        assert_eq!(InjectedFault::behind(&deeper), Some(InjectedFault::Read));
        let other = PagesError::Read { page: 1, source: io::ErrorKind::UnexpectedEof.into() };
        assert_eq!(InjectedFault::behind(&other), None);
        assert_eq!(InjectedFault::behind(&io::Error::other("injected: the sync fails")), None);
    }
}
