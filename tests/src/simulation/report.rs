//! What runs came to.

use std::collections::BTreeMap;
use std::time::Duration;

/// What a run came to, or many.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Of everything that happened, in order.
    pub fingerprint: u64,
    /// Runs.
    pub seeds: usize,
    /// How long they were, in their own time.
    pub virtual_time: Duration,
    /// Steps of members.
    pub turns: u64,
    /// What clients and members did and saw, by name.
    pub counts: BTreeMap<&'static str, u64>,
    /// Faults, by their kind.
    pub faults: BTreeMap<&'static str, u64>,
}

impl Report {
    /// Counts something.
    pub fn count(&mut self, what: &'static str, times: u64) {
        *self.counts.entry(what).or_default() += times;
    }

    /// How often something was counted.
    pub fn counted(&self, what: &str) -> u64 {
        self.counts.get(what).copied().unwrap_or_default()
    }

    /// Adds another run, or many.
    pub fn add(&mut self, other: &Report) {
        self.fingerprint ^= other.fingerprint;
        self.seeds += other.seeds;
        self.virtual_time += other.virtual_time;
        self.turns += other.turns;
        for (all, one) in [(&mut self.counts, &other.counts), (&mut self.faults, &other.faults)] {
            for (name, count) in one {
                *all.entry(name).or_default() += count;
            }
        }
    }

    /// In a line.
    pub fn line(&self) -> String {
        let list = |counts: &BTreeMap<&str, u64>| {
            counts.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
        };
        format!("turns {}, {}; faults: {}", self.turns, list(&self.counts), list(&self.faults))
    }
}
