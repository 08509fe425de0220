//! Values that apply needs before it can decide: compared ones, and those that a put keeps.

use std::collections::HashMap;

use basalt_storage::mvcc::range::Hit;
use bytes::Bytes;

/// Where apply takes a stored value from. The driver prefetched what a batch can need, so that this finds it in
/// memory; a source that has to read a disk counts it (`basalt_apply_disk_waits_total`).
///
/// A source that cannot deliver does not return: apply may not guess, and the node stops.
pub trait Values {
    /// The encoded KeyValue of a stored revision.
    fn value(&mut self, hit: Hit) -> Bytes;
}

/// Values fetched ahead of a batch.
#[derive(Debug, Default)]
pub struct Prefetched(HashMap<(u32, i64, i64), Bytes>);

impl Prefetched {
    /// Keeps a fetched value.
    pub fn insert(&mut self, hit: Hit, value: Bytes) {
        self.0.insert((hit.shard.0, hit.revision.main, hit.revision.sub), value);
    }

    /// A value that was fetched.
    pub fn get(&self, hit: Hit) -> Option<&Bytes> {
        self.0.get(&(hit.shard.0, hit.revision.main, hit.revision.sub))
    }
}

/// For who has prefetched all that he looks at.
impl Values for Prefetched {
    fn value(&mut self, hit: Hit) -> Bytes {
        self.get(hit).cloned().expect("every value looked at was fetched before")
    }
}
