//! The whole store as others see it: its hashes, and its snapshot as a bbolt file.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use basalt_storage::hashes::{ContentHashJob, HashError, HashKv, HashKvJob, HashPurpose, HashRequest, HashedContent};
use basalt_storage::mvcc::system::Table;
use basalt_storage::mvcc::view::View;
use basalt_storage::snapshot::{ConfStateRecord, MemberRecord, SnapshotJob, SystemTables};
use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;
use tracing::info;

use super::handle::{NodeHandle, Unavailable};
use super::readers::{Readers, slice};
use crate::apply::answer::Refusal;
use crate::apply::downgrade::Release;
use crate::apply::machine::Machine;

/// Slots that a walk over the store takes in one step, between which others have their turn.
const STEP_SLOTS: usize = 4096;

/// Longest piece sent at once, bytes.
const CHUNK_BYTES_MAX: usize = 1 << 20;

/// How long a client may leave a piece of its snapshot unread: until then the snapshot pins pages, and another waits.
pub const SNAPSHOT_UNREAD_MAX: Duration = Duration::from_secs(60);

/// One piece of a snapshot.
pub struct SnapshotChunk {
    /// Bytes of the file; the digest after it.
    pub bytes: Bytes,
    /// Bytes of the file that come after this piece.
    pub remaining: u64,
}

/// A snapshot that its client pulls, piece by piece: nothing is read ahead, and no thread waits for the client.
pub struct Snapshot {
    /// Away while a thread steps it.
    job: Option<SnapshotJob>,
    readers: Readers,
    /// Made and not handed out.
    pieces: VecDeque<Bytes>,
    sent: u64,
    revision: i64,
    /// What the file is a database of.
    pub release: Release,
    _permit: OwnedSemaphorePermit,
}

impl NodeHandle {
    /// HashKV at `revision`, 0 for the latest (etcd-contract 52). A few at a time: the others wait, and pin nothing.
    ///
    /// # Errors
    /// A revision that is compacted and not cached, or not written yet; damage.
    pub async fn hash_kv(&self, revision: i64) -> Result<HashKv, Unavailable> {
        if let HashRequest::Cached(hash) = self.resolve_hash(revision, &self.view())? {
            return Ok(hash);
        }
        let _permit = self.hashes.acquire().await.map_err(|_| Unavailable::Stopped)?;
        let view = self.view();
        match self.resolve_hash(revision, &view)? {
            HashRequest::Cached(hash) => Ok(hash),
            HashRequest::Compute { revision } => {
                let compact_revision = view.compact_revision;
                let job = HashKvJob::new(view, revision, compact_revision, HashPurpose::Request);
                self.readers.walk.run_sliced(job, STEP_SLOTS).await
            }
        }
    }

    /// What the newest compactions hashed, ascending by revision.
    pub fn compaction_hashes(&self) -> Vec<HashKv> {
        self.hash_cache.lock().expect("no one panics while holding the cache").hashes().to_vec()
    }

    fn resolve_hash(&self, revision: i64, view: &View) -> Result<HashRequest, Unavailable> {
        let cache = self.hash_cache.lock().expect("no one panics while holding the cache");
        cache.resolve(revision, view.revision, view.compact_revision).map_err(|cause| match cause {
            HashError::Compacted => Refusal::Compacted.into(),
            _ => Refusal::FutureRevision.into(),
        })
    }

    /// The CRC of everything that a snapshot would hold, as etcd's `Hash` counts it.
    ///
    /// # Errors
    /// Going down, or damage.
    pub async fn content_hash(&self) -> Result<(u32, i64), Unavailable> {
        let _permit = self.hashes.acquire().await.map_err(|_| Unavailable::Stopped)?;
        let (view, tables) = self.ask(state_of).await?;
        let revision = view.revision;
        let job = ContentHashJob::new(view, tables, HashedContent::Shared);
        let hash = self.readers.walk.run_sliced(job, STEP_SLOTS).await?;
        Ok((hash, revision))
    }

    /// Writes a checkpoint and begins a snapshot of the store after it. Waits while as many as may are under way. On a full
    /// disk it begins without a checkpoint: a View has what no checkpoint holds, and that is when a snapshot is wanted
    /// most.
    ///
    /// # Errors
    /// Going down.
    pub async fn snapshot(&self) -> Result<Snapshot, Unavailable> {
        let permit = self.snapshots.clone().acquire_owned().await.map_err(|_| Unavailable::Stopped)?;
        match self.checkpoint().await {
            Ok(()) | Err(Unavailable::Refused(Refusal::NoSpace)) => {}
            Err(unavailable) => return Err(unavailable),
        }
        let (view, tables, release) = self
            .ask(|machine| {
                let (view, tables) = state_of(machine);
                (view, tables, machine.downgrade().cluster_version())
            })
            .await?;
        Ok(Snapshot {
            release,
            revision: view.revision,
            job: Some(SnapshotJob::new(view, tables)),
            readers: self.readers.walk.clone(),
            pieces: VecDeque::new(),
            sent: 0,
            _permit: permit,
        })
    }
}

impl Snapshot {
    /// The next piece: the file's, then its SHA-256, then `None`. One that fails ends without the digest, so that no
    /// client takes it for whole.
    ///
    /// # Errors
    /// Damage, or going down; the snapshot is over.
    pub async fn next(&mut self) -> Result<Option<SnapshotChunk>, Unavailable> {
        while self.pieces.is_empty() {
            let Some(mut job) = self.job.take() else { return Ok(None) };
            let sliced = self.readers.submit(move |disk| {
                let pieces = slice(&mut job.next_chunk(), disk, STEP_SLOTS)?;
                Ok((job, pieces))
            });
            let (job, pieces) = sliced.await.map_err(|_| Unavailable::Stopped)??;
            match pieces {
                Some(None) => return Ok(self.digest(&job)),
                Some(Some(pieces)) => self.pieces.extend(pieces.into_iter().filter(|piece| !piece.is_empty())),
                None => {}
            }
            self.job = Some(job);
        }
        let Some(piece) = self.pieces.front_mut() else { return Ok(None) };
        let bytes = piece.split_to(piece.len().min(CHUNK_BYTES_MAX));
        if piece.is_empty() {
            self.pieces.pop_front();
        }
        self.sent += bytes.len() as u64;
        let size = self.job.as_ref().and_then(SnapshotJob::file_bytes).unwrap_or_default();
        Ok(Some(SnapshotChunk { bytes, remaining: size.saturating_sub(self.sent) }))
    }

    fn digest(&self, job: &SnapshotJob) -> Option<SnapshotChunk> {
        let digest = job.digest()?;
        info!(bytes = self.sent, revision = self.revision, "sent database snapshot to client");
        Some(SnapshotChunk { bytes: Bytes::copy_from_slice(&digest), remaining: 0 })
    }
}

/// A View and the tables of the same log index: what a snapshot is made of.
pub fn state_of(machine: &mut Machine) -> (Arc<View>, SystemTables) {
    let view = Arc::new(machine.store().head());
    let members = machine.members().clone();
    let voters = ConfStateRecord { voters: members.voters().to_vec(), ..ConfStateRecord::default() };
    let mut tables = SystemTables::new()
        .with_applied(view.applied.index, view.applied.term)
        .with_conf_state(&voters)
        .with_auth(machine.auth().is_enabled(), machine.auth().revision());
    let downgrade = machine.downgrade();
    tables = tables.with_version(&downgrade.cluster_version().to_string());
    tables = match downgrade.target() {
        Some(target) => tables.with_downgrade(&target.to_string(), true),
        None => tables.with_downgrade("", false),
    };
    for member in members.iter() {
        tables = tables.with_member(&MemberRecord {
            id: member.id,
            name: member.name.clone(),
            peer_urls: member.peer_urls.clone(),
            client_urls: member.client_urls.clone(),
            is_learner: members.is_learner(member.id),
        });
    }
    let system = &machine.store().system;
    for (name, user) in system.table(Table::AuthUser) {
        tables = tables.with_user(name, user.to_vec());
    }
    for (name, role) in system.table(Table::AuthRole) {
        tables = tables.with_role(name, role.to_vec());
    }
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
