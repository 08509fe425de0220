//! How many connections the process holds at most, and who gives way.
//!
//! Where all places are taken, a new connection takes that of the one that has been silent for longest: one without a
//! handshake, or that has shown nothing of what it speaks. So a crowd of strangers that only connects keeps nobody out, and
//! where certificates are asked for it is the same with a crowd that speaks. Who was heard keeps its place.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use rustix::process::{Resource, getrlimit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

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
    newcomers: Arc<Mutex<Newcomers>>,
}

/// Connections that were not heard yet, by the order in which they came.
#[derive(Debug, Default)]
struct Newcomers {
    came: u64,
    silent: BTreeMap<u64, Silent>,
}

#[derive(Debug)]
struct Silent {
    permit: OwnedSemaphorePermit,
    /// Says that the place went to another.
    gives_way: oneshot::Sender<()>,
}

/// The place of a connection that was not heard yet, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    number: u64,
    newcomers: Arc<Mutex<Newcomers>>,
    given_away: oneshot::Receiver<()>,
}

/// How a connection came in.
#[derive(Debug)]
pub(super) enum Admitted {
    /// To a place that was free.
    Free(Place),
    /// To that of another, which ends.
    Instead(Place),
    /// Not at all: all who have a place were heard.
    Refused,
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
        let free = Arc::new(Semaphore::new(connections.min(Semaphore::MAX_PERMITS)));
        Self { free, newcomers: Arc::default() }
    }

    /// How many more there may be now.
    pub fn available(&self) -> usize {
        self.free.available_permits()
    }

    /// A place for a connection that was just accepted.
    pub(super) fn admit(&self) -> Admitted {
        let free = Arc::clone(&self.free).try_acquire_owned();
        let mut newcomers = lock(&self.newcomers);
        match free {
            Ok(permit) => Admitted::Free(self.place(&mut newcomers, permit)),
            Err(_) => match newcomers.silent.pop_first() {
                Some((_, Silent { permit, gives_way })) => {
                    // Who is gone already needs not be told.
                    let _ = gives_way.send(());
                    Admitted::Instead(self.place(&mut newcomers, permit))
                }
                None => Admitted::Refused,
            },
        }
    }

    fn place(&self, newcomers: &mut Newcomers, permit: OwnedSemaphorePermit) -> Place {
        let (gives_way, given_away) = oneshot::channel();
        newcomers.came += 1;
        newcomers.silent.insert(newcomers.came, Silent { permit, gives_way });
        Place { number: newcomers.came, newcomers: Arc::clone(&self.newcomers), given_away }
    }
}

impl Place {
    /// Returns when another connection has the place.
    pub(super) async fn given_away(&mut self) {
        // Closed without a word only by this end.
        let _ = (&mut self.given_away).await;
    }

    /// The connection was heard: what is given back is its place until it ends, which it gives up to nobody. `None` if it had
    /// to at that moment.
    pub(super) fn keep(self) -> Option<OwnedSemaphorePermit> {
        lock(&self.newcomers).silent.remove(&self.number).map(|silent| silent.permit)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.newcomers).silent.remove(&self.number);
    }
}

fn lock(newcomers: &Mutex<Newcomers>) -> MutexGuard<'_, Newcomers> {
    newcomers.lock().expect("nobody panics while it is held")
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
    fn places_return() {
        let limit = ConnectionLimit::new(1);
        let Admitted::Free(place) = limit.admit() else { panic!("it is free") };
        let kept = place.keep();
        assert!(kept.is_some() && matches!(limit.admit(), Admitted::Refused));
        drop(kept);
        assert_eq!(limit.available(), 1);
        drop(limit.admit());
        assert_eq!(limit.available(), 1);
    }

    #[tokio::test]
    async fn the_silent_give_way_in_the_order_in_which_they_came() {
        let limit = ConnectionLimit::new(3);
        let mut places: Vec<_> = (0..3)
            .map(|_| match limit.admit() {
                Admitted::Free(place) => place,
                other => panic!("{other:?}"),
            })
            .collect();
        let heard = places.remove(0).keep().expect("nobody else came");
        let Admitted::Instead(third) = limit.admit() else { panic!("two are silent") };
        places.remove(0).given_away().await;
        let Admitted::Instead(_fourth) = limit.admit() else { panic!("two are silent") };
        let late = places.remove(0);
        assert!(late.keep().is_none(), "its place went to another");
        assert!(third.keep().is_some());
        // The permits of `third` and `_fourth` are what is left beside `heard`.
        assert_eq!(limit.available(), 1);
        drop(heard);
        assert_eq!(limit.available(), 2);
    }
}
