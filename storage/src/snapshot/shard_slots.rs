//! The stored revisions of one shard in order: those in its pages, then the frozen ones, then its delta.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::disk::Io;
use crate::job::{Completions, Job, Step};
use crate::mvcc::delta::DeltaEntry;
use crate::mvcc::shard_map::ShardId;
use crate::mvcc::shard_read_error::ShardReadError;
use crate::mvcc::view::{ShardView, View};
use crate::pages::{Scan, ScanChunk, ScannedSlot, entry_crc32c};
use crate::revision::Revision;

/// Slots that are read at a time.
const SLOTS_AHEAD_MAX: usize = 1024;
/// Bytes of values that are read at a time, unless one is longer. Leaves are read whole, so that what is held may be
/// more by what else stands in them: a leaf's 32 KiB a slot at the worst.
const VALUE_BYTES_AHEAD_MAX: u64 = 4 << 20;

/// Whether a walk brings values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Values {
    /// No: of pages, only the slot tables are read.
    Leave,
    /// Yes.
    Read,
}

/// What came of a look for slots.
pub(super) enum Advance {
    /// Perform these, and advance with their completions.
    Submit(Vec<Io>),
    /// There may be slots ahead now; if not, advance again.
    Moved,
}

/// A cursor over one shard of a View.
pub(super) struct ShardSlots {
    view: Arc<View>,
    shard: ShardId,
    from: Revision,
    to: Revision,
    values: Values,
    source: Source,
    ahead: VecDeque<ScannedSlot>,
    /// Requests under way.
    pub requested: usize,
}

/// Where the next slots come from.
enum Source {
    /// Slot tables of pages.
    Tables(Scan),
    /// Values of slots whose lengths are known.
    Values {
        scan: Scan,
        /// First and last slot of each read after this one.
        windows: VecDeque<(Revision, Revision)>,
        /// Where the tables go on after them.
        next: Option<Revision>,
    },
    /// Memory, from this revision on.
    Resident(Revision),
    End,
}

impl ShardSlots {
    /// The slots of `shard` from `from` up to `to`, but for dead ones.
    pub fn new(view: Arc<View>, shard: ShardId, from: Revision, to: Revision, values: Values) -> Self {
        let source = Source::Tables(scan(view.shard(shard), from, to, Values::Leave));
        Self { view, shard, from, to, values, source, ahead: VecDeque::new(), requested: 0 }
    }

    /// Whether the next slot is not known yet.
    pub fn is_starved(&self) -> bool {
        self.ahead.is_empty() && !matches!(self.source, Source::End)
    }

    /// The next slot's revision; `None` if it starves or ended.
    pub fn head(&self) -> Option<Revision> {
        self.ahead.front().map(|slot| slot.revision)
    }

    /// Takes the next slot.
    pub fn pop(&mut self) -> Option<ScannedSlot> {
        self.ahead.pop_front()
    }

    /// Goes on towards the next slots; for a starved cursor. The budget's unit is a slot.
    pub fn advance(&mut self, completions: Completions, budget: usize) -> Result<Advance, ShardReadError> {
        let step = match &mut self.source {
            Source::Tables(scan) | Source::Values { scan, .. } => scan.step(completions, budget),
            Source::Resident(from) => {
                let from = *from;
                self.read_resident(from);
                return Ok(Advance::Moved);
            }
            Source::End => return Ok(Advance::Moved),
        };
        match step.map_err(|cause| ShardReadError::new(&self.view, self.shard, cause))? {
            Step::Submit(requests) => return Ok(Advance::Submit(requests)),
            Step::Again => {}
            Step::Done(chunk) => self.read(chunk),
        }
        Ok(Advance::Moved)
    }

    fn read(&mut self, chunk: ScanChunk) {
        let live = chunk.slots.into_iter().filter(|slot| !slot.dead);
        self.source = match std::mem::replace(&mut self.source, Source::End) {
            Source::Tables(_) if self.values == Values::Read => self.read_values(windows(live), chunk.next),
            Source::Values { windows, next, .. } => {
                self.ahead.extend(live);
                self.read_values(windows, next)
            }
            _ => {
                self.ahead.extend(live);
                self.read_tables(chunk.next)
            }
        };
    }

    fn read_values(&self, mut windows: VecDeque<(Revision, Revision)>, next: Option<Revision>) -> Source {
        match windows.pop_front() {
            Some((first, last)) => {
                let scan = scan(self.view.shard(self.shard), first, last, Values::Read);
                Source::Values { scan, windows, next }
            }
            None => self.read_tables(next),
        }
    }

    fn read_tables(&self, next: Option<Revision>) -> Source {
        match next {
            Some(from) => Source::Tables(scan(self.view.shard(self.shard), from, self.to, Values::Leave)),
            None => Source::Resident(self.from),
        }
    }

    fn read_resident(&mut self, from: Revision) {
        self.source = Source::End;
        let shard = self.view.shard(self.shard);
        for entry in shard.frozen.from(from).chain(shard.delta.from(from)) {
            if entry.revision > self.to {
                return;
            }
            if self.ahead.len() == SLOTS_AHEAD_MAX {
                self.source = Source::Resident(entry.revision);
                return;
            }
            self.ahead.push_back(resident_slot(entry, self.values));
        }
    }
}

fn scan(shard: &ShardView, from: Revision, to: Revision, values: Values) -> Scan {
    let checkpointed = &shard.checkpointed;
    checkpointed.pages.scan(checkpointed.root.clone(), from, to, SLOTS_AHEAD_MAX, values == Values::Read)
}

/// Cuts slots into reads of values, and gives the first and last of each.
fn windows(slots: impl Iterator<Item = ScannedSlot>) -> VecDeque<(Revision, Revision)> {
    let mut windows: VecDeque<(Revision, Revision)> = VecDeque::new();
    let mut bytes = 0;
    for slot in slots {
        bytes += u64::from(slot.length);
        match windows.back_mut() {
            Some((_, last)) if bytes <= VALUE_BYTES_AHEAD_MAX => *last = slot.revision,
            _ => {
                bytes = u64::from(slot.length);
                windows.push_back((slot.revision, slot.revision));
            }
        }
    }
    windows
}

fn resident_slot(entry: &DeltaEntry, values: Values) -> ScannedSlot {
    ScannedSlot {
        revision: entry.revision,
        tombstone: entry.tombstone,
        dead: false,
        previous: entry.previous,
        length: u32::try_from(entry.key_value.len()).expect("no request brings 4 GiB"),
        crc32c: entry_crc32c(entry.revision, entry.tombstone, &entry.key_value),
        key_value: (values == Values::Read).then(|| entry.key_value.clone()),
    }
}
