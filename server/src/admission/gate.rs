//! The bounds before the log. Counters only: any thread may ask, none waits.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use basalt_storage::mvcc::shard_map::ShardId;
use thiserror::Error;

use super::class::{Class, Proposal};
use super::fair_queue::Totals;

/// Proposals of one class that may wait to be ordered. Twice as many, if the store does not grow by the next one.
pub const PROPOSALS_WAITING_MAX: u64 = 32_768;

/// Bytes of memory that one class may take while it waits to be ordered; a single proposal may always wait. Twice as much, as above.
pub const BYTES_WAITING_MAX: u64 = 128 << 20;

/// Too much of a class waits already.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("too many requests")]
pub struct Full;

#[derive(Debug, Default)]
struct Counters {
    entered: [AtomicU64; 2],
    /// Written by the one who orders.
    left: [AtomicU64; 2],
    refused: AtomicU64,
    delta_bytes: AtomicU64,
}

impl Counters {
    fn load(&self) -> ClassLoad {
        // What left has entered before; read in this order the difference is never below nothing but for a moment.
        let waiting = |at: usize| {
            let left = self.left[at].load(Relaxed);
            self.entered[at].load(Relaxed).saturating_sub(left)
        };
        ClassLoad { proposals: waiting(0), bytes: waiting(1), refused: self.refused.load(Relaxed) }
    }
}

/// How much of a class waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClassLoad {
    /// Proposals that wait to be ordered.
    pub proposals: u64,
    /// What they take in memory, about.
    pub bytes: u64,
    /// Proposals that were refused since the start.
    pub refused: u64,
}

/// What waits, by class, and what is in no checkpoint yet, by shard.
#[derive(Debug)]
pub struct Gate {
    classes: Box<[Counters]>,
    delta_bytes_max: u64,
}

impl Gate {
    /// A gate in front of so many shards. `delta_bytes_max` bounds the revisions in memory, of all shards, beyond which
    /// nothing that grows is ordered until a checkpoint took some: a disk that is too slow, or full, must not become memory
    /// without end. Shard 0 has half of it, the others share the rest, so that whoever fills his share waits alone.
    /// Deletes go on: there are never more of them than keys.
    pub fn new(shards: usize, delta_bytes_max: u64) -> Self {
        Self { classes: (0..=shards).map(|_| Counters::default()).collect(), delta_bytes_max }
    }

    /// Lets a proposal of a caller in, if there is room for it.
    ///
    /// # Errors
    /// [`Full`]; the caller may try again when something has left.
    pub fn admit(&self, proposal: &Proposal) -> Result<(), Full> {
        let class = &self.classes[proposal.class.position()];
        let bytes = proposal.held_bytes as u64;
        let reserve = if proposal.grows { 1 } else { 2 };
        let load = self.load(proposal.class);
        let crowded = load.proposals >= PROPOSALS_WAITING_MAX * reserve
            || (load.bytes > 0 && load.bytes + bytes > BYTES_WAITING_MAX * reserve);
        let delta_is_full = class.delta_bytes.load(Relaxed) > self.delta_share(proposal.class);
        if crowded || (proposal.grows && delta_is_full) {
            class.refused.fetch_add(1, Relaxed);
            return Err(Full);
        }
        self.enter(proposal);
        Ok(())
    }

    /// Lets a proposal of the node itself in.
    pub fn enter(&self, proposal: &Proposal) {
        let [proposals, bytes] = &self.classes[proposal.class.position()].entered;
        proposals.fetch_add(1, Relaxed);
        bytes.fetch_add(proposal.held_bytes as u64, Relaxed);
    }

    /// Remembers what has left, by [`Class::position`].
    pub fn set_left(&self, left: impl Iterator<Item = Totals>) {
        for (class, Totals { proposals, bytes }) in self.classes.iter().zip(left) {
            class.left[0].store(proposals, Relaxed);
            class.left[1].store(bytes, Relaxed);
        }
    }

    /// Remembers how much of a shard is in no checkpoint yet.
    pub fn set_delta_bytes(&self, shard: ShardId, bytes: u64) {
        self.classes[Class::of_shard(shard).position()].delta_bytes.store(bytes, Relaxed);
    }

    /// What waits of a class.
    pub fn load(&self, class: Class) -> ClassLoad {
        self.classes[class.position()].load()
    }

    /// What waits, by [`Class::position`].
    pub fn loads(&self) -> impl Iterator<Item = ClassLoad> {
        self.classes.iter().map(Counters::load)
    }

    /// Bytes that a shard may have in no checkpoint; without end for the control class, whose tables are small.
    fn delta_share(&self, class: Class) -> u64 {
        let others = (self.classes.len() as u64).saturating_sub(2);
        match class.position() {
            0 => u64::MAX,
            1 if others == 0 => self.delta_bytes_max,
            1 => self.delta_bytes_max / 2,
            _ => self.delta_bytes_max / 2 / others,
        }
    }
}
