//! Damage, with the shard that has it: pages know only their file.

use thiserror::Error;

use super::shard_map::ShardId;
use super::view::View;
use crate::pages::PagesError;

/// A page of a shard could not be read, or is not what was written.
#[derive(Debug, Error)]
#[error("reading shard {shard:?}")]
pub struct ShardReadError {
    /// Its name.
    pub shard: String,
    /// Which page, and what is wrong.
    #[source]
    pub cause: PagesError,
}

impl ShardReadError {
    /// Damage in `shard` of `view`.
    pub fn new(view: &View, shard: ShardId, cause: PagesError) -> Self {
        Self { shard: view.shard_map.shards()[shard.position()].name.clone(), cause }
    }
}
