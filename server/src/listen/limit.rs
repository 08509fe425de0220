//! How many connections the process holds at most, and who gives way.
//!
//! Where all places are taken, a new connection takes that of the one that has been silent for longest, if that is long enough
//! for an honest handshake: one without a handshake, or that has shown nothing of what it speaks. So a crowd of strangers
//! that only connects keeps nobody out for long, and where certificates are asked for it is the same with a crowd that
//! speaks. Who was heard keeps its place.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

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
    since: Instant,
    /// Says that the place went to another.
    gives_way: oneshot::Sender<()>,
}

/// The place of a connection that was just accepted, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    number: u64,
    newcomers: Arc<Mutex<Newcomers>>,
    /// Once it was heard.
    kept: Option<OwnedSemaphorePermit>,
}

/// Ends, also with an error, when another connection has the place, or it was given up.
pub(super) type GivenAway = oneshot::Receiver<()>;

/// How a connection came in.
#[derive(Debug)]
pub(super) enum Admitted {
    /// To a place that was free.
    Free(Place, GivenAway),
    /// To that of another, which ends.
    Instead(Place, GivenAway),
    /// Not at all: all who have a place were heard, or came a moment ago.
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

    /// A place for a connection that was accepted at `now`; if there is none, that of one that has been silent for
    /// `silent_max`.
    pub(super) fn admit(&self, now: Instant, silent_max: Duration) -> Admitted {
        let free = Arc::clone(&self.free).try_acquire_owned();
        let mut newcomers = lock(&self.newcomers);
        if let Ok(permit) = free {
            let (place, given_away) = self.place(&mut newcomers, permit, now);
            return Admitted::Free(place, given_away);
        }
        match newcomers.silent.first_entry() {
            Some(oldest) if now.duration_since(oldest.get().since) >= silent_max => {
                let Silent { permit, gives_way, .. } = oldest.remove();
                // Who is gone already needs not be told.
                let _ = gives_way.send(());
                let (place, given_away) = self.place(&mut newcomers, permit, now);
                Admitted::Instead(place, given_away)
            }
            _ => Admitted::Refused,
        }
    }

    fn place(&self, newcomers: &mut Newcomers, permit: OwnedSemaphorePermit, since: Instant) -> (Place, GivenAway) {
        let (gives_way, given_away) = oneshot::channel();
        newcomers.came += 1;
        newcomers.silent.insert(newcomers.came, Silent { permit, since, gives_way });
        let place = Place { number: newcomers.came, newcomers: Arc::clone(&self.newcomers), kept: None };
        (place, given_away)
    }
}

impl Place {
    /// The connection was heard: from here on it gives way to nobody. `false` if it had to before.
    pub(super) fn keep(&mut self) -> bool {
        if self.kept.is_none() {
            self.kept = lock(&self.newcomers).silent.remove(&self.number).map(|silent| silent.permit);
        }
        self.kept.is_some()
    }

    /// What is left of a place that is kept: it ends when that is dropped.
    pub(super) fn into_permit(mut self) -> Option<OwnedSemaphorePermit> {
        self.kept.take()
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
        let (limit, now) = (ConnectionLimit::new(1), Instant::now());
        let Admitted::Free(mut place, _) = limit.admit(now, Duration::ZERO) else { panic!("it is free") };
        assert!(place.keep() && place.keep());
        let kept = place.into_permit();
        assert!(kept.is_some() && matches!(limit.admit(now, Duration::ZERO), Admitted::Refused));
        drop(kept);
        assert_eq!(limit.available(), 1);
        drop(limit.admit(now, Duration::ZERO));
        assert_eq!(limit.available(), 1);
    }

    #[test]
    fn the_silent_give_way_in_the_order_in_which_they_came_and_not_at_once() {
        let (limit, start, second) = (ConnectionLimit::new(3), Instant::now(), Duration::from_secs(1));
        let [mut heard, first, mut late] = [0, 1, 2].map(|came| match limit.admit(start + came * second, second) {
            Admitted::Free(place, given_away) => (place, given_away),
            other => panic!("{other:?}"),
        });
        assert!(heard.0.keep());
        let now = start + 2 * second;
        let Admitted::Instead(mut third, _) = limit.admit(now, second) else { panic!("one is silent for a second") };
        assert!({ first }.1.try_recv().is_ok() && late.1.try_recv().is_err());
        assert!(matches!(limit.admit(now, second), Admitted::Refused), "the other is not");
        let Admitted::Instead(_fourth, _) = limit.admit(now + second, second) else { panic!("now it is") };
        assert!(late.1.try_recv().is_ok() && !late.0.keep(), "its place went to another");
        assert!(third.keep());
        drop(third);
        assert_eq!(limit.available(), 1);
        drop(heard);
        assert_eq!(limit.available(), 2);
    }
}
