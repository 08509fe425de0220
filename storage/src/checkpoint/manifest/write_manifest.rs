//! Writes the manifest.

use bytes::Bytes;

use super::codec::encode;
use super::content::Manifest;
use super::error::ManifestError;
use super::slots::{MANIFEST_NAME, Place};
use crate::disk::{FileId, Io, IoOutput};
use crate::job::{Completions, Job, Step};

/// Makes `manifest` durable, in the slot that does not hold the generation before it. When the job is done,
/// everything that only the older generation named may be reused.
///
/// `manifest.generation` must be one above the last durable one, which the caller knows.
///
/// # Errors
/// [`ManifestError::TooLarge`], [`ManifestError::Inconsistent`]; nothing was written then. The job's own is
/// [`ManifestError::Io`]: from then on nobody knows which generation is on disk, so stop the node.
pub fn write_job(manifest: &Manifest) -> Result<WriteManifest, ManifestError> {
    let (generation, bytes) = (manifest.generation, encode(manifest)?);
    Ok(WriteManifest { generation, bytes, syncs_name: false, phase: Phase::Start })
}

/// Writes `manifest`, which was read, again where it stands, and makes it and the file's name durable. The bytes are
/// those that are there, so that a crash cannot make it worse, and its successor's slot, which may hold the last
/// durable generation, is not touched.
///
/// # Errors
/// As [`write_job`].
pub fn rewrite_job(manifest: &Manifest) -> Result<WriteManifest, ManifestError> {
    Ok(WriteManifest { syncs_name: true, ..write_job(manifest)? })
}

/// The job of [`write_job`]. Budgets do not matter to it.
pub struct WriteManifest {
    generation: u64,
    bytes: Bytes,
    /// Whether the name of a file that was there before is synced too.
    syncs_name: bool,
    phase: Phase,
}

/// What the completions of the next step belong to; `new` says that the file's name is not durable yet.
#[derive(Clone, Copy)]
enum Phase {
    Start,
    Open,
    Write {
        file: FileId,
        new: bool,
    },
    Sync {
        file: FileId,
        new: bool,
    },
    /// The close, and the sync of the directory if the file is new.
    Close,
}

impl Job for WriteManifest {
    type Output = ();
    type Error = ManifestError;

    fn step(&mut self, completions: Completions, _budget: usize) -> Result<Step<()>, ManifestError> {
        let answers = completions.into_iter().collect::<Result<Vec<_>, _>>()?;
        let (next, requests) = match self.phase {
            Phase::Start => (Phase::Open, vec![Io::Open { name: MANIFEST_NAME.to_owned(), create: true }]),
            Phase::Open => {
                let Some(IoOutput::Opened { file, length }) = answers.first() else {
                    unreachable!("an open answers Opened, not {answers:?}");
                };
                (Phase::Write { file: *file, new: self.syncs_name || *length == 0 }, self.writes(*file))
            }
            Phase::Write { file, new } => (Phase::Sync { file, new }, vec![Io::Sync { file }]),
            Phase::Sync { file, new } => {
                let sync_root = new.then(|| Io::SyncDir { directory: String::new() });
                (Phase::Close, std::iter::once(Io::Close { file }).chain(sync_root).collect())
            }
            Phase::Close => return Ok(Step::Done(())),
        };
        self.phase = next;
        Ok(Step::Submit(requests))
    }
}

impl WriteManifest {
    fn writes(&self, file: FileId) -> Vec<Io> {
        let write = |place: Place| Io::Write { file, offset: place.offset(), bytes: self.bytes.clone() };
        Place::of(self.generation).map(write).collect()
    }
}
