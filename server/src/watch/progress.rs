//! Bookmarks: how far a stream or a watch is, without an event.
//!
//! Progress R is said to a watcher only when its hub has delivered everything up to R, so no event up to R follows
//! (etcd-contract 29, 30; etcd issues 15220, 20221).

use std::time::Duration;

use rand::Rng;

use super::config::PROGRESS_INTERVAL_MIN;
use super::messages::{Output, StreamId};
use super::response::NO_WATCH_ID;
use super::watcher::StreamKey;
use super::watches::Watches;

impl Watches {
    /// Notes that a client asks how far its stream is. Several unanswered requests are one.
    ///
    /// etcd drops a request while a watcher of the stream lags; here it is answered when none does any more (DESIGN 5).
    pub(super) fn want_progress(&mut self, id: StreamId) {
        let Some(&key) = self.registry.stream_keys.get(&id) else { return };
        let revision = self.revision;
        let stream = self.registry.stream_mut(key);
        if stream.watchers() > 0 {
            stream.progress_wanted.get_or_insert(revision);
            self.progress_wanted.insert(key);
        }
    }

    /// Answers the requests that can be: one message for all watches of the stream, with watch id −1.
    pub(super) fn answer_progress(&mut self, out: &mut Vec<Output>) {
        if self.progress_wanted.is_empty() {
            return;
        }
        for key in std::mem::take(&mut self.progress_wanted) {
            if self.registry.stream(key).watchers() == 0 {
                // Nobody is left whom it concerns.
                self.registry.stream_mut(key).progress_wanted = None;
            } else if let Some(revision) = self.stream_progress(key) {
                self.registry.stream_mut(key).progress_wanted = None;
                self.registry.respond_progress(key, NO_WATCH_ID, revision, out);
            } else {
                self.progress_wanted.insert(key);
            }
        }
    }

    /// The revision up to which every watcher of the stream was told everything, if that is as much as was asked for.
    fn stream_progress(&self, key: StreamKey) -> Option<i64> {
        let stream = self.registry.stream(key);
        let hubs = self.hubs.iter().zip(&stream.watchers_per_hub).filter(|(_, watchers)| **watchers > 0);
        let revision = hubs.map(|(hub, _)| hub.delivered()).min()?;
        let hears = |watcher| self.registry.watcher(watcher).may_hear_progress(revision);
        let due = stream.progress_wanted.is_some_and(|wanted| revision >= wanted.max(stream.told_revision));
        (due && stream.behind == 0 && !self.registry.is_full(key) && stream.watcher_keys().all(hears))
            .then_some(revision)
    }

    /// Sends periodic progress to the watches that asked for it and heard nothing since the last time
    /// (etcd-contract 30).
    pub(super) fn tick(&mut self, now: Duration, out: &mut Vec<Output>) {
        while let Some((due, key)) = self.progress_due.pop_first() {
            if due > now {
                self.progress_due.insert((due, key));
                return;
            }
            self.tick_stream(key, out);
            let stream = self.registry.stream_mut(key);
            // After a pause there is one tick, not many.
            stream.progress_due = (due + stream.progress_interval).max(now + PROGRESS_INTERVAL_MIN);
            self.progress_due.insert((stream.progress_due, key));
        }
    }

    fn tick_stream(&mut self, key: StreamKey, out: &mut Vec<Output>) {
        let full = self.registry.is_full(key);
        let watchers: Vec<_> = self.registry.stream(key).watcher_keys().collect();
        for watcher in watchers {
            let watcher = self.registry.watcher_mut(watcher);
            let revision = self.hubs[watcher.hub].delivered();
            let quiet = std::mem::replace(&mut watcher.quiet, true);
            if watcher.progress_notify && quiet && !full && watcher.may_hear_progress(revision) {
                let watch_id = watcher.watch_id;
                self.registry.respond_progress(key, watch_id, revision, out);
            }
        }
    }

    /// The configured interval and up to a tenth more, so that streams of one moment do not tick together.
    pub(super) fn draw_progress_interval(&mut self) -> Duration {
        let interval = self.config.progress_notify_interval.max(PROGRESS_INTERVAL_MIN);
        interval + interval.mul_f64(self.random.random_range(0.0..0.1))
    }
}
