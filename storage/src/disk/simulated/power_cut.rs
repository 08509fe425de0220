//! Who survives a power cut.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// How a power cut chooses among the changes that were not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerCut {
    /// All of them are lost.
    KeepNone,
    /// All of them are there, whole.
    KeepAll,
    /// Of the first 64 those whose bit is set are there, whole and in their last state; none of the others. With as many
    /// numbers as there are subsets of [`SimulatedDisk::unsynced_changes`](super::SimulatedDisk::unsynced_changes),
    /// this is every way in which whole changes can be lost.
    Subset(u64),
    /// Each sector, length and name on its own is lost, kept or torn, drawn from the seed.
    Seeded(u64),
}

/// Draws the fate of each change of one power cut.
#[derive(Debug)]
pub(super) struct Fates {
    policy: PowerCut,
    /// Changes asked about so far.
    asked: u32,
    random: StdRng,
    /// Drawn once per power cut, so that some lose little and some lose much.
    survival: f64,
}

/// Of ten surviving sectors drawn from a seed, about one is torn.
const TEAR_PROBABILITY: f64 = 0.1;

impl Fates {
    pub(super) fn new(policy: PowerCut) -> Self {
        let seed = if let PowerCut::Seeded(seed) = policy { seed } else { 0 };
        let mut random = StdRng::seed_from_u64(seed);
        let survival = [0.1, 0.5, 0.9][random.random_range(0..3)];
        Self { policy, asked: 0, random, survival }
    }

    /// Whether one change survives.
    pub(super) fn survives(&mut self) -> bool {
        let number = self.asked;
        self.asked += 1;
        match self.policy {
            PowerCut::KeepNone => false,
            PowerCut::KeepAll => true,
            PowerCut::Subset(kept) => kept.checked_shr(number).is_some_and(|rest| rest & 1 == 1),
            PowerCut::Seeded(_) => self.random.random_bool(self.survival),
        }
    }

    /// Which of `count` successive states survives: `None` is the one before the first.
    pub(super) fn survivor(&mut self, count: usize) -> Option<usize> {
        let last = count.checked_sub(1)?;
        if !self.survives() {
            return None;
        }
        let seeded = matches!(self.policy, PowerCut::Seeded(_));
        Some(if seeded { self.random.random_range(0..count) } else { last })
    }

    /// Where a surviving sector of `length` bytes is torn, if it is: bytes before the place are new, those from
    /// there on old.
    pub(super) fn tear(&mut self, length: usize) -> Option<usize> {
        let seeded = matches!(self.policy, PowerCut::Seeded(_));
        (seeded && self.random.random_bool(TEAR_PROBABILITY)).then(|| self.random.random_range(1..length))
    }
}
