//! Reads the manifest.

use std::io;

use super::content::Manifest;
use super::error::ManifestError;
use super::slots::{MANIFEST_NAME, Place, SLOT_BYTES, choose};
use crate::disk::{FileId, Io, IoOutput};
use crate::job::{Completions, Job, Step};

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestFound {
    /// The newest valid manifest; `None` in a directory that never had one, and when all copies are lost.
    pub manifest: Option<Manifest>,
    /// Whether a slot is lost with its mirror: what was found may have had a successor. After a crash during the
    /// write of the successor that is as it should be; otherwise a manifest that was durable is gone. Only the log
    /// can tell: if it knows a generation newer than the one found, refuse to serve.
    pub damaged: bool,
    /// Copies that are not what they should be. One in a slot whose other copy is good cost nothing but the safety
    /// of the next fault; the next two generations write all copies anew.
    pub bad_copies: Vec<BadCopy>,
}

impl ManifestFound {
    /// Whether it looks as a power cut during the very first write leaves it: no manifest, and nothing but zeros where
    /// the second generation would be. So does a first manifest that rotted; only what it named tells them apart.
    pub fn is_torn_birth(&self) -> bool {
        let of_first = |bad: &BadCopy| Place::of(1).any(|place| place.offset() == bad.offset);
        self.manifest.is_none() && self.damaged && self.bad_copies.iter().all(of_first)
    }
}

/// A copy that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadCopy {
    /// Where it stands in the file.
    pub offset: u64,
    /// What does not hold.
    pub reason: &'static str,
}

/// The reason of a copy that holds the manifest before the last of its slot.
pub(super) const OUTDATED: &str = "an older generation";

impl BadCopy {
    /// Whether a crash between the two writes of a manifest may have left it.
    pub fn is_outdated(&self) -> bool {
        self.reason == OUTDATED
    }
}

/// Finds the newest valid manifest. A sector that cannot be read makes its copy a bad one, no more.
pub fn read_job() -> ReadManifest {
    ReadManifest { phase: Phase::Start }
}

/// The job of [`read_job`]; it does not change the file. Budgets do not matter to it.
pub struct ReadManifest {
    phase: Phase,
}

enum Phase {
    Start,
    Open,
    /// The lengths of the places, in order: what of them the file has.
    Read(FileId, Vec<usize>),
    Close(ManifestFound),
}

impl Job for ReadManifest {
    type Output = ManifestFound;
    type Error = ManifestError;

    fn step(&mut self, completions: Completions, _budget: usize) -> Result<Step<ManifestFound>, ManifestError> {
        match std::mem::replace(&mut self.phase, Phase::Start) {
            Phase::Start => {
                self.phase = Phase::Open;
                Ok(Step::Submit(vec![Io::Open { name: MANIFEST_NAME.to_owned(), create: false }]))
            }
            Phase::Open => self.opened(completions),
            Phase::Read(file, lengths) => {
                let mut completions = completions.into_iter();
                let copies: Vec<_> = lengths.iter().map(|length| take_copy(*length, &mut completions)).collect();
                self.phase = Phase::Close(choose(&copies)?);
                Ok(Step::Submit(vec![Io::Close { file }]))
            }
            Phase::Close(found) => {
                completions.into_iter().try_for_each(|completion| completion.map(drop))?;
                Ok(Step::Done(found))
            }
        }
    }
}

impl ReadManifest {
    fn opened(&mut self, completions: Completions) -> Result<Step<ManifestFound>, ManifestError> {
        let (file, length) = match completions.into_iter().next() {
            Some(Ok(IoOutput::Opened { file, length })) => (file, length),
            Some(Err(error)) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Step::Done(ManifestFound { manifest: None, damaged: false, bad_copies: Vec::new() }));
            }
            Some(Err(error)) => return Err(error.into()),
            other => unreachable!("an open answers Opened, not {other:?}"),
        };
        let length_at = |place: Place| length.saturating_sub(place.offset()).min(SLOT_BYTES as u64) as usize;
        let lengths: Vec<_> = Place::all().map(length_at).collect();
        let requests = Place::all().zip(&lengths).filter(|(_, length)| **length > 0);
        let requests = requests.map(|(place, length)| Io::Read { file, offset: place.offset(), length: *length });
        let requests: Vec<_> = requests.collect();
        self.phase = Phase::Read(file, lengths);
        Ok(if requests.is_empty() { Step::Again } else { Step::Submit(requests) })
    }
}

/// The bytes of a place: none beyond the end of the file.
fn take_copy(length: usize, completions: &mut impl Iterator<Item = io::Result<IoOutput>>) -> Option<bytes::Bytes> {
    if length == 0 {
        return Some(bytes::Bytes::new());
    }
    match completions.next() {
        Some(Ok(IoOutput::Read(bytes))) => Some(bytes),
        _ => None,
    }
}
