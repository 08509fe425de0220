//! Who still reads old trees.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::extent::TransactionId;

/// The transactions whose trees somebody may read.
///
/// Pinning and releasing take a mutex for a look-up in a map of as many entries as there are distinct pinned
/// transactions; no page is touched.
#[derive(Debug)]
pub struct Readers {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    newest: TransactionId,
    pins: BTreeMap<TransactionId, usize>,
}

impl Readers {
    pub(super) fn new(newest: TransactionId) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State { newest, pins: BTreeMap::new() }) })
    }

    /// Keeps every page that the tree of `transaction` reaches, until the pin is dropped.
    ///
    /// Whoever publishes a tree holds a pin of it for as long as others can reach it there; they pin from that.
    ///
    /// # Panics
    /// If `transaction` is older than the newest commit and not pinned: its pages may have been reused already.
    pub fn pin(self: &Arc<Self>, transaction: TransactionId) -> ReaderPin {
        let mut state = self.lock();
        let known = transaction >= state.newest || state.pins.contains_key(&transaction);
        assert!(known, "transaction {} is gone; the newest is {}", transaction.0, state.newest.0);
        *state.pins.entry(transaction).or_insert(0) += 1;
        ReaderPin { readers: Arc::clone(self), transaction }
    }

    /// Whether anything is pinned.
    pub fn are_there(&self) -> bool {
        !self.lock().pins.is_empty()
    }

    /// Pinned transactions, ascending.
    pub(super) fn pinned(&self) -> Vec<TransactionId> {
        self.lock().pins.keys().copied().collect()
    }

    /// Makes `newest` the newest commit and returns the pinned transactions, ascending. From here on no older one
    /// joins them.
    pub(super) fn advance(&self, newest: TransactionId) -> Vec<TransactionId> {
        let mut state = self.lock();
        state.newest = newest;
        state.pins.keys().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics between two halves of a change, so a poisoned state is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps the pages of one transaction's tree; dropping it lets them go.
#[derive(Debug)]
pub struct ReaderPin {
    readers: Arc<Readers>,
    transaction: TransactionId,
}

impl ReaderPin {
    /// The transaction that is kept.
    pub fn transaction(&self) -> TransactionId {
        self.transaction
    }
}

impl Clone for ReaderPin {
    fn clone(&self) -> Self {
        self.readers.pin(self.transaction)
    }
}

impl Drop for ReaderPin {
    fn drop(&mut self) {
        let mut state = self.readers.lock();
        if let Some(count) = state.pins.get_mut(&self.transaction) {
            *count -= 1;
            if *count == 0 {
                state.pins.remove(&self.transaction);
            }
        }
    }
}
