//! The latest state as decisions see it: the store under apply, or a View beside it.

use std::ops::ControlFlow;

use basalt_storage::mvcc::key_index::KeyState;
use basalt_storage::mvcc::key_range::KeyRange;
use basalt_storage::mvcc::range::Hit;
use basalt_storage::mvcc::store::Store;
use basalt_storage::mvcc::view::View;
use bytes::Bytes;

/// What compares look at.
pub trait Latest {
    /// The live state of a key.
    fn get(&self, key: &[u8]) -> Option<KeyState>;

    /// Visits the live keys of a range, shard by shard, ascending within each, until it is told to stop.
    fn for_each_live(&self, range: &KeyRange, visit: &mut dyn FnMut(&[u8], KeyState) -> ControlFlow<()>);

    /// Where the live version of a key is stored.
    fn hit(&self, key: &[u8], state: KeyState) -> Hit;

    /// A stored value if it needs no disk.
    fn resident(&self, hit: Hit) -> Option<Bytes>;
}

impl Latest for Store {
    fn get(&self, key: &[u8]) -> Option<KeyState> {
        Store::get(self, key)
    }

    fn for_each_live(&self, range: &KeyRange, visit: &mut dyn FnMut(&[u8], KeyState) -> ControlFlow<()>) {
        Store::for_each_live(self, range, visit);
    }

    fn hit(&self, key: &[u8], state: KeyState) -> Hit {
        Hit { shard: self.shard_map().shard_of(key), revision: state.mod_revision }
    }

    fn resident(&self, hit: Hit) -> Option<Bytes> {
        Store::resident(self, hit)
    }
}

impl Latest for View {
    fn get(&self, key: &[u8]) -> Option<KeyState> {
        self.shard(self.shard_map.shard_of(key)).index.get(key)
    }

    fn for_each_live(&self, range: &KeyRange, visit: &mut dyn FnMut(&[u8], KeyState) -> ControlFlow<()>) {
        for shard in self.shard_map.shards_of(range) {
            if self.shard(shard).index.scan_head(range, &mut *visit).is_break() {
                return;
            }
        }
    }

    fn hit(&self, key: &[u8], state: KeyState) -> Hit {
        Hit { shard: self.shard_map.shard_of(key), revision: state.mod_revision }
    }

    fn resident(&self, hit: Hit) -> Option<Bytes> {
        View::resident(self, hit)
    }
}
