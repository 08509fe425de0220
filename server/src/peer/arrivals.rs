//! A whole state of another member that arrives here.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use basalt_proto::peer::SnapshotPositionResponse;
use basalt_storage::checkpoint::manifest::Manifest;
use basalt_storage::disk::Disk;
use basalt_storage::revision::Revision;
use bytes::Bytes;
use raft::prelude::Message;
use thiserror::Error;
use tokio::sync::{Mutex, OwnedMutexGuard, oneshot};
use tokio::task::spawn_blocking;
use tracing::{info, warn};

use crate::apply::members::Members;
use crate::metrics::Metrics;
use crate::node::node_thread::{NodeInput, Received};
use crate::transfer::{Expected, ReceiveError, Receiving};

/// Why a state is not taken.
#[derive(Debug, Error)]
pub enum ArrivalError {
    /// What arrives cannot be.
    #[error(transparent)]
    Refused(#[from] ReceiveError),
    /// One after another.
    #[error("another state is arriving")]
    Busy,
    /// This member goes down.
    #[error("this member stops")]
    Stopped,
}

/// How long a state that was cut off waits to go on: its sender tries again within seconds, or has given it up.
const KEPT_FOR: Duration = Duration::from_secs(300);

/// Where states arrive, one at a time. What was cut off waits to go on, for a while.
pub struct Arrivals {
    disk: Arc<dyn Disk>,
    manifest: Arc<ArcSwap<Manifest>>,
    node: Sender<NodeInput>,
    metrics: Arc<Metrics>,
    kept: Arc<Mutex<Option<Kept>>>,
    kept_for: Duration,
}

struct Kept {
    snapshot_id: u64,
    receiving: Receiving,
    /// When its last chunk came.
    since: Instant,
}

/// A stream that brings one.
pub struct Arrival<'a> {
    arrivals: &'a Arrivals,
    snapshot_id: u64,
    message: Message,
    kept: OwnedMutexGuard<Option<Kept>>,
    is_opened: bool,
}

impl Arrivals {
    /// A place for them beside the state that `manifest` names.
    pub fn new(
        disk: Arc<dyn Disk>,
        manifest: Arc<ArcSwap<Manifest>>,
        node: Sender<NodeInput>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { disk, manifest, node, metrics, kept: Arc::default(), kept_for: KEPT_FOR }
    }

    /// Who belongs to the cluster by the last checkpoint.
    pub(super) fn checkpointed_members(&self) -> Members {
        Members::decode(&self.manifest.load().conf_state).expect("every manifest names its members")
    }

    /// How much of a state is here.
    pub fn position(&self, snapshot_id: u64) -> SnapshotPositionResponse {
        let Ok(kept) = self.kept.try_lock() else { return SnapshotPositionResponse::default() };
        let of_it = kept.as_ref().filter(|kept| kept.snapshot_id == snapshot_id);
        let last = of_it.and_then(|kept| kept.receiving.last());
        let Revision { main, sub } = last.unwrap_or_default();
        SnapshotPositionResponse { known: last.is_some(), main, sub }
    }

    /// Begins to hear a stream that brings a state, with the message that comes with it.
    ///
    /// # Errors
    /// [`ArrivalError::Busy`].
    pub fn begin(&self, snapshot_id: u64, message: Message) -> Result<Arrival<'_>, ArrivalError> {
        let kept = self.kept.clone().try_lock_owned().map_err(|_| ArrivalError::Busy)?;
        Ok(Arrival { arrivals: self, snapshot_id, message, kept, is_opened: false })
    }
}

impl Arrival<'_> {
    /// Takes the next chunk; when it was the last, waits until the state is this member's, or not needed any more. Says
    /// whether that is so.
    ///
    /// # Errors
    /// [`ArrivalError`]. What arrived is thrown away.
    pub async fn take(&mut self, chunk: Bytes) -> Result<bool, ArrivalError> {
        if !self.is_opened {
            self.is_opened = true;
            return self.open(chunk).await.map(|()| false);
        }
        let Some(Kept { mut receiving, snapshot_id, .. }) = self.kept.take() else { return Err(ArrivalError::Busy) };
        let disk = self.arrivals.disk.clone();
        let taken = spawn_blocking(move || match receiving.take(&*disk, chunk) {
            Ok(is_whole) => Ok((receiving, is_whole)),
            Err(refused) => {
                discard(receiving, &*disk);
                Err(refused)
            }
        });
        let (receiving, is_whole) = taken.await.map_err(|_| ArrivalError::Stopped)??;
        if is_whole {
            return self.finish(receiving).await.map(|()| true);
        }
        *self.kept = Some(Kept { snapshot_id, receiving, since: Instant::now() });
        Ok(false)
    }

    /// Takes the head.
    async fn open(&mut self, chunk: Bytes) -> Result<(), ArrivalError> {
        let disk = self.arrivals.disk.clone();
        let before = self.kept.take();
        let (snapshot_id, manifest) = (self.snapshot_id, self.arrivals.manifest.load_full());
        let announced = self.message.get_snapshot().clone();
        let opened = spawn_blocking(move || {
            if let Some(Kept { snapshot_id: of, mut receiving, .. }) = before {
                if of == snapshot_id && receiving.last().is_some() {
                    return receiving.go_on(chunk).map(|()| receiving);
                }
                discard(receiving, &*disk);
            }
            let expected = Expected { live: &manifest, announced: &announced, seed: snapshot_id };
            Receiving::begin(&*disk, &expected, chunk)
        });
        let receiving = opened.await.map_err(|_| ArrivalError::Stopped)??;
        info!(index = receiving.applied().index, "the whole state of another member arrives");
        *self.kept = Some(Kept { snapshot_id, receiving, since: Instant::now() });
        Ok(())
    }

    async fn finish(&mut self, receiving: Receiving) -> Result<(), ArrivalError> {
        let disk = self.arrivals.disk.clone();
        let began = Instant::now();
        let finished = spawn_blocking(move || receiving.finish(&*disk));
        let filled = finished.await.map_err(|_| ArrivalError::Stopped)??;
        // What is left to do at the end is to make it durable.
        self.arrivals.metrics.snap_db_fsync_seconds.observe(began.elapsed().as_secs_f64());
        let (ended, hears) = oneshot::channel();
        let received = Received { message: self.message.clone(), filled, ended };
        // The node thread is gone only when the process is about to be.
        drop(self.arrivals.node.send(NodeInput::Received(Box::new(received))));
        if let Some(unneeded) = hears.await.map_err(|_| ArrivalError::Stopped)? {
            info!(index = unneeded.applied().index, "the state of another member was not needed any more");
            let disk = self.arrivals.disk.clone();
            let discarded = spawn_blocking(move || unneeded.discard(&*disk)).await;
            if let Ok(Err(error)) = discarded {
                warn!(%error, "files of a state that is not needed stay until the next start");
            }
        }
        Ok(())
    }
}

impl Drop for Arrival<'_> {
    /// What was cut off is thrown away unless it goes on.
    fn drop(&mut self) {
        if self.kept.is_none() {
            return;
        }
        let (arrivals, kept_for) = (self.arrivals, self.arrivals.kept_for);
        let (kept, disk) = (arrivals.kept.clone(), arrivals.disk.clone());
        tokio::spawn(async move {
            tokio::time::sleep(kept_for).await;
            let mut kept = kept.lock().await;
            if let Some(old) = kept.take_if(|kept| kept.since.elapsed() >= kept_for) {
                warn!(
                    index = old.receiving.applied().index,
                    "the state of another member was cut off, and does not go on"
                );
                _ = spawn_blocking(move || discard(old.receiving, &*disk)).await;
            }
        });
    }
}

fn discard(receiving: Receiving, disk: &dyn Disk) {
    if let Err(error) = receiving.discard(disk) {
        warn!(%error, "files of a state that arrived in part stay until the next one, or the next start");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use basalt_storage::disk::SimulatedDisk;

    use super::*;
    use crate::transfer::MemberSnapshot;
    use crate::transfer::tests::{chunks, receiver_of, sender};

    #[tokio::test]
    async fn what_was_cut_off_waits_for_a_while() {
        let snapshot = MemberSnapshot::of(&sender(), 7);
        let disk = SimulatedDisk::new(2);
        let manifest = receiver_of(&disk).checkpointer.manifest().clone();
        let (node, _inbox) = channel();
        let mut arrivals =
            Arrivals::new(Arc::new(disk), Arc::new(ArcSwap::from_pointee(manifest)), node, Arc::default());
        let message = Message { snapshot: Some(snapshot.raft_snapshot()), ..Message::default() };
        for (snapshot_id, kept_for) in [(3, KEPT_FOR), (4, Duration::ZERO)] {
            arrivals.kept_for = kept_for;
            let mut arrival = arrivals.begin(snapshot_id, message.clone()).expect("nothing else arrives");
            for chunk in chunks(&snapshot, None).into_iter().take(4) {
                assert!(!arrival.take(chunk).await.expect("it is one"), "there is more");
            }
            drop(arrival);
            if kept_for == KEPT_FOR {
                assert!(arrivals.position(snapshot_id).known, "it may go on");
            }
        }
        // It is thrown away beside this, and nothing is begun meanwhile.
        let is_free = || arrivals.begin(5, message.clone()).is_ok_and(|arrival| arrival.kept.is_none());
        while !is_free() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(!arrivals.position(4).known);
    }
}
