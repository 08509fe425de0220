//! The index of a shard against the entries of its pages.

use crate::mvcc::key_index::{IndexRoot, KeyIndex};
use crate::mvcc::key_value::KeyValue;
use crate::mvcc::shard_map::{ShardId, ShardMap};
use crate::pages::SurveyedEntry;
use crate::revision::Revision;

/// What one step of the compaction that is done in memory drops, about.
const COMPACTED_AT_ONCE: usize = 64 << 10;

/// An index as the last compaction leaves it, and how many of its revisions were found in the pages.
pub(super) struct IndexCheck<'a> {
    shard: ShardId,
    shard_map: &'a ShardMap,
    index: IndexRoot,
    /// Revisions that the index names.
    pub named: u64,
    /// Those of them that are in the pages.
    pub found: u64,
    revision: i64,
    compact_revision: i64,
}

impl<'a> IndexCheck<'a> {
    /// Takes the index as its runs have it. These may still name what a compaction dropped: that is no change of a key,
    /// so that a run of changed keys does not hold it.
    pub fn new(
        (shard, shard_map): (ShardId, &'a ShardMap),
        mut index: KeyIndex,
        revision: i64,
        compact_revision: i64,
    ) -> Self {
        let mut cursor = None;
        loop {
            cursor = index.compact_step(compact_revision, cursor, COMPACTED_AT_ONCE).next;
            if cursor.is_none() {
                break;
            }
        }
        let index = index.root();
        let mut named = 0;
        index.for_each_stored(|_, _, _| named += 1);
        Self { shard, shard_map, index, named, found: 0, revision, compact_revision }
    }

    /// Keys that live.
    pub fn keys(&self) -> u64 {
        self.index.len()
    }

    /// Takes an entry of the pages; what is wrong with it, if anything.
    pub fn entry(&mut self, entry: &SurveyedEntry) -> Result<(), String> {
        let SurveyedEntry { revision, tombstone, previous, dead, key_value } = entry;
        let kv = KeyValue::parse(key_value).map_err(|error| error.to_string())?;
        let stored = self.index.stored_up_to(kv.key, *revision).filter(|(stored, _)| stored == revision);
        if *dead {
            return if stored.is_none() { Ok(()) } else { Err("it is marked dead, but the index names it".to_owned()) };
        }
        if revision.main > self.revision {
            return Err(format!("it is above the store's revision {}", self.revision));
        }
        if self.shard_map.shard_of(kv.key) != self.shard {
            return Err("its key belongs to another shard".to_owned());
        }
        let Some((_, is_tombstone)) = stored else {
            return if revision.main <= self.compact_revision {
                Ok(())
            } else {
                Err("the index does not name it".to_owned())
            };
        };
        self.found += 1;
        if is_tombstone != *tombstone {
            return Err("the index and the page differ in whether it deletes its key".to_owned());
        }
        // Maybe of the same transaction, which deleted the key and put it again.
        let older = self.index.stored_up_to(kv.key, below(*revision));
        if let Some((older, older_deletes)) = older
            && *previous != (!older_deletes).then_some(older)
        {
            return Err(format!("it names {previous:?} as the one before it, the index {older:?}"));
        }
        self.check_head(*revision, &kv)
    }

    /// What the index knows of the newest revision stands in its KeyValue too. An empty one stands for itself.
    fn check_head(&self, revision: Revision, kv: &KeyValue<'_>) -> Result<(), String> {
        let head = self.index.get(kv.key).filter(|head| head.mod_revision == revision);
        let Some(head) = head.filter(|_| *kv != KeyValue::default()) else { return Ok(()) };
        let told = (kv.create_revision, kv.mod_revision, kv.version, kv.lease);
        if told == (head.create_revision, revision.main, head.version, head.lease) {
            return Ok(());
        }
        Err("the index has another creation, version or lease for it".to_owned())
    }

    /// Calls `each` with all revisions that the index names.
    pub fn for_each_named(&self, each: impl FnMut(&[u8], Revision, bool)) {
        self.index.for_each_stored(each);
    }
}

/// The last revision that may be before this one.
fn below(revision: Revision) -> Revision {
    match revision.sub {
        0 => Revision::new(revision.main - 1, i64::MAX),
        sub => Revision::new(revision.main, sub - 1),
    }
}
