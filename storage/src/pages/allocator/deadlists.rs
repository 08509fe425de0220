//! Freed extents that a reader may still need, one list a reader.

use std::collections::BTreeMap;

use super::extent::{Extent, TransactionId};

/// A freed extent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dead {
    pub(super) extent: Extent,
    pub(super) birth: TransactionId,
}

/// Each extent waits in the list of the *newest* reader that needs it. When that one is gone it moves to the next
/// older reader that needs it, or is released: no list is scanned while its reader lives.
#[derive(Default)]
pub(super) struct Deadlists {
    lists: BTreeMap<TransactionId, Vec<Dead>>,
}

impl Deadlists {
    /// Files an extent freed by a commit, or gives it back if no reader needs it. `older` are the pinned transactions
    /// below that commit, ascending.
    pub(super) fn add(&mut self, dead: Dead, older: &[TransactionId]) -> Option<Extent> {
        match older.last() {
            Some(reader) if *reader >= dead.birth => {
                self.lists.entry(*reader).or_default().push(dead);
                None
            }
            _ => Some(dead.extent),
        }
    }

    /// Takes what no reader needs any more. `pinned` is ascending; a reader missing there never returns, because only
    /// the newest commit and what is pinned can be pinned.
    pub(super) fn collect(&mut self, pinned: &[TransactionId]) -> Vec<Extent> {
        let gone: Vec<_> = self.lists.keys().filter(|reader| pinned.binary_search(reader).is_err()).copied().collect();
        let mut released = Vec::new();
        for reader in gone {
            let older = &pinned[..pinned.partition_point(|other| *other < reader)];
            let list = self.lists.remove(&reader).unwrap_or_default();
            released.extend(list.into_iter().filter_map(|dead| self.add(dead, older)));
        }
        released
    }
}
