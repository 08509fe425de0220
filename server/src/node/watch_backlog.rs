//! How much a client's watch stream may ask ahead of what it takes.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Requests on their way and answers not taken, of one stream, above which its client is read no further. etcd holds 16 answers
/// (`server/etcdserver/api/v3rpc/watch.go`, `ctrlStreamBufLen`).
const UNANSWERED_MAX: usize = 32;

/// What one stream asked and its connection has not taken the answer of: requests on their way to the room, and messages
/// without events on their way back. Those with events the room counts in bytes.
#[derive(Debug, Default)]
pub struct WatchBacklog {
    unanswered: AtomicUsize,
    fell: Notify,
}

impl WatchBacklog {
    /// Waits until the client may ask more. For the one task that reads its requests.
    pub async fn room(&self) {
        while self.unanswered.load(Ordering::Acquire) >= UNANSWERED_MAX {
            self.fell.notified().await;
        }
    }

    /// So many requests are on their way, or answers.
    pub fn grew(&self, by: usize) {
        self.unanswered.fetch_add(by, Ordering::AcqRel);
    }

    /// So many requests were handled, or answers taken.
    pub fn fell(&self, by: usize) {
        if by > 0 {
            self.unanswered.fetch_sub(by, Ordering::AcqRel);
            self.fell.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn who_takes_nothing_is_read_no_further() {
        let backlog = WatchBacklog::default();
        backlog.grew(UNANSWERED_MAX - 1);
        assert!(backlog.room().now_or_never().is_some());
        // The request, then its answer in its place.
        backlog.grew(1);
        backlog.grew(1);
        backlog.fell(1);
        assert!(backlog.room().now_or_never().is_none());
        let waiting = backlog.room();
        tokio::pin!(waiting);
        assert!(waiting.as_mut().now_or_never().is_none());
        backlog.fell(1);
        waiting.await;
    }
}
