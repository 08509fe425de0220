//! The hash that each compaction leaves for a HashKV of its revision (etcd-contract 52).

use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};

use basalt_storage::hashes::{HashKvCache, HashKvJob, HashPurpose};
use basalt_storage::mvcc::view::View;
use tracing::error;

use super::apply_thread::ApplyInput;
use super::fatal;
use super::pace::Pace;
use super::readers::Readers;

/// Slots that a hash takes between two looks at its pace.
const HASH_BUDGET: usize = 4096;

/// Computes them, in order, while calls have their turn.
pub struct CompactionHashes {
    readers: Readers,
    cache: Arc<Mutex<HashKvCache>>,
    pace: Arc<Pace>,
}

impl CompactionHashes {
    /// Hashes that are computed by `readers` and kept in `cache`.
    pub fn new(readers: Readers, cache: Arc<Mutex<HashKvCache>>) -> Self {
        Self { readers, cache, pace: Arc::default() }
    }

    /// Begins the hash at `revision`; the compaction before was at `before`. Nothing of this one is swept yet: the View has
    /// all that the hash covers. `done` hears of its end, also when stored data is damaged.
    pub fn begin(&self, view: Arc<View>, revision: i64, before: i64, done: Sender<ApplyInput>) {
        let mut job = HashKvJob::new(view, revision, before, HashPurpose::Compaction);
        let (cache, pace) = (self.cache.clone(), self.pace.clone());
        self.readers.spawn(move |disk| {
            match pace.run(&mut job, disk, HASH_BUDGET) {
                Ok((hash, _)) => cache.lock().expect("no one panics while holding the cache").store(hash),
                // Nothing is decided by it: whoever asks for this hash meets the damage himself.
                Err(cause) => error!(error = %fatal::causes(&cause), "stored data is damaged"),
            }
            // Apply is gone only when the process is about to be.
            drop(done.send(ApplyInput::CompactionHashed));
        });
    }

    /// So many are not there yet. Each that waits keeps pages that a compaction would free, so that several are hurried.
    pub fn set_pending(&self, pending: usize) {
        self.pace.set_hurried(pending > 1);
    }
}
