//! Straight-line I/O: requests that are performed one after the other.

use std::collections::VecDeque;

use bytes::Bytes;

use super::error::WalError;
use super::segment_head::{BLOCK_BYTES, SegmentHead};
use super::segment_name::{DIRECTORY, SegmentName};
use crate::disk::{FileId, Io, IoOutput, is_full};
use crate::job::{Completions, Job, Step};
use crate::planted::{Bug, is_planted};

/// Zeros are written in pieces of this size, each synced before the next, so that pre-writing a segment never
/// builds up a backlog that the sync of a batch would have to wait for.
const ZEROS_BYTES: usize = 1 << 20;
static ZEROS: [u8; ZEROS_BYTES] = [0; ZEROS_BYTES];

const _: () = assert!(ZEROS_BYTES.is_multiple_of(BLOCK_BYTES));

#[derive(Debug)]
enum PlannedIo {
    Plain(Io),
    /// On the file opened last.
    Write {
        offset: u64,
        bytes: Bytes,
    },
    Sync,
    Close,
}

/// What is to be done, in order. An error ends it: nothing after it is performed.
#[derive(Debug)]
pub(super) struct IoPlan {
    action: &'static str,
    file: Option<FileId>,
    /// A file that it makes.
    made: Option<SegmentName>,
    /// Whether nothing depends on it, so that a full disk is a reason to give it up.
    optional: bool,
    /// Whether a sync is under way: what it was to make durable is unknown if it fails, whatever the cause.
    syncing: bool,
    requests: VecDeque<PlannedIo>,
}

impl IoPlan {
    /// A plan to do nothing; `action` is what an error says could not be done.
    pub(super) fn new(action: &'static str) -> Self {
        Self { action, file: None, made: None, optional: false, syncing: false, requests: VecDeque::new() }
    }

    /// Lets the plan fail with [`WalError::NoSpace`] on a full disk.
    pub(super) fn optional(mut self) -> Self {
        self.optional = true;
        self
    }

    /// Lets the plan work on `file` until it opens another.
    pub(super) fn on(mut self, file: FileId) -> Self {
        self.file = Some(file);
        self
    }

    fn then(mut self, request: PlannedIo) -> Self {
        self.requests.push_back(request);
        self
    }

    pub(super) fn plain(self, io: Io) -> Self {
        self.then(PlannedIo::Plain(io))
    }

    pub(super) fn sync_directory(self) -> Self {
        self.plain(Io::SyncDir { directory: DIRECTORY.into() })
    }

    pub(super) fn open(self, name: SegmentName) -> Self {
        self.plain(Io::Open { name: name.path(), create: false })
    }

    /// Renames and makes that durable. A file is only written under its new name when no power cut can give it
    /// the old one back.
    pub(super) fn rename(self, from: SegmentName, to: SegmentName) -> Self {
        self.plain(Io::Rename { from: from.path(), to: to.path() }).sync_directory()
    }

    /// Removes, now or at any later time: the file holds nothing.
    pub(super) fn push_remove(&mut self, name: SegmentName) {
        self.requests.push_back(PlannedIo::Plain(Io::Remove { name: name.path() }));
    }

    /// Removes and makes that durable.
    pub(super) fn remove(self, name: SegmentName) -> Self {
        self.plain(Io::Remove { name: name.path() }).sync_directory()
    }

    pub(super) fn close(self) -> Self {
        self.then(PlannedIo::Close)
    }

    /// Makes and opens a file of `length` zeros, and its name durable. Written, not only allocated: a sync of a
    /// batch then changes no metadata of the file (storage-notes 6). A full disk shows here, before any batch.
    pub(super) fn create_file(mut self, name: SegmentName, length: u64) -> Self {
        self.made = Some(name);
        self = self.plain(Io::Open { name: name.path(), create: true });
        let mut offset = 0;
        while offset < length {
            let bytes = Bytes::from_static(&ZEROS[..ZEROS_BYTES.min((length - offset) as usize)]);
            let end = offset + bytes.len() as u64;
            self = self.write_durably(offset, bytes);
            offset = end;
        }
        self.sync_directory()
    }

    /// Writes a segment's head, durable before any batch of it.
    pub(super) fn begin_segment(self, head: &SegmentHead) -> Self {
        self.write_durably(0, head.encode_area())
    }

    pub(super) fn write_durably(self, offset: u64, bytes: Bytes) -> Self {
        self.then(PlannedIo::Write { offset, bytes }).then(PlannedIo::Sync)
    }

    /// The file opened last.
    pub(super) fn file(&self) -> Option<FileId> {
        self.file
    }

    fn failure(&self, source: std::io::Error) -> WalError {
        let action = self.action;
        if self.optional && is_full(&source) && !self.syncing {
            WalError::NoSpace { action, source }
        } else {
            WalError::Io { action, source }
        }
    }

    /// Takes the completion of the request before and gives the next one; `None` at the end.
    pub(super) fn step(&mut self, completions: Completions) -> Result<Option<Io>, WalError> {
        for completion in completions {
            if self.syncing && completion.is_err() && is_planted(Bug::SyncRetried) {
                continue;
            }
            let output = completion.map_err(|source| self.failure(source))?;
            if let IoOutput::Opened { file, .. } = output {
                self.file = Some(file);
            }
        }
        let is_left_out = |request: &PlannedIo| match request {
            PlannedIo::Sync => is_planted(Bug::LogUnsynced),
            PlannedIo::Plain(Io::SyncDir { .. }) => is_planted(Bug::SegmentNamesUnsynced),
            _ => false,
        };
        while self.requests.pop_front_if(|request| is_left_out(request)).is_some() {}
        let Some(request) = self.requests.pop_front() else { return Ok(None) };
        self.syncing = matches!(request, PlannedIo::Sync | PlannedIo::Plain(Io::SyncDir { .. }));
        let file = || self.file.expect("a plan opens a file before it works on it");
        Ok(Some(match request {
            PlannedIo::Plain(io) => io,
            PlannedIo::Write { offset, bytes } => Io::Write { file: file(), offset, bytes },
            PlannedIo::Sync => Io::Sync { file: file() },
            PlannedIo::Close => Io::Close { file: file() },
        }))
    }
}

/// A job of the log: a fixed sequence of writes and syncs. A step performs one of them, whatever the budget.
///
/// Its output goes back to the [`Log`](super::Log) that made it. When it fails, or is dropped before its end, the
/// log is over: nobody knows what of it is on the disk.
#[derive(Debug)]
#[must_use = "nothing is written until the job is stepped"]
pub struct LogJob<T> {
    plan: IoPlan,
    output: Option<T>,
    hand_file: fn(&mut T, FileId),
}

impl<T> LogJob<T> {
    pub(super) fn new(plan: IoPlan, output: T) -> Self {
        Self::handing_file(plan, output, |_, _| {})
    }

    /// As `new`; the file that the plan opened last is handed to the output.
    pub(super) fn handing_file(plan: IoPlan, output: T, hand_file: fn(&mut T, FileId)) -> Self {
        Self { plan, output: Some(output), hand_file }
    }

    /// What closes and removes the file that the job was making when it failed with [`WalError::NoSpace`]. The answers do
    /// not matter: what stays is found by the next start.
    pub fn give_up(self) -> Vec<Io> {
        let Some(name) = self.plan.made else { return Vec::new() };
        let close = self.plan.file.map(|file| Io::Close { file });
        close.into_iter().chain([Io::Remove { name: name.path() }]).collect()
    }
}

impl<T> Job for LogJob<T> {
    type Output = T;
    type Error = WalError;

    fn step(&mut self, completions: Completions, _budget: usize) -> Result<Step<T>, WalError> {
        if let Some(io) = self.plan.step(completions)? {
            return Ok(Step::Submit(vec![io]));
        }
        let mut output = self.output.take().expect("a job is not stepped after its end");
        if let Some(file) = self.plan.file() {
            (self.hand_file)(&mut output, file);
        }
        Ok(Step::Done(output))
    }
}
