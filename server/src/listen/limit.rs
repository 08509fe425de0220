//! How many connections the process holds at most.

use std::sync::Arc;

use rustix::process::{Resource, getrlimit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Descriptors that are kept for files, logs and other members.
const RESERVE: u64 = 512;
/// The part of the reserve that is for connections of other members.
const MEMBERS_OF_RESERVE: u64 = 4;
/// The part that is for probes and scrapes on ports of their own.
const PROBES_OF_RESERVE: u64 = 8;
/// What is assumed where the limit is unlimited: a connection costs memory too.
const CONNECTIONS_MAX: u64 = 1 << 20;

/// The connections that all listeners of the process share.
#[derive(Clone, Debug)]
pub struct ConnectionLimit {
    free: Arc<Semaphore>,
}

impl ConnectionLimit {
    /// What RLIMIT_NOFILE allows less a reserve of 512, or less half of it where it is small.
    pub fn from_file_limit() -> Self {
        Self::new(connections_of(descriptors()))
    }

    /// A quarter of that reserve, for other members: a crowd of clients must not keep them out.
    pub fn of_reserve() -> Self {
        Self::new(members_of(descriptors()))
    }

    /// An eighth of it, for who probes and scrapes: a crowd of clients must not have a sound member started anew.
    pub fn for_probes() -> Self {
        Self::new(probes_of(descriptors()))
    }

    /// Exactly `connections`.
    pub fn new(connections: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(connections.min(Semaphore::MAX_PERMITS))) }
    }

    /// How many more there may be now.
    pub fn available(&self) -> usize {
        self.free.available_permits()
    }

    /// A place for one connection, until it is dropped; `None` if there is none.
    pub(super) fn try_acquire(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.free).try_acquire_owned().ok()
    }
}

fn descriptors() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

fn reserve_of(descriptors: u64) -> u64 {
    RESERVE.min(descriptors / 2)
}

fn members_of(descriptors: u64) -> usize {
    (reserve_of(descriptors) / MEMBERS_OF_RESERVE) as usize
}

fn probes_of(descriptors: u64) -> usize {
    (reserve_of(descriptors) / PROBES_OF_RESERVE) as usize
}

fn connections_of(descriptors: u64) -> usize {
    let connections = descriptors - reserve_of(descriptors);
    usize::try_from(connections.min(CONNECTIONS_MAX)).expect("at most a million")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_is_always_kept() {
        assert_eq!(connections_of(0), 0);
        assert_eq!(connections_of(64), 32);
        assert_eq!(connections_of(1024), 512);
        assert_eq!(connections_of(65_536), 65_024);
        assert_eq!(connections_of(u64::MAX), 1 << 20);
        assert_eq!((members_of(64), members_of(1024), members_of(u64::MAX)), (8, 128, 128));
        assert_eq!((probes_of(64), probes_of(1024), probes_of(u64::MAX)), (4, 64, 64));
    }

    #[test]
    fn permits_return() {
        let limit = ConnectionLimit::new(1);
        let permit = limit.try_acquire();
        assert!(permit.is_some() && limit.try_acquire().is_none());
        drop(permit);
        assert_eq!(limit.available(), 1);
    }
}
