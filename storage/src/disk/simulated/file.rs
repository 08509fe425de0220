//! One file: what the cache shows, what the platter has, and what lies between.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::power_cut::Fates;
use super::sparse_bytes::{BLOCK_BYTES, SparseBytes};

/// What a disk writes at once.
pub(super) const SECTOR_BYTES: u64 = 512;
/// Unsynced states remembered per sector and length. Forgetting older ones only narrows what a power cut may
/// leave behind.
const STATES_MAX: usize = 4;

/// One state of a sector; `None` is all zeros.
type Sector = Option<Arc<[u8; SECTOR_BYTES as usize]>>;

/// Invariant: cache and platter differ only in what is pending, or what a failed sync dropped.
#[derive(Clone, Debug, Default)]
pub(super) struct SimulatedFile {
    cached: SparseBytes,
    length: u64,
    durable: SparseBytes,
    durable_length: u64,
    /// States that a sector went through since the last sync, oldest first, never empty.
    pending_sectors: BTreeMap<u64, Vec<Sector>>,
    pending_lengths: Vec<u64>,
    /// Blocks that were allocated or given back.
    pending_blocks: BTreeSet<u64>,
}

impl SimulatedFile {
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    pub(super) fn allocated_bytes(&self) -> u64 {
        self.cached.allocated_bytes()
    }

    /// Bytes of blocks that `from..to` touches and that are not allocated yet.
    pub(super) fn missing_bytes(&self, from: u64, to: u64) -> u64 {
        let touched = to.div_ceil(BLOCK_BYTES) - from / BLOCK_BYTES;
        (touched - self.cached.allocated_within(from, to).len() as u64) * BLOCK_BYTES
    }

    pub(super) fn read(&self, offset: u64, out: &mut [u8]) {
        self.cached.read(offset, out);
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let end = offset + bytes.len() as u64;
        self.allocate_blocks(offset, end);
        self.cached.write(offset, bytes);
        self.remember_sectors(offset, end);
        self.set_length(self.length.max(end));
    }

    pub(super) fn allocate(&mut self, offset: u64, end: u64) {
        self.allocate_blocks(offset, end);
        self.set_length(self.length.max(end));
    }

    pub(super) fn truncate(&mut self, length: u64) {
        self.punch(length, self.length.max(length));
        self.set_length(length);
    }

    /// Zeros `from..to` and gives whole blocks back.
    pub(super) fn punch(&mut self, from: u64, to: u64) {
        for block in self.cached.allocated_within(from, to) {
            let (start, end) = (block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES);
            let (zero_from, zero_to) = (start.max(from), end.min(to));
            if (zero_from, zero_to) == (start, end) || (zero_from == start && to >= self.length) {
                self.cached.free(block);
                self.pending_blocks.insert(block);
            } else {
                self.cached.write(zero_from, &vec![0; (zero_to - zero_from) as usize]);
            }
            self.remember_sectors(zero_from, zero_to);
        }
    }

    /// Makes everything pending durable.
    pub(super) fn sync(&mut self) {
        for (sector, states) in std::mem::take(&mut self.pending_sectors) {
            let last = states.last().expect("a pending sector has a state");
            write_sector(&mut self.durable, sector, last);
        }
        for block in std::mem::take(&mut self.pending_blocks) {
            if self.cached.is_allocated(block) {
                self.durable.allocate(block);
            } else {
                self.durable.free(block);
            }
        }
        if let Some(length) = self.pending_lengths.drain(..).next_back() {
            self.durable_length = length;
        }
    }

    /// What Linux does when writing back fails: the pages count as clean and stay readable, so the next sync
    /// succeeds without having written them. Some may have reached the platter before.
    pub(super) fn fail_sync(&mut self, fates: &mut Fates) {
        self.persist_survivors(fates);
        self.pending_sectors.clear();
        self.pending_lengths.clear();
        self.pending_blocks.clear();
    }

    /// Sectors that were not synced, and one more if the length was not.
    pub(super) fn unsynced_changes(&self) -> usize {
        self.pending_sectors.len() + usize::from(!self.pending_lengths.is_empty())
    }

    /// The file as the platter has it after a power cut.
    pub(super) fn after_power_cut(&self, fates: &mut Fates) -> Self {
        let mut file = self.clone();
        file.persist_survivors(fates);
        Self {
            cached: file.durable.clone(),
            length: file.durable_length,
            durable: file.durable,
            durable_length: file.durable_length,
            ..Self::default()
        }
    }

    /// Flips one bit in the cache, on the platter and in everything pending; `false` past the end.
    pub(super) fn flip(&mut self, offset: u64, bit: u8) -> bool {
        if offset >= self.length {
            return false;
        }
        for bytes in [&mut self.cached, &mut self.durable] {
            let mut byte = [0];
            bytes.read(offset, &mut byte);
            byte[0] ^= 1 << bit;
            bytes.write(offset, &byte);
        }
        for state in self.pending_sectors.get_mut(&(offset / SECTOR_BYTES)).into_iter().flatten() {
            let sector = state.get_or_insert_with(|| Arc::new([0; SECTOR_BYTES as usize]));
            Arc::make_mut(sector)[(offset % SECTOR_BYTES) as usize] ^= 1 << bit;
        }
        true
    }

    fn persist_survivors(&mut self, fates: &mut Fates) {
        for (sector, states) in &self.pending_sectors {
            let Some(survivor) = fates.survivor(states.len()) else { continue };
            let new = bytes_of(&states[survivor]);
            let mut left = new;
            if let Some(place) = fates.tear(new.len()) {
                let mut old = [0; SECTOR_BYTES as usize];
                self.durable.read(sector * SECTOR_BYTES, &mut old);
                left[place..].copy_from_slice(&old[place..]);
            }
            self.durable.write(sector * SECTOR_BYTES, &left);
        }
        if let Some(survivor) = fates.survivor(self.pending_lengths.len()) {
            self.durable_length = self.pending_lengths[survivor];
        }
        // A sector behind the end is not part of the file: growing again shows zeros there.
        let cut = self.durable_length;
        for block in self.durable.allocated_within(cut, u64::MAX - BLOCK_BYTES) {
            let start = (block * BLOCK_BYTES).max(cut);
            self.durable.write(start, &vec![0; ((block + 1) * BLOCK_BYTES - start) as usize]);
        }
    }

    fn set_length(&mut self, length: u64) {
        if length != self.length {
            self.length = length;
            push_bounded(&mut self.pending_lengths, length);
        }
    }

    fn allocate_blocks(&mut self, from: u64, to: u64) {
        for block in from / BLOCK_BYTES..to.div_ceil(BLOCK_BYTES) {
            if !self.cached.is_allocated(block) {
                self.cached.allocate(block);
                self.pending_blocks.insert(block);
            }
        }
    }

    fn remember_sectors(&mut self, from: u64, to: u64) {
        for sector in from / SECTOR_BYTES..to.div_ceil(SECTOR_BYTES) {
            let mut bytes = [0; SECTOR_BYTES as usize];
            self.cached.read(sector * SECTOR_BYTES, &mut bytes);
            let state = (bytes != [0; SECTOR_BYTES as usize]).then(|| Arc::new(bytes));
            push_bounded(self.pending_sectors.entry(sector).or_default(), state);
        }
    }
}

fn push_bounded<T>(states: &mut Vec<T>, state: T) {
    if states.len() == STATES_MAX {
        states.remove(0);
    }
    states.push(state);
}

fn bytes_of(sector: &Sector) -> [u8; SECTOR_BYTES as usize] {
    sector.as_deref().copied().unwrap_or([0; SECTOR_BYTES as usize])
}

fn write_sector(bytes: &mut SparseBytes, sector: u64, state: &Sector) {
    bytes.write(sector * SECTOR_BYTES, &bytes_of(state));
}
