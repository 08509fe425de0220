//! Callers that wait for what they proposed.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::handle::Completion;

/// Callers that wait for their proposals.
#[derive(Default)]
pub struct Waiters(Mutex<HashMap<u64, Waiter>>);

/// Since when one waits, and where he hears of it.
struct Waiter {
    since: Instant,
    sender: oneshot::Sender<Completion>,
}

impl Waiters {
    pub(super) fn add(&self, id: u64, sender: oneshot::Sender<Completion>) {
        self.lock().insert(id, Waiter { since: Instant::now(), sender });
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    /// How long the one has waited who came first. Looks at all.
    pub(super) fn longest_wait(&self) -> Duration {
        self.lock().values().map(|waiter| waiter.since.elapsed()).max().unwrap_or_default()
    }

    /// Takes those that wait for `ids`.
    pub fn take(&self, ids: impl Iterator<Item = u64>) -> Vec<Option<oneshot::Sender<Completion>>> {
        let mut waiting = self.lock();
        ids.map(|id| waiting.remove(&id).map(|waiter| waiter.sender)).collect()
    }

    /// Forgets who waits for `id` if he gave up; says whether he did.
    pub fn forget_gone(&self, id: u64) -> bool {
        let mut waiting = self.lock();
        let gone = waiting.get(&id).is_some_and(|waiter| waiter.sender.is_closed());
        if gone {
            waiting.remove(&id);
        }
        gone
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Waiter>> {
        self.0.lock().expect("no one panics while holding the waiters: a panic stops the process")
    }
}
