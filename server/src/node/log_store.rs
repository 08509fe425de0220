//! The Raft log as the `raft` crate reads it: entries in memory, from the oldest kept to the newest.
//!
//! What is durable is the log's business ([`basalt_storage::wal`]); an entry stands here as soon as it is handed out to be
//! appended.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use raft::prelude::{ConfState, Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};

/// Entries, HardState and members.
#[derive(Default)]
pub struct LogStore {
    /// Index and term before the first entry.
    before: (u64, u64),
    entries: VecDeque<Entry>,
    /// Data of all entries.
    bytes: usize,
    hard_state: HardState,
    conf_state: ConfState,
    snapshots: RefCell<Snapshots>,
}

/// What Raft is told when it asks for a snapshot, which others make.
#[derive(Default)]
struct Snapshots {
    /// Members for which it asked in vain.
    wanted: BTreeSet<u64>,
    /// By member.
    offered: BTreeMap<u64, Snapshot>,
}

impl LogStore {
    /// A store of what recovery found. `before` is index and term of the entry before the first.
    ///
    /// # Panics
    /// When the entries do not follow one another.
    pub fn new(before: (u64, u64), entries: Vec<Entry>, hard_state: HardState, conf_state: ConfState) -> Self {
        let ascending = (before.0 + 1..).zip(&entries).all(|(index, entry)| entry.index == index);
        assert!(ascending, "log entries follow one another");
        let bytes = entries.iter().map(|entry| entry.data.len()).sum();
        let snapshots = RefCell::default();
        Self { before, entries: entries.into(), bytes, hard_state, conf_state, snapshots }
    }

    /// Forgets all entries: the log goes on behind a snapshot of the entry `before` (index and term), with these members.
    pub fn restart(&mut self, before: (u64, u64), conf_state: ConfState) {
        (self.before, self.conf_state) = (before, conf_state);
        self.entries.clear();
        self.bytes = 0;
    }

    /// Who belongs to the cluster from now on.
    pub fn set_conf_state(&mut self, conf_state: ConfState) {
        self.conf_state = conf_state;
    }

    /// Members for which Raft asked for a snapshot since the last call and got none.
    pub fn take_wanted(&mut self) -> BTreeSet<u64> {
        std::mem::take(&mut self.snapshots.get_mut().wanted)
    }

    /// What Raft gets when it asks again for this member.
    pub fn offer(&mut self, member: u64, snapshot: Snapshot) {
        self.snapshots.get_mut().offered.insert(member, snapshot);
    }

    /// Forgets what was not asked for again.
    pub fn withdraw(&mut self, member: u64) {
        self.snapshots.get_mut().offered.remove(&member);
    }

    /// Data of all entries in memory, bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Appends entries, replacing those from the first's index on.
    pub fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        assert!(first.index > self.before.0 && first.index <= self.last() + 1, "entries leave no gap");
        let kept = (first.index - self.before.0 - 1) as usize;
        self.bytes -= self.entries.range(kept..).map(|entry| entry.data.len()).sum::<usize>();
        self.entries.truncate(kept);
        self.bytes += entries.iter().map(|entry| entry.data.len()).sum::<usize>();
        self.entries.extend(entries.iter().cloned());
    }

    /// Remembers the HardState.
    pub fn set_hard_state(&mut self, hard_state: HardState) {
        self.hard_state = hard_state;
    }

    /// How many entries it has.
    #[allow(clippy::len_without_is_empty)] // nobody asks
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// The HardState.
    pub fn hard_state(&self) -> &HardState {
        &self.hard_state
    }

    /// Drops entries up to `index`, which were applied, but for the last `kept_entries` of them or `kept_bytes` of data,
    /// whichever is less: members that lag behind get these without a snapshot.
    pub fn release(&mut self, index: u64, kept_entries: u64, kept_bytes: usize) {
        let keep_from = (index + 1).saturating_sub(kept_entries);
        while let Some(first) = self.entries.front()
            && first.index <= index
            && (first.index < keep_from || self.bytes > kept_bytes)
        {
            self.before = (first.index, first.term);
            self.bytes -= first.data.len();
            self.entries.pop_front();
        }
    }

    fn last(&self) -> u64 {
        self.before.0 + self.entries.len() as u64
    }
}

impl Storage for LogStore {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(self.hard_state.clone(), self.conf_state.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.before.0 {
            return Err(StorageError::Compacted.into());
        }
        assert!(high <= self.last() + 1, "entries up to {high} asked for, the last is {}", self.last());
        let range = (low - self.before.0 - 1) as usize..(high - self.before.0 - 1) as usize;
        let mut entries: Vec<Entry> = self.entries.range(range).cloned().collect();
        raft::util::limit_size(&mut entries, max_size.into());
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.before.0 {
            return Ok(self.before.1);
        }
        let position = index.checked_sub(self.before.0 + 1).ok_or(StorageError::Compacted)?;
        let entry = self.entries.get(position as usize).ok_or(StorageError::Unavailable)?;
        Ok(entry.term)
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.before.0 + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        let mut snapshots = self.snapshots.borrow_mut();
        // What comes behind it must still be here.
        let fits = |index| index >= request_index && index >= self.before.0;
        match snapshots.offered.remove(&to).filter(|offer| fits(offer.get_metadata().index)) {
            Some(offer) => Ok(offer),
            None => {
                snapshots.wanted.insert(to);
                Err(StorageError::SnapshotTemporarilyUnavailable.into())
            }
        }
    }
}
