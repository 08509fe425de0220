//! A log beside a naive model of it.

use bytes::Bytes;
use proptest::prelude::*;

use crate::disk::{Disk, SimulatedDisk};
use crate::job::{self, Job};
use crate::wal::{Entry, HardState, Identity, Log, LogOptions, Record, Recovered, Recovery, WalError};

pub(super) const IDENTITY: Identity = Identity { cluster: 7, member: 8, incarnation: 9 };
/// Small, so that a short workload rolls over often: two blocks of head, and two or six of batches.
pub(super) const SMALL: LogOptions = LogOptions { segment_bytes: 8 * 4096, first_segment_bytes: 4 * 4096 };

/// One thing that a workload does; figures are taken relative to the log as it is then.
#[derive(Clone, Copy, Debug)]
pub(super) enum Action {
    /// Gathers entries of so many bytes, in a new term if asked.
    Append {
        count: u8,
        bytes: u16,
        new_term: bool,
    },
    /// Gathers a truncation of that many entries, as far as they are not committed, and an entry in their place.
    Conflict {
        entries: u8,
    },
    /// Gathers a hard state that commits all but that many entries.
    Commit {
        behind: u8,
    },
    /// Gathers a new start behind a snapshot that far ahead.
    StartAfter {
        ahead: u8,
    },
    /// Writes everything gathered, batch by batch.
    Flush,
    Prepare,
    /// Recycles below the commit index less that many.
    Recycle {
        behind: u8,
    },
}

pub(super) fn actions() -> impl Strategy<Value = Vec<Action>> {
    let action = prop_oneof![
        6 => (1..4u8, 0..5000u16, any::<bool>())
            .prop_map(|(count, bytes, new_term)| Action::Append { count, bytes, new_term }),
        1 => (0..5u8).prop_map(|entries| Action::Conflict { entries }),
        2 => (0..4u8).prop_map(|behind| Action::Commit { behind }),
        1 => (0..9u8).prop_map(|ahead| Action::StartAfter { ahead }),
        6 => Just(Action::Flush),
        2 => Just(Action::Prepare),
        2 => (0..9u8).prop_map(|behind| Action::Recycle { behind }),
    ];
    prop::collection::vec(action, 1..40)
}

/// What the log should hold: the whole of it, as if nothing were ever recycled.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Model {
    pub(super) entries: Vec<Entry>,
    pub(super) base: (u64, u64),
    pub(super) hard_state: HardState,
    pub(super) generation: u64,
}

impl Model {
    fn apply(&mut self, record: &Record) {
        match record {
            Record::Entry(entry) => self.entries.push(entry.clone()),
            Record::HardState(state) => self.hard_state = *state,
            Record::TruncateFrom { index } => self.entries.retain(|entry| entry.index < *index),
            Record::StartAfter { index, term } => {
                self.entries.clear();
                self.base = (*index, *term);
            }
        }
    }

    fn last(&self) -> (u64, u64) {
        self.entries.last().map_or(self.base, |entry| (entry.index, entry.term))
    }

    /// Whether a recovery found exactly this, but for entries below `recycled_below`.
    pub(super) fn is_found(&self, recovered: &Recovered, recycled_below: u64) -> bool {
        let kept = self.entries.iter().filter(|entry| entry.index > recovered.previous_index);
        let previous = self.entries.iter().find(|entry| entry.index == recovered.previous_index);
        let previous = previous.map_or(self.base, |entry| (entry.index, entry.term));
        kept.eq(&recovered.entries)
            && self.last().0 == recovered.log.last_index()
            && previous == (recovered.previous_index, recovered.previous_term)
            && recovered.previous_index < recycled_below.max(self.base.0 + 1)
            && self.hard_state == recovered.hard_state
            && self.generation == recovered.newest_manifest_generation
    }
}

/// A log on a disk, and what it should hold after each batch.
pub(super) struct Workload {
    pub(super) disk: SimulatedDisk,
    pub(super) log: Log,
    /// The state with everything gathered.
    pub(super) model: Model,
    /// The state after each batch, by number.
    pub(super) after_batch: Vec<Model>,
    pub(super) durable_batch: u64,
    pub(super) recycled_below: u64,
}

impl Workload {
    pub(super) fn create(disk: &SimulatedDisk) -> Result<Self, WalError> {
        let log = job::run(&mut Log::create(IDENTITY, SMALL, 1), disk, 1)?.log;
        Ok(Self {
            disk: disk.clone(),
            log,
            model: Model::default(),
            after_batch: vec![Model::default()],
            durable_batch: 0,
            recycled_below: 0,
        })
    }

    pub(super) fn run(&mut self, actions: &[Action]) -> Result<(), WalError> {
        actions.iter().try_for_each(|action| self.act(*action))
    }

    fn act(&mut self, action: Action) -> Result<(), WalError> {
        let (last_index, last_term) = self.model.last();
        let commit = self.model.hard_state.commit;
        match action {
            Action::Append { count, bytes, new_term } => {
                let term = (last_term + u64::from(new_term)).max(1);
                let entry = |offset| Record::Entry(entry(last_index + offset, term, usize::from(bytes)));
                self.gather((1..=u64::from(count)).map(entry).collect());
            }
            Action::Conflict { entries } => {
                let floor = commit.max(self.model.base.0);
                let index = last_index.saturating_sub(u64::from(entries)).max(floor) + 1;
                let replacement = Record::Entry(entry(index, last_term + 1, 10));
                self.gather(vec![Record::TruncateFrom { index }, replacement]);
            }
            Action::Commit { behind } => {
                let commit = last_index.saturating_sub(u64::from(behind)).max(commit);
                let vote = last_index % 3;
                self.gather(vec![Record::HardState(HardState { term: last_term, vote, commit })]);
            }
            Action::StartAfter { ahead } => {
                let (index, term) = (last_index + u64::from(ahead), last_term + 1);
                let state = HardState { term, vote: 0, commit: index };
                self.gather(vec![Record::StartAfter { index, term }, Record::HardState(state)]);
            }
            Action::Flush => self.flush()?,
            Action::Prepare => {
                if let Some(mut prepare) = self.log.prepare() {
                    let prepared = self.perform(&mut prepare)?;
                    self.log.finish_prepare(prepared);
                }
            }
            Action::Recycle { behind } => {
                // Only what is durably committed may be recycled.
                let committed = self.after_batch[self.durable_batch as usize].hard_state.commit;
                let below = committed.saturating_sub(u64::from(behind));
                self.recycled_below = self.recycled_below.max(below);
                if let Some(mut recycle) = self.log.recycle_below(below) {
                    let recycled = self.perform(&mut recycle)?;
                    self.log.finish_recycle(recycled);
                }
            }
        }
        Ok(())
    }

    pub(super) fn gather(&mut self, records: Vec<Record>) {
        records.iter().for_each(|record| self.model.apply(record));
        self.model.generation += 1;
        let number = self.log.append(records, self.model.generation).expect("small enough") as usize;
        self.after_batch.resize(number, self.model.clone());
        self.after_batch.push(self.model.clone());
    }

    pub(super) fn flush(&mut self) -> Result<(), WalError> {
        while let Some(mut batch) = self.log.start_batch() {
            let durable = self.perform(&mut batch)?;
            assert_eq!(durable.number, self.durable_batch + 1);
            assert_eq!(durable.last_index, self.after_batch[durable.number as usize].last().0);
            self.log.finish_batch(&durable);
            self.durable_batch = durable.number;
        }
        Ok(())
    }

    fn perform<J: Job<Error = WalError>>(&self, job: &mut J) -> Result<J::Output, WalError> {
        job::run(job, &self.disk as &dyn Disk, 1)
    }

    /// The batch whose state a recovery found. Panics unless it is one that was appended, and holds everything
    /// that was reported durable.
    pub(super) fn batch_found(&self, recovered: &Recovered) -> u64 {
        let possible = self.durable_batch as usize..self.after_batch.len();
        let found = possible.clone().find(|batch| self.after_batch[*batch].is_found(recovered, self.recycled_below));
        found.unwrap_or_else(|| panic!("none of {possible:?} is {recovered:?}")) as u64
    }
}

pub(super) fn recover(disk: &SimulatedDisk, salt_seed: u64) -> Result<Recovered, WalError> {
    job::run(&mut Recovery::new(Some(IDENTITY), SMALL, salt_seed), disk, 1)
}

pub(super) fn entry(index: u64, term: u64, bytes: usize) -> Entry {
    Entry { index, term, kind: (index % 3) as u8, data: Bytes::from(vec![(index + term) as u8; bytes]) }
}
