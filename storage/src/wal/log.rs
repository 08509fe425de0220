//! The writer: gathers records into batches and says, job by job, what is to be written.

use std::collections::VecDeque;

use bytes::BytesMut;
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};

use super::batch::{self, Place};
use super::error::WalError;
use super::io_plan::{IoPlan, LogJob};
use super::record::{HardState, Record, StoredRecord};
use super::recovery::Recovery;
use super::replay::ClosedSegment;
use super::segment_head::{BLOCK_BYTES, HEAD_AREA_BYTES, Identity, Position, SegmentHead};
use super::segment_name::SegmentName;
use super::term_runs::{Misplaced, TermRuns};
use crate::disk::FileId;

/// Largest batch, header and the heads of its records included; one append larger than this is refused.
pub const BATCH_BYTES_MAX: usize = 64 << 20;
/// A batch that has gathered this much takes no further append.
const BATCH_BYTES_FULL: usize = 8 << 20;
/// Largest file that recovery reads as a segment.
pub(super) const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// Former segments kept for reuse; more are removed.
pub(super) const SPARES_MAX: usize = 2;

const _: () = assert!((HEAD_AREA_BYTES + BATCH_BYTES_MAX + BLOCK_BYTES) as u64 <= SEGMENT_BYTES_MAX);

/// Sizes of the log's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// Length of a prepared segment: a multiple of 4 KiB, from 12 KiB to 1 GiB.
    pub segment_bytes: u64,
    /// Length of a segment that has to be made while a batch waits for it, and of the first one of a start: a
    /// multiple of 4 KiB, from 12 KiB to `segment_bytes`.
    pub first_segment_bytes: u64,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { segment_bytes: 64 << 20, first_segment_bytes: 1 << 20 }
    }
}

impl LogOptions {
    pub(super) fn check(&self) {
        let Self { segment_bytes, first_segment_bytes } = *self;
        for bytes in [segment_bytes, first_segment_bytes] {
            assert!(bytes.is_multiple_of(BLOCK_BYTES as u64), "a segment of {bytes} bytes is not whole blocks");
            assert!(bytes >= (HEAD_AREA_BYTES + BLOCK_BYTES) as u64, "no batch fits a segment of {bytes} bytes");
        }
        assert!(first_segment_bytes <= segment_bytes && segment_bytes <= SEGMENT_BYTES_MAX, "{self:?}");
    }
}

/// A batch is durable.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "hand it to `Log::finish_batch`"]
pub struct BatchDurable {
    /// Its number, as [`Log::append`] returned it.
    pub number: u64,
    /// Last index of the log with it.
    pub last_index: u64,
    file: Option<FileId>,
}

/// A segment waits to be begun.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "hand it to `Log::finish_prepare`"]
pub struct Prepared {
    spare: Spare,
}

/// Segments were given up.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "hand it to `Log::finish_recycle`"]
pub struct Recycled {
    spares: Vec<Spare>,
}

/// A file that holds nothing we need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spare {
    pub(super) name: SegmentName,
    pub(super) length: u64,
}

/// The segment that batches go to.
#[derive(Clone, Copy, Debug)]
pub(super) struct ActiveSegment {
    pub(super) file: FileId,
    pub(super) salt: u64,
    /// Offset of the next batch.
    pub(super) end: u64,
    pub(super) closed: ClosedSegment,
}

/// Records that will be durable together.
#[derive(Debug)]
struct Gathered {
    number: u64,
    manifest_generation: u64,
    bytes: BytesMut,
    record_count: u32,
    /// Highest index of its entries, 0 without any.
    index_max: u64,
    last_index: u64,
    /// The log before it.
    before: Position,
}

/// The log of one member, as a state machine: it starts no thread and touches no disk, but hands out jobs and
/// takes their results.
///
/// * At most one batch is under way; [`Log::start_batch`] gives the next only after [`Log::finish_batch`].
/// * Preparing and recycling may run beside it and beside each other, one of each at a time.
/// * When a job fails or is dropped before its end, no further one of its kind is given: the log is over. Only preparing
///   may be given up when there is no space for it.
#[derive(Debug)]
pub struct Log {
    pub(super) options: LogOptions,
    pub(super) identity: Identity,
    pub(super) salts: StdRng,
    pub(super) hard_state: HardState,
    pub(super) terms: TermRuns,
    pub(super) active: ActiveSegment,
    /// Oldest first.
    pub(super) closed: VecDeque<ClosedSegment>,
    pub(super) spares: Vec<Spare>,
    pub(super) next_sequence: u64,
    pub(super) next_batch: u64,
    pub(super) flow: Flow,
}

/// What is gathered and what is under way.
#[derive(Debug, Default)]
pub(super) struct Flow {
    gathered: VecDeque<Gathered>,
    batch: Option<UnderWay>,
    /// A file with the name of a segment above the active one.
    prepared: Option<Spare>,
    preparing: bool,
    recycling: bool,
}

#[derive(Debug)]
struct UnderWay {
    number: u64,
    /// The segment that becomes active with the batch, but for its file.
    successor: Option<ActiveSegment>,
}

impl Log {
    /// Makes the log of a new member. The answer is that of a recovery that found nothing.
    ///
    /// `salt_seed` comes from a source of randomness that no client can guess and no two starts share.
    /// What an interrupted creation left behind is removed.
    ///
    /// # Errors
    /// Of the job: [`WalError::AlreadyCreated`] when there is a log.
    ///
    /// # Panics
    /// When `options` are outside of their limits.
    pub fn create(identity: Identity, options: LogOptions, salt_seed: u64) -> Recovery {
        Self::create_after(identity, 0, 0, options, salt_seed)
    }

    /// As [`Log::create`], for a member whose state begins with what another log led to: the first entry follows `index`
    /// with `term`, both committed.
    pub fn create_after(identity: Identity, index: u64, term: u64, options: LogOptions, salt_seed: u64) -> Recovery {
        let hard_state = HardState { term, vote: 0, commit: index };
        let before = Position { hard_state, last_index: index, last_term: term };
        Recovery::creating(identity, before, options, salt_seed)
    }

    /// Whose log it is.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Last index of the log, with everything gathered.
    pub fn last_index(&self) -> u64 {
        self.terms.last().0
    }

    /// Bytes gathered and not yet under way: what admission bounds.
    pub fn gathered_bytes(&self) -> usize {
        self.flow.gathered.iter().map(|gathered| gathered.bytes.len()).sum()
    }

    /// Gathers `records`, whole and in order, into the next batch, whose number it returns: they are durable when a
    /// [`BatchDurable`] has that number or a higher one. `manifest_generation` is the newest durable one.
    ///
    /// Entry data is copied.
    ///
    /// # Errors
    /// [`WalError::BatchTooLarge`], and nothing is gathered.
    ///
    /// # Panics
    /// When a record does not fit the log: an entry that does not follow the last, or a term that falls.
    pub fn append(&mut self, records: Vec<Record>, manifest_generation: u64) -> Result<u64, WalError> {
        let bytes: usize = records.iter().map(Record::encoded_bytes).sum();
        if batch::HEADER_BYTES + bytes > BATCH_BYTES_MAX {
            return Err(WalError::BatchTooLarge { bytes });
        }
        let room = |gathered: &Gathered| gathered.bytes.len() + bytes <= BATCH_BYTES_FULL;
        if !self.flow.gathered.back().is_some_and(room) {
            self.open_batch();
        }
        for record in records {
            let stored = self.place(record).unwrap_or_else(|Misplaced(reason)| panic!("bad append: {reason}"));
            let gathered = self.flow.gathered.back_mut().expect("a batch is open");
            if let StoredRecord::Entry(entry) = &stored {
                gathered.index_max = gathered.index_max.max(entry.index);
            }
            gathered.record_count += 1;
            stored.encode(&mut gathered.bytes);
        }
        let last_index = self.last_index();
        let gathered = self.flow.gathered.back_mut().expect("a batch is open");
        gathered.last_index = last_index;
        gathered.manifest_generation = gathered.manifest_generation.max(manifest_generation);
        Ok(gathered.number)
    }

    fn open_batch(&mut self) {
        let (last_index, last_term) = self.terms.last();
        self.flow.gathered.push_back(Gathered {
            number: self.next_batch,
            manifest_generation: 0,
            bytes: batch::unsealed(),
            record_count: 0,
            index_max: 0,
            last_index,
            before: Position { hard_state: self.hard_state, last_index, last_term },
        });
        self.next_batch += 1;
    }

    fn place(&mut self, record: Record) -> Result<StoredRecord, Misplaced> {
        Ok(match record {
            Record::Entry(entry) => {
                self.terms.push(entry.index, entry.term)?;
                StoredRecord::Entry(entry)
            }
            Record::HardState(state) => {
                self.hard_state = state;
                StoredRecord::HardState(state)
            }
            Record::TruncateFrom { index } => {
                StoredRecord::TruncateFrom { index, previous_term: self.terms.truncate_from(index)? }
            }
            Record::StartAfter { index, term } => {
                self.terms = TermRuns::after(index, term);
                StoredRecord::StartAfter { index, term }
            }
        })
    }

    /// Starts to write the oldest gathered batch: `None` while one is under way, or when nothing is gathered.
    pub fn start_batch(&mut self) -> Option<LogJob<BatchDurable>> {
        if self.flow.batch.is_some() {
            return None;
        }
        let gathered = self.flow.gathered.pop_front()?;
        let padded = batch::padded(gathered.bytes.len()) as u64;
        let plan = IoPlan::new("append a batch to the log");
        let fits = self.active.end + padded <= self.active.closed.length;
        let (plan, segment) = if fits {
            (plan.on(self.active.file), self.active)
        } else {
            self.roll_over(plan.on(self.active.file).close(), &gathered.before, gathered.number, padded)
        };
        let place = Place { salt: segment.salt, sequence: segment.closed.sequence, offset: segment.end };
        let Gathered { number, manifest_generation, bytes, record_count, index_max, last_index, .. } = gathered;
        let sealed = batch::seal(bytes, place, number, manifest_generation, record_count);
        let mut written = ActiveSegment { end: segment.end + padded, ..segment };
        written.closed.index_max = written.closed.index_max.max(index_max);
        if fits {
            self.active = written;
        }
        self.flow.batch = Some(UnderWay { number, successor: (!fits).then_some(written) });
        let output = BatchDurable { number, last_index, file: None };
        let plan = plan.write_durably(place.offset, sealed);
        Some(LogJob::handing_file(plan, output, |durable, file| durable.file = Some(file)))
    }

    /// Plans a new segment whose first batch has `number` and takes `padded` bytes.
    fn roll_over(&mut self, plan: IoPlan, before: &Position, number: u64, padded: u64) -> (IoPlan, ActiveSegment) {
        let needed = HEAD_AREA_BYTES as u64 + padded;
        let (plan, sequence, length) = match self.flow.prepared.take() {
            Some(Spare { name, length }) if length >= needed => (plan.open(name), name.sequence(), length),
            too_small => {
                // Its number falls below that of the next segment: only its file can still be used.
                self.spares.extend(too_small);
                let (sequence, length) = (self.next_sequence, self.options.first_segment_bytes.max(needed));
                self.next_sequence += 1;
                (plan.create_file(SegmentName::Segment(sequence), length), sequence, length)
            }
        };
        begin_segment(
            plan,
            self.identity,
            self.salts.next_u64(),
            ClosedSegment { sequence, length, index_max: 0 },
            number,
            before,
        )
    }

    /// Takes the result of the job of [`Log::start_batch`]; from here on the batch counts.
    ///
    /// # Panics
    /// When that batch is not the one under way.
    pub fn finish_batch(&mut self, durable: &BatchDurable) {
        let under_way = self.flow.batch.take().expect("a batch is under way");
        assert_eq!(under_way.number, durable.number, "the batch under way is another one");
        if let Some(successor) = under_way.successor {
            self.closed.push_back(self.active.closed);
            self.active = ActiveSegment { file: durable.file.expect("the plan opened a file"), ..successor };
        }
    }

    /// Makes the next segment in the background, so that rolling over does not have to: `None` when there is one, or
    /// it is being made.
    ///
    /// Writes a whole segment of zeros, a MiB a step, unless a former segment can be renamed.
    pub fn prepare(&mut self) -> Option<LogJob<Prepared>> {
        if self.flow.preparing || self.flow.prepared.is_some() {
            return None;
        }
        self.flow.preparing = true;
        let name = SegmentName::Segment(self.next_sequence);
        self.next_sequence += 1;
        let plan = IoPlan::new("prepare a log segment").optional();
        let length = self.options.segment_bytes;
        let plan = match self.spares.pop() {
            Some(spare) => plan.rename(spare.name, name),
            None => plan.create_file(name, length).close(),
        };
        Some(LogJob::new(plan, Prepared { spare: Spare { name, length } }))
    }

    /// Takes the result of the job of [`Log::prepare`].
    pub fn finish_prepare(&mut self, prepared: Prepared) {
        assert!(std::mem::take(&mut self.flow.preparing), "nothing is being prepared");
        let newest = self.flow.batch.as_ref().and_then(|under_way| under_way.successor.as_ref());
        let newest = newest.unwrap_or(&self.active).closed.sequence;
        if prepared.spare.name.sequence() > newest {
            self.flow.prepared = Some(prepared.spare);
        } else {
            // A batch did not wait for it and went to a segment with a higher number.
            self.spares.push(prepared.spare);
        }
    }

    /// The job of [`Log::prepare`] found no space, and what it left was removed ([`LogJob::give_up`]): the log goes on
    /// without a prepared segment, and [`Log::prepare`] may be tried again. Until then a batch that needs a segment makes
    /// a small one.
    pub fn give_up_prepare(&mut self) {
        assert!(std::mem::take(&mut self.flow.preparing), "nothing is being prepared");
    }

    /// Gives up the segments that hold no entry at or above `index`, for reuse or removal: `None` when there is
    /// none, or while others are being given up.
    ///
    /// `index` is at most the lowest that anybody still needs: the first behind the durable manifest's less the
    /// catch-up tail, of a snapshot being sent, of a sink.
    pub fn recycle_below(&mut self, index: u64) -> Option<LogJob<Recycled>> {
        let count = self.closed.iter().take_while(|segment| segment.index_max < index).count();
        if self.flow.recycling || count == 0 {
            return None;
        }
        self.flow.recycling = true;
        let retired = self.retired_head();
        let mut plan = IoPlan::new("recycle log segments");
        let mut spares = Vec::new();
        for ClosedSegment { sequence, length, .. } in self.closed.drain(..count) {
            let (from, to) = (SegmentName::Segment(sequence), SegmentName::Spare(sequence));
            if length == self.options.segment_bytes && self.spares.len() + spares.len() < SPARES_MAX {
                plan = plan.rename(from, to);
                spares.push(Spare { name: to, length });
            } else {
                plan = plan.open(from).begin_segment(&retired).close().remove(from);
            }
        }
        Some(LogJob::new(plan, Recycled { spares }))
    }

    /// The head of a segment that holds nothing any more, durable before its name goes. If the sync of the removal fails,
    /// the name may come back long after, when the segments behind it are gone: as a log with a hole.
    fn retired_head(&self) -> SegmentHead {
        SegmentHead { identity: self.identity, salt: 0, sequence: 0, first_batch: 0, position: Position::default() }
    }

    /// Takes the result of the job of [`Log::recycle_below`].
    pub fn finish_recycle(&mut self, recycled: Recycled) {
        assert!(std::mem::take(&mut self.flow.recycling), "nothing is being recycled");
        self.spares.extend(recycled.spares);
    }
}

/// Plans the head of a segment on the file that `plan` opened last; its own `file` is known at the plan's end.
pub(super) fn begin_segment(
    plan: IoPlan,
    identity: Identity,
    salt: u64,
    closed: ClosedSegment,
    first_batch: u64,
    before: &Position,
) -> (IoPlan, ActiveSegment) {
    let head = SegmentHead { identity, salt, sequence: closed.sequence, first_batch, position: *before };
    let closed = ClosedSegment { index_max: before.last_index, ..closed };
    let active = ActiveSegment { file: FileId(0), salt, end: HEAD_AREA_BYTES as u64, closed };
    (plan.begin_segment(&head), active)
}

/// The source of salts of one start.
pub(super) fn salts(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed)
}
