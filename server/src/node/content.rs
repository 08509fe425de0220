//! The whole store as others see it: its hashes, and its snapshot as a bbolt file.

use std::sync::Arc;

use basalt_storage::disk::Disk;
use basalt_storage::hashes::{ContentHashJob, HashKv, HashKvJob, HashPurpose, HashRequest, HashedContent};
use basalt_storage::job::{Job, Step, run};
use basalt_storage::mvcc::view::View;
use basalt_storage::snapshot::{ConfStateRecord, MemberRecord, SnapshotJob, SystemTables};
use bytes::Bytes;
use tokio::sync::mpsc;
use tracing::{error, info};

use super::handle::{NodeHandle, Unavailable};
use crate::apply::answer::Refusal;
use crate::apply::machine::Machine;

/// Slots that a walk over the store takes in one step.
const STEP_SLOTS: usize = 4096;

/// Pieces of a snapshot that wait for the client: what bounds its memory.
const CHUNKS_WAITING: usize = 8;

/// Longest piece sent at once, bytes.
const CHUNK_BYTES_MAX: usize = 1 << 20;

/// One piece of a snapshot.
pub struct SnapshotChunk {
    /// Bytes of the file; the digest after it.
    pub bytes: Bytes,
    /// Bytes of the file that come after this piece.
    pub remaining: u64,
}

impl NodeHandle {
    /// HashKV at `revision`, 0 for the latest (etcd-contract 52).
    ///
    /// # Errors
    /// A revision that is compacted and not cached, or not written yet; damage.
    pub async fn hash_kv(&self, revision: i64) -> Result<HashKv, Unavailable> {
        let view = self.view();
        let resolved = {
            let cache = self.hash_cache.lock().expect("no one panics while holding the cache");
            cache.resolve(revision, view.revision, view.compact_revision)
        };
        match resolved {
            Ok(HashRequest::Cached(hash)) => Ok(hash),
            Ok(HashRequest::Compute { revision }) => {
                let compact_revision = view.compact_revision;
                let job = HashKvJob::new(view, revision, compact_revision, HashPurpose::Request);
                self.readers().run(job).await.map_err(|_| Unavailable::Stopped)?
            }
            Err(basalt_storage::hashes::HashError::Compacted) => Err(Refusal::Compacted.into()),
            Err(_) => Err(Refusal::FutureRevision.into()),
        }
    }

    /// The CRC of everything that a snapshot would hold, as etcd's `Hash` counts it.
    ///
    /// # Errors
    /// Going down, or damage.
    pub async fn content_hash(&self, member: MemberRecord) -> Result<(u32, i64), Unavailable> {
        let (view, tables) = self.ask(move |machine| state_of(machine, member)).await?;
        let revision = view.revision;
        let job = ContentHashJob::new(view, tables, HashedContent::Shared);
        let hash = self.readers().run(job).await.map_err(|_| Unavailable::Stopped)??;
        Ok((hash, revision))
    }

    /// Writes a checkpoint and streams the store after it: the file in pieces, then its SHA-256. A stream that fails
    /// ends without the digest, so that no client takes it for whole. On a full disk it is streamed without a checkpoint:
    /// a View has what no checkpoint holds, and that is when a snapshot is wanted most.
    ///
    /// # Errors
    /// Going down. What fails later ends the stream with an error.
    pub async fn snapshot(
        &self,
        member: MemberRecord,
    ) -> Result<mpsc::Receiver<Result<SnapshotChunk, Unavailable>>, Unavailable> {
        match self.checkpoint().await {
            Ok(()) | Err(Unavailable::Refused(Refusal::NoSpace)) => {}
            Err(unavailable) => return Err(unavailable),
        }
        let (view, tables) = self.ask(move |machine| state_of(machine, member)).await?;
        let (out, chunks) = mpsc::channel(CHUNKS_WAITING);
        let permits = self.snapshots.clone();
        let permit = permits.acquire_owned().await.map_err(|_| Unavailable::Stopped)?;
        drop(self.readers().submit(move |disk| {
            stream(view, tables, disk, &out);
            drop(permit);
            Ok(())
        }));
        Ok(chunks)
    }
}

/// A View and the tables of the same log index.
fn state_of(machine: &mut Machine, member: MemberRecord) -> (Arc<View>, SystemTables) {
    let view = Arc::new(machine.store().head());
    let voters = ConfStateRecord { voters: vec![member.id], ..ConfStateRecord::default() };
    let mut tables = SystemTables::new()
        .with_applied(view.applied.index, view.applied.term)
        .with_conf_state(&voters)
        .with_downgrade("", false)
        .with_auth(false, 1)
        .with_member(&member);
    if view.compact_revision >= 0 {
        tables = tables.with_compact_revision(view.compact_revision);
    }
    for (id, lease) in machine.leases().iter() {
        tables = tables.with_lease(id, lease.ttl, lease.remaining_ttl);
    }
    for alarm in machine.alarms().list(None) {
        tables = tables.with_alarm(alarm.member_id, alarm.kind.number());
    }
    (view, tables)
}

fn stream(
    view: Arc<View>,
    tables: SystemTables,
    disk: &dyn Disk,
    out: &mpsc::Sender<Result<SnapshotChunk, Unavailable>>,
) {
    let revision = view.revision;
    let mut job = SnapshotJob::new(view, tables);
    let mut sent = 0u64;
    loop {
        let pieces = match run(&mut NextPieces(&mut job), disk, STEP_SLOTS) {
            Ok(Some(pieces)) => pieces,
            Ok(None) => break,
            Err(cause) => {
                error!(error = %cause, "a snapshot cannot be read");
                return drop(out.blocking_send(Err(Unavailable::Damaged)));
            }
        };
        let size = job.file_bytes().unwrap_or_default();
        for mut piece in pieces {
            while !piece.is_empty() {
                let bytes = piece.split_to(piece.len().min(CHUNK_BYTES_MAX));
                sent += bytes.len() as u64;
                let remaining = size.saturating_sub(sent);
                if out.blocking_send(Ok(SnapshotChunk { bytes, remaining })).is_err() {
                    return;
                }
            }
        }
    }
    if let Some(digest) = job.digest() {
        let bytes = Bytes::copy_from_slice(&digest);
        // A client that is gone by now has the whole file.
        drop(out.blocking_send(Ok(SnapshotChunk { bytes, remaining: 0 })));
        info!(bytes = sent, revision, "sent database snapshot to client");
    }
}

/// The next pieces as a job: [`SnapshotJob::next_chunk`] is asked for anew at every step.
struct NextPieces<'a>(&'a mut SnapshotJob);

impl Job for NextPieces<'_> {
    type Output = Option<Vec<Bytes>>;
    type Error = basalt_storage::snapshot::SnapshotError;

    fn step(
        &mut self,
        completions: basalt_storage::job::Completions,
        budget: usize,
    ) -> Result<Step<Self::Output>, Self::Error> {
        self.0.next_chunk().step(completions, budget)
    }
}
