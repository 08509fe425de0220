//! Whole states on their way between members: piece by piece, cut off, and going on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use basalt_server::transfer::{MemberSnapshot, SnapshotStream};
use basalt_storage::job::run;
use raft::prelude::Message;
use rand::Rng;
use rand::rngs::StdRng;

use super::network::Network;
use crate::node_sim::SimulatedNode;

/// Streams of one state that may fail.
const FAILURES_MAX: u32 = 3;
const BACKOFF: Duration = Duration::from_millis(200);
/// About.
const REVISIONS_A_CHUNK: usize = 16;
/// Between two chunks, at most.
const PAUSE: Duration = Duration::from_millis(30);

/// One state on its way.
pub struct Transfer {
    id: u64,
    message: Message,
    snapshot: Arc<MemberSnapshot>,
    /// Lives of sender and receiver in which it began.
    lives: (u64, u64),
    stream: Option<SnapshotStream>,
    is_open: bool,
    /// All of it is there, and not yet installed.
    is_whole: bool,
    failures: u32,
}

/// A member that is up, and its life.
pub struct End<'a> {
    /// It.
    pub node: &'a mut SimulatedNode,
    /// Which of its lives.
    pub life: u64,
}

/// All of them, by when they go on.
#[derive(Default)]
pub struct Transfers {
    waiting: BTreeMap<(Duration, u64), Transfer>,
    begun: u64,
    /// Those that went on after they were cut off.
    pub resumed: usize,
}

impl Transfers {
    /// A state leaves.
    pub fn begin(&mut self, message: Message, snapshot: Arc<MemberSnapshot>, lives: (u64, u64), now: Duration) {
        // A newer state for the same member takes the place of an older one.
        self.waiting.retain(|_, other| (other.message.from, other.message.to) != (message.from, message.to));
        self.begun += 1;
        let (id, stream) = (self.begun, None);
        let transfer = Transfer { id, message, snapshot, lives, stream, is_open: false, is_whole: false, failures: 0 };
        self.waiting.insert((now, id), transfer);
    }

    /// In words, for whoever finds one stuck.
    pub fn state(&self) -> String {
        let one = |((time, id), transfer): (&(Duration, u64), &Transfer)| {
            let Transfer { message, is_open, is_whole, failures, .. } = transfer;
            let (from, to) = (message.from, message.to);
            format!("{id} from {from} to {to} at {time:?}: open {is_open}, whole {is_whole}, failures {failures}")
        };
        self.waiting.iter().map(one).collect::<Vec<_>>().join("; ")
    }

    /// When the next one goes on.
    pub fn next(&self) -> Option<Duration> {
        self.waiting.first_key_value().map(|((time, _), _)| *time)
    }

    /// The one that is next, and its sender and receiver.
    pub fn take_next(&mut self) -> Option<(Transfer, u64, u64)> {
        let (_, transfer) = self.waiting.pop_first()?;
        let (from, to) = (transfer.message.from, transfer.message.to);
        Some((transfer, from, to))
    }

    /// One goes on later.
    pub fn put_off(&mut self, transfer: Transfer, until: Duration) {
        self.waiting.insert((until, transfer.id), transfer);
    }

    /// Goes on with one by a chunk; ends there when an end of it died.
    pub fn go_on(
        &mut self,
        mut transfer: Transfer,
        from: Option<End<'_>>,
        to: Option<End<'_>>,
        network: &Network,
        now: Duration,
        random: &mut StdRng,
    ) {
        let Some(from) = from.filter(|from| from.life == transfer.lives.0) else { return };
        let (sender, receiver) = (transfer.message.from, transfer.message.to);
        let alive = to.filter(|to| to.life == transfer.lives.1);
        let is_cut = network.is_cut(sender, receiver) || network.is_cut(receiver, sender);
        let weather = random.random_ratio(network.weather.loss_percent.min(50), 100);
        // One state at a time arrives.
        let is_busy = self.waiting.values().any(|other| other.is_open && other.message.to == receiver);
        let takes = |to: &End<'_>| transfer.is_whole || !(is_busy || to.node.is_installing());
        let Some(to) = alive.filter(|to| !is_cut && !weather && takes(to)) else {
            (transfer.stream, transfer.is_open) = (None, false);
            transfer.failures += 1;
            if transfer.failures > FAILURES_MAX {
                return from.node.snapshot_sent(receiver, transfer.is_whole);
            }
            self.waiting.insert((now + BACKOFF * 2u32.pow(transfer.failures), transfer.id), transfer);
            return;
        };
        if transfer.is_whole {
            if !to.node.is_installing() {
                return from.node.snapshot_sent(receiver, true);
            }
        } else {
            self.send_chunk(&mut transfer, from.node, to.node);
        }
        self.waiting.insert((now + PAUSE.mul_f64(random.random()), transfer.id), transfer);
    }

    fn send_chunk(&mut self, transfer: &mut Transfer, from: &SimulatedNode, to: &mut SimulatedNode) {
        let (id, snapshot) = (transfer.id, &transfer.snapshot);
        let resumed = &mut self.resumed;
        let stream = transfer.stream.get_or_insert_with(|| {
            let last = to.arrived(id);
            *resumed += usize::from(last.is_some());
            snapshot.stream(last)
        });
        let chunk = run(&mut stream.next_chunk(), from.disk(), REVISIONS_A_CHUNK).expect("the sender's disk is whole");
        let chunk = chunk.expect("nobody asks behind the end");
        if transfer.is_open {
            match to.take_arrival(id, &transfer.message, chunk) {
                Some(is_whole) => transfer.is_whole = is_whole,
                None => (transfer.stream, transfer.is_open) = (None, false),
            }
        } else {
            to.open_arrival(id, &transfer.message, chunk);
            transfer.is_open = true;
        }
    }
}
