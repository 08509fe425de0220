//! The start of the log: read everything, judge it, and move on to a fresh segment.

use std::collections::VecDeque;
use std::io;

use bytes::{Bytes, BytesMut};
use rand::RngCore;

use super::batch::{self, Place};
use super::error::WalError;
use super::io_plan::IoPlan;
use super::log::{ActiveSegment, Flow, Log, LogOptions, SEGMENT_BYTES_MAX, SPARES_MAX, Spare, begin_segment, salts};
use super::record::{Entry, HardState};
use super::replay::{ClosedSegment, LastBatch, Replay, SegmentEnd};
use super::segment_head::{HEAD_AREA_BYTES, Identity, Position};
use super::segment_name::{DIRECTORY, SegmentName};
use super::segment_scan::{SegmentScan, scan};
use super::term_runs::TermRuns;
use crate::disk::{FileId, Io, IoOutput};
use crate::job::{Completions, Job, Step};

/// How the log ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// Behind a whole batch.
    Clean,
    /// With a batch that was being written when the power went; it was never reported durable.
    TornTail {
        /// Sequence number of the segment.
        segment: u64,
        /// Offset in its file.
        offset: u64,
    },
}

/// Whether a name in the log's directory is that of a segment, begun or not.
pub(crate) fn is_segment(name: &str) -> bool {
    matches!(SegmentName::parse(name), Some(SegmentName::Segment(_)))
}

/// What a start finds.
#[derive(Debug)]
pub struct Recovered {
    /// Whose log it is.
    pub identity: Identity,
    /// The last hard state.
    pub hard_state: HardState,
    /// Index of the entry before the first of `entries`, 0 for the beginning of time.
    pub previous_index: u64,
    /// Its term.
    pub previous_term: u64,
    /// All entries kept, without a gap. They start at or below the lowest that was ever asked to be kept.
    pub entries: Vec<Entry>,
    /// Newest manifest generation that the log knows to be durable; a manifest found with a lower one is a lost
    /// manifest.
    pub newest_manifest_generation: u64,
    /// How the log ended.
    pub end_reason: EndReason,
    /// The writer. Everything above is durable in its segments. The caller writes and syncs the manifest again
    /// before it speaks to anybody, because that too may be in the page cache only.
    pub log: Log,
}

/// Reads the log, copies its last batch into a fresh segment and syncs that. A step reads or judges one segment, or
/// performs one request, whatever the budget; memory is all entries kept and one segment.
///
/// Nothing that was read is changed, except that files which never held an acknowledged byte are removed, or reused if
/// they were segments once. One that was only prepared is never reused: the sync that was to make its length durable may
/// have failed, and a later one does not try again.
#[derive(Debug)]
pub struct Recovery {
    options: LogOptions,
    salt_seed: u64,
    goal: Goal,
    phase: Phase,
    unread: VecDeque<SegmentName>,
    next_sequence: u64,
    replay: Option<Replay>,
    leftovers: Vec<Spare>,
    /// Prepared and not begun.
    unbegun: Vec<SegmentName>,
}

#[derive(Clone, Copy, Debug)]
enum Goal {
    Open { expected: Option<Identity> },
    Create { identity: Identity, before: Position },
}

#[derive(Debug)]
enum Phase {
    Starting,
    Listing,
    Opening(SegmentName),
    Reading(SegmentName, FileId),
    Closing,
    Installing(IoPlan, Box<Recovered>),
    Over,
}

impl Recovery {
    /// Reads the log that is there, which belongs to `expected` if that is known.
    ///
    /// `salt_seed`: as for [`Log::create`].
    ///
    /// # Panics
    /// When `options` are outside of their limits.
    pub fn new(expected: Option<Identity>, options: LogOptions, salt_seed: u64) -> Self {
        Self::with(Goal::Open { expected }, options, salt_seed)
    }

    pub(super) fn creating(identity: Identity, before: Position, options: LogOptions, salt_seed: u64) -> Self {
        Self::with(Goal::Create { identity, before }, options, salt_seed)
    }

    fn with(goal: Goal, options: LogOptions, salt_seed: u64) -> Self {
        options.check();
        Self {
            options,
            salt_seed,
            goal,
            phase: Phase::Starting,
            unread: VecDeque::new(),
            next_sequence: 1,
            replay: None,
            leftovers: Vec::new(),
            unbegun: Vec::new(),
        }
    }

    fn start(&mut self) -> Vec<Io> {
        self.phase = Phase::Listing;
        let list = Io::List { directory: DIRECTORY.into() };
        match self.goal {
            Goal::Open { .. } => vec![list],
            Goal::Create { .. } => vec![Io::CreateDir { name: DIRECTORY.into() }],
        }
    }

    fn listed(&mut self, names: &[String]) -> Result<Step<Recovered>, WalError> {
        let mut found: Vec<SegmentName> = names.iter().filter_map(|name| SegmentName::parse(name)).collect();
        // Segments in the order of their numbers, then spares.
        found.sort_unstable();
        let highest = found.iter().map(|name| name.sequence()).max().unwrap_or(0);
        let exhausted = WalError::Corrupt { segment: highest, offset: 0, reason: "segment numbers exhausted" };
        self.next_sequence = highest.checked_add(1).filter(|next| *next < u64::MAX / 2).ok_or(exhausted)?;
        self.unread = found.into();
        self.next_file()
    }

    fn next_file(&mut self) -> Result<Step<Recovered>, WalError> {
        let Some(name) = self.unread.pop_front() else { return self.install() };
        self.phase = Phase::Opening(name);
        Ok(Step::Submit(vec![Io::Open { name: name.path(), create: false }]))
    }

    fn opened(&mut self, name: SegmentName, file: FileId, length: u64) -> Result<Step<Recovered>, WalError> {
        if matches!(name, SegmentName::Spare(_)) {
            self.leftovers.push(Spare { name, length });
            return Ok(self.close(file));
        }
        let readable = usize::try_from(length).ok().filter(|_| length <= SEGMENT_BYTES_MAX);
        let length = readable.ok_or(WalError::Corrupt {
            segment: name.sequence(),
            offset: SEGMENT_BYTES_MAX,
            reason: "longer than a segment can be",
        })?;
        self.phase = Phase::Reading(name, file);
        Ok(Step::Submit(vec![Io::Read { file, offset: 0, length }]))
    }

    fn read(&mut self, name: SegmentName, file: FileId, bytes: &Bytes) -> Result<Step<Recovered>, WalError> {
        let length = bytes.len() as u64;
        match scan(bytes, name.sequence())? {
            SegmentScan::NotBegun => self.unbegun.push(name),
            SegmentScan::Begun(segment) => {
                let found = segment.head.identity;
                match self.goal {
                    Goal::Create { .. } => return Err(WalError::AlreadyCreated),
                    Goal::Open { expected: Some(expected) } if found != expected => {
                        return Err(WalError::ForeignIdentity { found, expected });
                    }
                    Goal::Open { .. } => {}
                }
                self.replay.get_or_insert_with(|| Replay::before(&segment)).segment(&segment, length)?;
            }
        }
        Ok(self.close(file))
    }

    fn close(&mut self, file: FileId) -> Step<Recovered> {
        self.phase = Phase::Closing;
        Step::Submit(vec![Io::Close { file }])
    }

    /// All is read: plans the fresh segment.
    fn install(&mut self) -> Result<Step<Recovered>, WalError> {
        let replay = match (self.replay.take(), self.goal) {
            (Some(replay), _) => replay,
            (None, Goal::Create { identity, before }) => nothing_yet(identity, before),
            (None, Goal::Open { .. }) => return Err(WalError::NotCreated),
        };
        let mut salts = salts(self.salt_seed);
        let mut plan = IoPlan::new("begin a log segment");
        let spares = self.sort_leftovers(&mut plan);
        let (plan, active) = self.fresh_segment(plan, &replay, salts.next_u64());
        let SegmentEnd { segment, offset, torn } = replay.end;
        let (previous_index, previous_term) = replay.terms.base();
        let recovered = Recovered {
            identity: replay.identity,
            hard_state: replay.hard_state,
            previous_index,
            previous_term,
            entries: replay.entries,
            newest_manifest_generation: replay.manifest_generation,
            end_reason: if torn { EndReason::TornTail { segment, offset } } else { EndReason::Clean },
            log: Log {
                options: self.options,
                identity: replay.identity,
                salts,
                hard_state: replay.hard_state,
                terms: replay.terms,
                active,
                closed: replay.closed.into(),
                spares,
                next_sequence: self.next_sequence + 1,
                next_batch: replay.next_batch,
                flow: Flow::default(),
            },
        };
        self.phase = Phase::Installing(plan, Box::new(recovered));
        Ok(Step::Again)
    }

    /// Keeps the files that can become segments; plans the removal of the others.
    fn sort_leftovers(&mut self, plan: &mut IoPlan) -> Vec<Spare> {
        self.unbegun.drain(..).for_each(|name| plan.push_remove(name));
        let mut spares = Vec::new();
        for spare in self.leftovers.drain(..) {
            if spare.length == self.options.segment_bytes && spares.len() < SPARES_MAX {
                spares.push(spare);
            } else {
                plan.push_remove(spare.name);
            }
        }
        spares
    }

    fn fresh_segment(&self, plan: IoPlan, replay: &Replay, salt: u64) -> (IoPlan, ActiveSegment) {
        let sequence = self.next_sequence;
        let last = replay.last_batch.as_ref();
        let copied = last.map_or(0, |last| batch::padded(batch::HEADER_BYTES + last.records.len()) as u64);
        let length = self.options.first_segment_bytes.max(HEAD_AREA_BYTES as u64 + copied);
        let plan = plan.create_file(SegmentName::Segment(sequence), length);
        let closed = ClosedSegment { sequence, length, index_max: 0 };
        let (first_batch, before) =
            last.map_or((replay.next_batch, replay.position()), |last| (last.number, last.before));
        let (plan, mut active) = begin_segment(plan, replay.identity, salt, closed, first_batch, &before);
        let Some(last) = last else { return (plan, active) };
        let place = Place { salt, sequence, offset: active.end };
        active.end += copied;
        active.closed.index_max = active.closed.index_max.max(last.index_max);
        (plan.write_durably(place.offset, sealed_copy(last, place)), active)
    }

    fn installing(&mut self, completions: Completions) -> Result<Step<Recovered>, WalError> {
        let Phase::Installing(mut plan, mut recovered) = std::mem::replace(&mut self.phase, Phase::Over) else {
            panic!("a job is not stepped after its end");
        };
        if let Some(io) = plan.step(completions)? {
            self.phase = Phase::Installing(plan, recovered);
            return Ok(Step::Submit(vec![io]));
        }
        recovered.log.active.file = plan.file().expect("the plan opened a file");
        Ok(Step::Done(*recovered))
    }

    /// Takes the answer to the one request under way.
    fn answered(&mut self, answer: io::Result<IoOutput>) -> Result<Step<Recovered>, WalError> {
        let answer = match answer {
            Err(error) if matches!(self.phase, Phase::Listing) && error.kind() == io::ErrorKind::NotFound => {
                return Err(WalError::NotCreated);
            }
            answer => answer.map_err(|source| WalError::Io { action: "read the log", source })?,
        };
        match (&self.phase, answer) {
            // The directory was made; its own name has to be durable before anything in it.
            (Phase::Listing, IoOutput::Done) => {
                let root = Io::SyncDir { directory: String::new() };
                Ok(Step::Submit(vec![root, Io::List { directory: DIRECTORY.into() }]))
            }
            (Phase::Listing, IoOutput::Names(names)) => self.listed(&names),
            (Phase::Opening(name), IoOutput::Opened { file, length }) => self.opened(*name, file, length),
            (Phase::Reading(name, file), IoOutput::Read(bytes)) => self.read(*name, *file, &bytes),
            (Phase::Closing, IoOutput::Done) => self.next_file(),
            (phase, answer) => panic!("{answer:?} does not answer {phase:?}"),
        }
    }
}

impl Job for Recovery {
    type Output = Recovered;
    type Error = WalError;

    fn step(&mut self, mut completions: Completions, _budget: usize) -> Result<Step<Recovered>, WalError> {
        if matches!(self.phase, Phase::Installing(..) | Phase::Over) {
            return self.installing(completions);
        }
        let Some(answer) = completions.pop() else { return Ok(Step::Submit(self.start())) };
        for earlier in completions {
            earlier.map_err(|source| WalError::Io { action: "make the directory of the log", source })?;
        }
        self.answered(answer)
    }
}

/// The state of a log without a single batch.
fn nothing_yet(identity: Identity, before: Position) -> Replay {
    let Position { hard_state, last_index, last_term } = before;
    Replay {
        identity,
        hard_state,
        terms: TermRuns::after(last_index, last_term),
        entries: Vec::new(),
        manifest_generation: 0,
        next_batch: 1,
        last_batch: None,
        closed: Vec::new(),
        end: SegmentEnd { segment: 0, offset: 0, torn: false },
    }
}

fn sealed_copy(last: &LastBatch, place: Place) -> Bytes {
    let mut bytes: BytesMut = batch::unsealed();
    bytes.extend_from_slice(&last.records);
    batch::seal(bytes, place, last.number, last.manifest_generation, last.record_count)
}
