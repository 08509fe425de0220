//! A whole state of another member that arrives here.

use std::sync::Arc;
use std::sync::mpsc::Sender;

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

/// Where states arrive, one at a time. What was cut off waits to go on.
pub struct Arrivals {
    disk: Arc<dyn Disk>,
    manifest: Arc<ArcSwap<Manifest>>,
    node: Sender<NodeInput>,
    kept: Arc<Mutex<Option<Kept>>>,
}

struct Kept {
    snapshot_id: u64,
    receiving: Receiving,
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
    pub fn new(disk: Arc<dyn Disk>, manifest: Arc<ArcSwap<Manifest>>, node: Sender<NodeInput>) -> Self {
        Self { disk, manifest, node, kept: Arc::default() }
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
        let Some(Kept { mut receiving, snapshot_id }) = self.kept.take() else { return Err(ArrivalError::Busy) };
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
        *self.kept = Some(Kept { snapshot_id, receiving });
        Ok(false)
    }

    /// Takes the head.
    async fn open(&mut self, chunk: Bytes) -> Result<(), ArrivalError> {
        let disk = self.arrivals.disk.clone();
        let before = self.kept.take();
        let (snapshot_id, manifest) = (self.snapshot_id, self.arrivals.manifest.load_full());
        let announced = self.message.get_snapshot().clone();
        let opened = spawn_blocking(move || {
            if let Some(Kept { snapshot_id: of, mut receiving }) = before {
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
        *self.kept = Some(Kept { snapshot_id, receiving });
        Ok(())
    }

    async fn finish(&mut self, receiving: Receiving) -> Result<(), ArrivalError> {
        let disk = self.arrivals.disk.clone();
        let finished = spawn_blocking(move || receiving.finish(&*disk));
        let filled = finished.await.map_err(|_| ArrivalError::Stopped)??;
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

fn discard(receiving: Receiving, disk: &dyn Disk) {
    if let Err(error) = receiving.discard(disk) {
        warn!(%error, "files of a state that arrived in part stay until the next one, or the next start");
    }
}
