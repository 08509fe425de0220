//! The sending side: a machine's state at one instant, as chunks.

use std::collections::VecDeque;
use std::sync::Arc;

use basalt_proto::snapshot::chunk::Kind;
use basalt_proto::snapshot::{Chunk, End, Head, Record, Records, Revision as WireRevision, Revisions, Shard};
use basalt_storage::job::{Completions, Job, Step};
use basalt_storage::mvcc::view::{LogPosition, View};
use basalt_storage::planted::{Bug, is_planted};
use basalt_storage::revision::Revision;
use basalt_storage::snapshot::{SnapshotError, StoredRevision, StoredRevisions};
use bytes::Bytes;
use prost::Message;
use raft::prelude::{ConfState, Snapshot};

use super::{CHUNK_BYTES, FORMAT_VERSION};
use crate::apply::machine::Machine;

/// The state of a member after one log entry. It holds a View, and so pages and deltas, until it is dropped.
pub struct MemberSnapshot {
    head: Head,
    records: Vec<Record>,
    conf_state: ConfState,
    view: Arc<View>,
}

impl std::fmt::Debug for MemberSnapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemberSnapshot").field("position", &self.position()).finish_non_exhaustive()
    }
}

impl MemberSnapshot {
    /// The state of `machine`.
    pub fn of(machine: &Machine, cluster_id: u64) -> Self {
        let store = machine.store();
        let view = Arc::new(store.head());
        let (sums, system_sum) = store.sums();
        let shard = |(spec, sum): (&basalt_storage::mvcc::shard_map::ShardSpec, _)| Shard {
            name: spec.name.clone(),
            prefixes: spec.prefixes.iter().map(|prefix| Bytes::copy_from_slice(prefix)).collect(),
            sum: sum_bytes(sum),
        };
        let head = Head {
            format_version: FORMAT_VERSION,
            cluster_id,
            index: view.applied.index,
            term: view.applied.term,
            members: store.conf_state.clone(),
            shards: view.shard_map.shards().iter().zip(sums.iter().map(|sum| sum.0)).map(shard).collect(),
            revision: view.revision,
            compact_revision: view.compact_revision,
            time_unix_ns: store.time_unix_ns,
            system_sum: sum_bytes(system_sum.0),
        };
        let record = |(key, value): (Vec<u8>, Bytes)| Record { key: key.into(), value };
        let records = store.system.records().map(record).collect();
        Self { head, records, conf_state: machine.members().conf_state(), view }
    }

    /// The last entry that is in it.
    pub fn position(&self) -> LogPosition {
        self.view.applied
    }

    /// What Raft is told of it.
    pub fn raft_snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot::default();
        let metadata = snapshot.mut_metadata();
        let ahead = u64::from(is_planted(Bug::StateAnnouncedAhead));
        (metadata.index, metadata.term) = (self.view.applied.index + ahead, self.view.applied.term);
        metadata.set_conf_state(self.conf_state.clone());
        snapshot
    }

    /// The whole of it, or what a receiver lacks that has everything up to `after`.
    pub fn stream(&self, after: Option<Revision>) -> SnapshotStream {
        let mut ready = VecDeque::from([encode(Kind::Head(self.head.clone()))]);
        if after.is_none() {
            let pieces = pieces(self.records.iter().cloned(), |record| record.key.len() + record.value.len());
            ready.extend(pieces.map(|records| encode(Kind::Records(Records { records }))));
        }
        let revisions = StoredRevisions::new(&self.view, after.unwrap_or_default());
        SnapshotStream { ready, revisions: Some(revisions), count: 0 }
    }
}

/// Chunks, pulled one after another.
pub struct SnapshotStream {
    ready: VecDeque<Bytes>,
    /// `None` behind the last one.
    revisions: Option<StoredRevisions>,
    count: u64,
}

impl SnapshotStream {
    /// The job that makes the next chunk; `None` at the end. It holds no state of its own. The budget's unit is a revision.
    pub fn next_chunk(&mut self) -> NextChunk<'_> {
        NextChunk(self)
    }

    fn take(&mut self, stored: Option<Vec<StoredRevision>>) {
        let Some(stored) = stored else {
            self.revisions = None;
            return self.ready.push_back(encode(Kind::End(End { revisions: self.count })));
        };
        self.count += stored.len() as u64;
        let wire = stored.into_iter().map(|stored| WireRevision {
            main: stored.revision.main,
            sub: stored.revision.sub,
            tombstone: stored.tombstone,
            key_value: stored.key_value,
        });
        let pieces = pieces(wire, |revision| revision.key_value.len());
        self.ready.extend(pieces.map(|revisions| encode(Kind::Revisions(Revisions { revisions }))));
    }
}

/// Makes the next chunk of a [`SnapshotStream`].
pub struct NextChunk<'a>(&'a mut SnapshotStream);

impl Job for NextChunk<'_> {
    type Output = Option<Bytes>;
    type Error = SnapshotError;

    fn step(&mut self, completions: Completions, budget: usize) -> Result<Step<Self::Output>, SnapshotError> {
        let stream = &mut *self.0;
        if let Some(chunk) = stream.ready.pop_front() {
            return Ok(Step::Done(Some(chunk)));
        }
        let Some(revisions) = &mut stream.revisions else { return Ok(Step::Done(None)) };
        Ok(match revisions.next_revisions().step(completions, budget)? {
            Step::Again => Step::Again,
            Step::Submit(requests) => Step::Submit(requests),
            Step::Done(stored) => {
                stream.take(stored);
                Step::Again
            }
        })
    }
}

fn encode(kind: Kind) -> Bytes {
    Chunk { kind: Some(kind) }.encode_to_vec().into()
}

fn sum_bytes(sum: u128) -> Bytes {
    Bytes::copy_from_slice(&sum.to_le_bytes())
}

/// Cuts items into pieces of a chunk's size.
fn pieces<T>(items: impl Iterator<Item = T>, bytes: impl Fn(&T) -> usize) -> impl Iterator<Item = Vec<T>> {
    let mut items = items.peekable();
    std::iter::from_fn(move || {
        items.peek()?;
        let (mut piece, mut taken) = (Vec::new(), 0);
        while let Some(item) = items.next_if(|item| piece.is_empty() || taken + bytes(item) <= CHUNK_BYTES) {
            taken += bytes(&item);
            piece.push(item);
        }
        Some(piece)
    })
}
