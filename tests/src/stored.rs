//! Everything that a store can be asked, asked: by value and by walking, now and in the past.

use std::error::Error;
use std::sync::Arc;

use basalt_storage::disk::SimulatedDisk;
use basalt_storage::hashes::{HashKv, HashKvJob, HashPurpose};
use basalt_storage::job::{BUDGET_UNLIMITED, run};
use basalt_storage::mvcc::fetch::Fetch;
use basalt_storage::mvcc::key_range::KeyRange;
use basalt_storage::mvcc::key_value::KeyValue;
use basalt_storage::mvcc::range::RangeQuery;
use basalt_storage::mvcc::view::{LogPosition, View};
use bytes::Bytes;

use crate::model::Version;
use crate::node_sim::SimulatedNode;

/// What a View answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    revision: i64,
    compact_revision: i64,
    applied: LogPosition,
    /// At some revisions, the oldest readable and the newest among them: all live KeyValues, and HashKV.
    at: Vec<(i64, Vec<Bytes>, HashKv)>,
}

impl Stored {
    /// Asks for everything.
    ///
    /// # Errors
    /// What a read met. Those after it are not asked for.
    pub fn read(view: &Arc<View>, disk: &SimulatedDisk) -> Result<Self, Box<dyn Error>> {
        let (oldest, newest) = (view.compact_revision.max(1), view.revision);
        let mut at = Vec::new();
        for revision in [oldest, i64::midpoint(oldest, newest), newest] {
            let plan = view.plan(&RangeQuery { revision, ..RangeQuery::all(KeyRange::ALL) }).expect("readable");
            let values = run(&mut Fetch::new(view.clone(), plan.hits), disk, BUDGET_UNLIMITED)?;
            let mut hash = HashKvJob::new(view.clone(), revision, view.compact_revision, HashPurpose::Request);
            at.push((revision, values, run(&mut hash, disk, BUDGET_UNLIMITED)?));
        }
        let View { revision, compact_revision, applied, .. } = **view;
        Ok(Self { revision, compact_revision, applied, at })
    }

    /// The last log entry in it.
    pub fn applied_index(&self) -> u64 {
        self.applied.index
    }
}

/// The live keys of a range at a revision, in order.
///
/// # Panics
/// When they cannot be read.
pub fn read_range(
    node: &SimulatedNode,
    view: &Arc<View>,
    key: &[u8],
    range_end: &[u8],
    at: i64,
) -> Vec<(Vec<u8>, Version)> {
    let range = KeyRange::from_wire(key, range_end);
    let plan = view.plan(&RangeQuery { revision: at, ..RangeQuery::all(range) }).expect("readable");
    let values = node.read(Fetch::new(view.clone(), plan.hits));
    let version = |bytes: Bytes| {
        let stored = KeyValue::parse(&bytes).expect("stored values are whole");
        (stored.key.to_vec(), Version::of(&stored))
    };
    values.into_iter().map(version).collect()
}
