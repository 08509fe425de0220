//! Who a member without data is.

use std::sync::Arc;

use basalt_storage::mvcc::shard_map::ShardMap;
use basalt_storage::mvcc::view::LogPosition;

use super::handle::Identity;
use crate::apply::members::Members;

/// Who a member without data is.
#[derive(Clone, Debug)]
pub struct FirstStart {
    /// Its ids.
    pub identity: Identity,
    /// The first members of its cluster, or who is there where it joins one.
    pub members: Members,
    /// How keys are split in the cluster that it joins.
    pub shard_map: Option<ShardMap>,
    /// Where its log begins. All first members of a cluster begin behind the same entry, as etcd's do behind those that name
    /// them; one that joins begins at nothing, and so is brought a whole state.
    pub begins_after: LogPosition,
}

impl FirstStart {
    /// One of the first members of a cluster.
    pub fn new_cluster(identity: Identity, members: Members) -> Self {
        let begins_after = LogPosition { index: members.iter().count() as u64, term: 1 };
        Self { identity, members, shard_map: None, begins_after }
    }
}

/// Says who a member without data is, or why it cannot be said: asked only where there is no data, and perhaps of others.
#[derive(Clone)]
pub struct First(pub Arc<dyn Fn() -> Result<FirstStart, String> + Send + Sync>);

impl std::fmt::Debug for First {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("First")
    }
}
