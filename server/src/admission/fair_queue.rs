//! Queues that take turns: deficit round robin (Shreedhar and Varghese 1995) by bytes.

use std::collections::VecDeque;

use basalt_proto::log::Request;

use super::class::{Class, Proposal};

/// Bytes of one turn, times the weight: small beside a round, so that every class has many turns in it.
const TURN_BYTES: usize = 64 << 10;

/// Weights: the control class and shard 0, which takes all keys that no other shard claims, against each other shard.
const WEIGHT_FIRST: usize = 4;
const WEIGHT_OTHER: usize = 2;

/// What passed a place so far; grows only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// How many.
    pub proposals: u64,
    /// What they took in memory, about.
    pub bytes: u64,
}

impl Totals {
    fn add(&mut self, bytes: usize) {
        self.proposals += 1;
        self.bytes += bytes as u64;
    }
}

#[derive(Debug, Default)]
struct Waiting {
    proposals: VecDeque<Proposal>,
    /// Bytes that the class may still bring in its turn.
    credit: usize,
    left: Totals,
}

/// Proposals by class.
///
/// * Within a class first come, first served.
/// * While two classes wait, what one brings is in proportion to its weight, but for one turn and one request.
#[derive(Debug)]
pub struct FairQueue {
    classes: Vec<Waiting>,
    /// Whose turn it is.
    turn: usize,
    length: usize,
}

impl FairQueue {
    /// Empty queues for so many shards.
    pub fn new(shards: usize) -> Self {
        Self { classes: (0..=shards).map(|_| Waiting::default()).collect(), turn: 0, length: 0 }
    }

    /// Proposals that wait.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Adds one behind all of its class.
    pub fn push(&mut self, proposal: Proposal) {
        self.classes[proposal.class.position()].proposals.push_back(proposal);
        self.length += 1;
    }

    /// Takes the next one, if it has at most `bytes_max`; it stays the next one if it has more.
    pub fn take(&mut self, bytes_max: usize) -> Option<Proposal> {
        if self.is_empty() {
            return None;
        }
        loop {
            let class = &mut self.classes[self.turn];
            match class.proposals.front() {
                Some(next) if next.bytes <= class.credit => {
                    if next.bytes > bytes_max {
                        return None;
                    }
                    let next = class.proposals.pop_front()?;
                    class.credit -= next.bytes;
                    class.left.add(next.held_bytes);
                    self.length -= 1;
                    return Some(next);
                }
                Some(_) => {}
                // Who does not wait saves nothing for later.
                None => class.credit = 0,
            }
            self.turn = (self.turn + 1) % self.classes.len();
            self.classes[self.turn].credit += TURN_BYTES * weight(self.turn);
        }
    }

    /// Drops those that are not to be kept; returns how many.
    pub fn retain(&mut self, mut keep: impl FnMut(&Request) -> bool) -> usize {
        let before = self.length;
        for class in &mut self.classes {
            let left = &mut class.left;
            class.proposals.retain(|proposal| {
                let keeps = keep(&proposal.request);
                if !keeps {
                    left.add(proposal.held_bytes);
                }
                keeps
            });
        }
        self.length = self.classes.iter().map(|class| class.proposals.len()).sum();
        before - self.length
    }

    /// What has left, by [`Class::position`].
    pub fn left(&self) -> impl Iterator<Item = Totals> {
        self.classes.iter().map(|class| class.left)
    }
}

fn weight(position: usize) -> usize {
    if position <= Class::CONTROL.position() + 1 { WEIGHT_FIRST } else { WEIGHT_OTHER }
}
