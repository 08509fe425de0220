//! Whole states that leave for other members, and one that arrives.

use std::collections::BTreeMap;
use std::sync::Arc;

use basalt_server::node::core::Input;
use basalt_server::transfer::{Expected, MemberSnapshot, Receiving};
use basalt_storage::checkpoint::Filled;
use basalt_storage::checkpoint::manifest::Manifest;
use basalt_storage::disk::SimulatedDisk;
use basalt_storage::revision::Revision;
use bytes::Bytes;
use raft::prelude::Message;

use crate::over::{Over, over};

/// Both directions.
#[derive(Default)]
pub(super) struct TransferSide {
    /// By receiver, until Raft has them sent.
    made: BTreeMap<u64, Arc<MemberSnapshot>>,
    arriving: Option<Arriving>,
    /// Arrived, and not installed yet.
    filled: Option<Filled>,
}

struct Arriving {
    id: u64,
    receiving: Receiving,
}

impl TransferSide {
    pub(super) fn made(&mut self, to: u64, snapshot: MemberSnapshot) -> Input {
        let offered = Box::new(snapshot.raft_snapshot());
        self.made.insert(to, Arc::new(snapshot));
        Input::SnapshotOffer { to, snapshot: offered }
    }

    /// The state that a message announces, unless another one was made since.
    pub(super) fn take_made(&mut self, message: &Message) -> Option<Arc<MemberSnapshot>> {
        let announced = message.get_snapshot().get_metadata().index;
        self.made.remove(&message.to).filter(|made| made.position().index == announced)
    }

    /// The last revision of state `id` that is here.
    pub(super) fn last(&self, id: u64) -> Option<Revision> {
        self.arriving.as_ref().filter(|arriving| arriving.id == id)?.receiving.last()
    }

    /// The first chunk of a stream.
    ///
    /// # Errors
    /// [`Over`]; so with the others.
    pub(super) fn open(
        &mut self,
        disk: &SimulatedDisk,
        id: u64,
        live: &Manifest,
        message: &Message,
        head: Bytes,
    ) -> Result<(), Over> {
        if self.last(id).is_some()
            && let Some(Arriving { receiving, .. }) = &mut self.arriving
        {
            receiving.go_on(head).expect("the same state");
            return Ok(());
        }
        if let Some(Arriving { receiving, .. }) = self.arriving.take() {
            receiving.discard(disk).map_err(|error| over("discarding a state", &error))?;
        }
        let expected = Expected { live, announced: message.get_snapshot(), seed: id };
        let receiving = Receiving::begin(disk, &expected, head).map_err(|error| over("receiving a state", &error))?;
        self.arriving = Some(Arriving { id, receiving });
        Ok(())
    }

    /// A further chunk; says whether it was the last, and gives what Raft is told then. `None` if another state arrives by
    /// now.
    pub(super) fn take(
        &mut self,
        disk: &SimulatedDisk,
        of: u64,
        message: &Message,
        chunk: Bytes,
    ) -> Result<Option<(bool, Option<Input>)>, Over> {
        let Some(Arriving { id, mut receiving }) = self.arriving.take_if(|arriving| arriving.id == of) else {
            return Ok(None);
        };
        if !receiving.take(disk, chunk).map_err(|error| over("receiving a state", &error))? {
            self.arriving = Some(Arriving { id, receiving });
            return Ok(Some((false, None)));
        }
        let filled = receiving.finish(disk).map_err(|error| over("finishing a state", &error))?;
        if self.filled.is_some() {
            filled.discard(disk).map_err(|error| over("discarding a state", &error))?;
            return Ok(Some((true, None)));
        }
        self.filled = Some(filled);
        Ok(Some((true, Some(Input::Received(Box::new(message.clone()))))))
    }

    pub(super) fn has_filled(&self) -> bool {
        self.filled.is_some()
    }

    /// What is to be installed.
    pub(super) fn take_filled(&mut self) -> Filled {
        self.filled.take().expect("the core installs what was received, once")
    }

    pub(super) fn discard(&mut self, disk: &SimulatedDisk) {
        if let Some(filled) = self.filled.take() {
            filled.discard(disk).expect("nobody stops this disk");
        }
    }
}
