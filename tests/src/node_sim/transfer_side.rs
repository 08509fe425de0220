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
    pub(super) fn open(&mut self, disk: &SimulatedDisk, id: u64, live: &Manifest, message: &Message, head: Bytes) {
        if self.last(id).is_some()
            && let Some(Arriving { receiving, .. }) = &mut self.arriving
        {
            receiving.go_on(head).expect("the same state");
            return;
        }
        if let Some(Arriving { receiving, .. }) = self.arriving.take() {
            receiving.discard(disk).expect("nobody stops this disk");
        }
        let expected = Expected { live, announced: message.get_snapshot(), seed: id };
        let receiving = Receiving::begin(disk, &expected, head).expect("an honest member's state");
        self.arriving = Some(Arriving { id, receiving });
    }

    /// A further chunk; says whether it was the last, and gives what Raft is told then. `None` if another state arrives by
    /// now.
    pub(super) fn take(
        &mut self,
        disk: &SimulatedDisk,
        of: u64,
        message: &Message,
        chunk: Bytes,
    ) -> Option<(bool, Option<Input>)> {
        let Arriving { id, mut receiving } = self.arriving.take_if(|arriving| arriving.id == of)?;
        if !receiving.take(disk, chunk).expect("an honest member's state") {
            self.arriving = Some(Arriving { id, receiving });
            return Some((false, None));
        }
        let filled = receiving.finish(disk).expect("nobody stops this disk");
        if self.filled.is_some() {
            filled.discard(disk).expect("nobody stops this disk");
            return Some((true, None));
        }
        self.filled = Some(filled);
        Some((true, Some(Input::Received(Box::new(message.clone())))))
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
