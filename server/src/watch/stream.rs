//! One client stream: its watch ids, its queue, its progress.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use basalt_proto::log::Principal;

use super::messages::StreamId;
use super::watcher::WatcherKey;

/// What stands behind a watch id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WatchSlot {
    /// A watcher.
    Watching(WatcherKey),
    /// A watcher was here; compaction, damage or a lost permission cancelled it, and the id stays taken until the client cancels
    /// (etcd-contract 22).
    Canceled,
}

/// Whose stream it is.
#[derive(Clone, Debug, Default)]
pub(super) struct Asker {
    /// `None` for nobody.
    pub user: Option<Arc<str>>,
}

impl Asker {
    /// On whose behalf it watches: a token that was good when it began is asked for no more.
    pub fn principal(&self) -> Option<Principal> {
        let user = self.user.as_ref()?.to_string();
        Some(Principal { user, auth_revision: u64::MAX })
    }
}

/// The watches of a client that share one ordered flow of responses.
#[derive(Debug)]
pub(super) struct Stream {
    pub id: StreamId,
    pub asker: Asker,
    pub slots: BTreeMap<i64, WatchSlot>,
    next_watch_id: i64,
    /// Sent and not drained.
    pub queued_bytes: usize,
    /// Watchers that wait for the queue to drain.
    pub blocked: BTreeSet<WatcherKey>,
    /// Watchers per hub, by its position.
    pub watchers_per_hub: Vec<usize>,
    /// Watchers that are not live.
    pub behind: usize,
    /// The latest revision up to which some watch was told everything: progress of the stream is never less.
    pub told_revision: i64,
    /// A client waits for progress up to this revision or later.
    pub progress_wanted: Option<i64>,
    /// When its next periodic progress is due, and the interval from one to the next, jitter included.
    pub progress_due: Duration,
    pub progress_interval: Duration,
}

impl Stream {
    pub fn new(id: StreamId, hubs: usize, progress_interval: Duration, now: Duration) -> Self {
        Self {
            id,
            asker: Asker::default(),
            slots: BTreeMap::new(),
            next_watch_id: 0,
            queued_bytes: 0,
            blocked: BTreeSet::new(),
            watchers_per_hub: vec![0; hubs],
            behind: 0,
            told_revision: 0,
            progress_wanted: None,
            progress_due: now + progress_interval,
            progress_interval,
        }
    }

    /// The id of a new watch: the wanted one, or for 0 the next of a counter that skips ids in use and never goes back;
    /// `None` if the wanted one is taken (etcd-contract 22).
    pub fn allot_watch_id(&mut self, wanted: i64) -> Option<i64> {
        if wanted != 0 {
            return (!self.slots.contains_key(&wanted)).then_some(wanted);
        }
        while self.slots.contains_key(&self.next_watch_id) {
            self.next_watch_id += 1;
        }
        self.next_watch_id += 1;
        Some(self.next_watch_id - 1)
    }

    /// How many watchers it has.
    pub fn watchers(&self) -> usize {
        self.watchers_per_hub.iter().sum()
    }

    /// Its watchers, by id.
    pub fn watcher_keys(&self) -> impl Iterator<Item = WatcherKey> + '_ {
        self.slots.values().filter_map(|slot| match slot {
            WatchSlot::Watching(key) => Some(*key),
            WatchSlot::Canceled => None,
        })
    }
}
