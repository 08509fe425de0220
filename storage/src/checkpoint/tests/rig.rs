//! A store on a disk of the test's choice: writes, checkpoints, openings.

use std::sync::Arc;

use bytes::Bytes;

use crate::checkpoint::recovery::{self, Birth, Opened, RecoveryError};
use crate::checkpoint::{Checkpoint, CheckpointError, Checkpointer, Salt};
use crate::disk::{Disk, Io, IoOutput};
use crate::job::run;
use crate::mvcc::fetch::Fetch;
use crate::mvcc::key_range::KeyRange;
use crate::mvcc::range::RangeQuery;
use crate::mvcc::shard_map::ShardMap;
use crate::mvcc::store::Store;
use crate::pages::PageCache;

/// Small steps, so that a job hands out its requests one by one.
const STEP_BUDGET: usize = 3;

pub(super) struct Rig {
    pub store: Store,
    /// Away only after a checkpoint that failed for good.
    pub checkpointer: Option<Checkpointer>,
}

pub(super) fn birth() -> Birth {
    Birth { cluster_id: 1, member_id: 2, incarnation: 3, conf_state: vec![], shard_map: ShardMap::default() }
}

fn cache() -> Arc<PageCache> {
    Arc::new(PageCache::new(1 << 20))
}

impl Rig {
    /// A new data directory.
    pub fn create(disk: &dyn Disk) -> Result<Self, RecoveryError> {
        recovery::create(disk, &cache(), Salt::new(1), birth()).map(Self::of)
    }

    /// What lies there; nothing is changed.
    pub fn open(disk: &dyn Disk) -> Result<Option<Self>, RecoveryError> {
        Ok(recovery::open(disk, &cache(), Salt::new(2))?.map(Self::of))
    }

    /// What a start does when the log had nothing to object.
    pub fn settle(&mut self, disk: &dyn Disk) -> Result<(), RecoveryError> {
        recovery::settle(disk, self.checkpointer.as_mut().expect("no checkpoint failed for good"))
    }

    fn of(opened: Opened) -> Self {
        Self { store: opened.store, checkpointer: Some(opened.checkpointer) }
    }

    pub fn checkpointer(&self) -> &Checkpointer {
        self.checkpointer.as_ref().expect("no checkpoint failed for good")
    }

    pub fn put(&mut self, key: &str, value: &[u8]) {
        let mut transaction = self.store.begin();
        transaction.put(&Bytes::copy_from_slice(key.as_bytes()), value, 0);
        let changes = transaction.finish();
        self.store.install(&changes);
    }

    /// One checkpoint; `false` when the disk was full.
    pub fn checkpoint(&mut self, disk: &dyn Disk) -> Result<bool, CheckpointError> {
        self.checkpoint_as(disk, false)
    }

    /// One checkpoint that rewrites all that is partly dead, if asked.
    pub fn checkpoint_as(&mut self, disk: &dyn Disk, rewrite_all: bool) -> Result<bool, CheckpointError> {
        let mut frozen = self.store.freeze();
        frozen.rewrite_all = rewrite_all;
        let mut job = self.checkpointer.take().expect("no checkpoint failed for good").begin(frozen);
        match run(&mut job, disk, STEP_BUDGET) {
            Ok(Checkpoint { checkpointer, checkpointed, .. }) => {
                self.checkpointer = Some(checkpointer);
                self.store.checkpointed(checkpointed);
                Ok(true)
            }
            Err(CheckpointError::NoSpace { checkpointer, frozen, .. }) => {
                self.checkpointer = Some(*checkpointer);
                self.store.checkpoint_failed(*frozen);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// All that is stored, read from the disk.
    pub fn values(&self, disk: &dyn Disk) -> Vec<Bytes> {
        self.values_at(disk, 0)
    }

    /// All that was stored at a revision; 0 is the newest.
    pub fn values_at(&self, disk: &dyn Disk, revision: i64) -> Vec<Bytes> {
        let view = Arc::new(self.store.head());
        let query = RangeQuery { revision, ..RangeQuery::all(KeyRange::ALL) };
        let plan = view.plan(&query).expect("no revision was compacted");
        run(&mut Fetch::new(view, plan.hits), disk, STEP_BUDGET).expect("what a manifest names can be read")
    }
}

/// Names in a directory; none in one that is not there.
pub(super) fn list(disk: &dyn Disk, directory: &str) -> Vec<String> {
    match disk.perform(Io::List { directory: directory.to_owned() }) {
        Ok(IoOutput::Names(names)) => names,
        _ => Vec::new(),
    }
}
