//! The hashes that compactions leave behind.

use super::error::HashError;
use super::hash_kv::HashKv;

/// How many hashes are kept (etcd's `hashStorageMaxSize`).
pub const CACHED_HASHES_MAX: usize = 10;

/// The hashes of the newest compactions, ascending by revision.
///
/// A member that was behind a compaction can still be compared with the others: this is the only way to the hash of a
/// revision that is compacted by now. It lives in memory; a restart empties it, as in etcd.
#[derive(Debug, Default)]
pub struct HashKvCache {
    hashes: Vec<HashKv>,
}

/// What a HashKV request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashRequest {
    /// This answer.
    Cached(HashKv),
    /// The hash at this revision; a negative one covers the bucket name only.
    Compute {
        /// Never 0.
        revision: i64,
    },
}

impl HashKvCache {
    /// An empty cache.
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps the hash that a finished compaction computed with
    /// [`HashPurpose::Compaction`](super::HashPurpose::Compaction); drops the lowest revision when there are too many.
    ///
    /// Not for a compaction before which another was unfinished: it hashed what that one had left (etcd#15919).
    pub fn store(&mut self, hash: HashKv) {
        if let Err(at) = self.hashes.binary_search_by_key(&hash.revision, |cached| cached.revision) {
            self.hashes.insert(at, hash);
        }
        if self.hashes.len() > CACHED_HASHES_MAX {
            self.hashes.remove(0);
        }
    }

    /// The cached hashes, ascending by revision: what members compare with each other.
    pub fn hashes(&self) -> &[HashKv] {
        &self.hashes
    }

    /// Resolves a request for `revision`, where 0 means the current one. A cached revision is answered before any
    /// check, also below the compact revision (etcd-contract 52).
    ///
    /// Other than etcd it never answers 0 from the cache, where a `Compact(0)` may have left something.
    ///
    /// # Errors
    /// [`HashError::Compacted`], [`HashError::FutureRevision`].
    pub fn resolve(
        &self,
        revision: i64,
        current_revision: i64,
        compact_revision: i64,
    ) -> Result<HashRequest, HashError> {
        if revision == 0 {
            return Ok(HashRequest::Compute { revision: current_revision });
        }
        if let Some(cached) = self.hashes.iter().find(|cached| cached.revision == revision) {
            return Ok(HashRequest::Cached(*cached));
        }
        match revision {
            ..0 => Ok(HashRequest::Compute { revision }),
            _ if revision < compact_revision => Err(HashError::Compacted),
            _ if revision > current_revision => Err(HashError::FutureRevision),
            _ => Ok(HashRequest::Compute { revision }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(revision: i64) -> HashKv {
        HashKv { hash: revision as u32, compact_revision: revision - 1, revision }
    }

    #[test]
    fn the_ten_highest_stay() {
        let mut cache = HashKvCache::new();
        (1..=12).rev().for_each(|revision| cache.store(hash(revision)));
        assert_eq!(cache.hashes(), (3..=12).map(hash).collect::<Vec<_>>());
        cache.store(hash(20));
        assert_eq!(cache.hashes().first(), Some(&hash(4)));
        cache.store(HashKv { hash: 0, ..hash(20) });
        assert_eq!(cache.hashes().last(), Some(&hash(20)));
    }

    #[test]
    fn cached_then_compacted_then_future() {
        let mut cache = HashKvCache::new();
        cache.store(hash(5));
        cache.store(hash(0));
        assert_eq!(cache.resolve(5, 20, 10), Ok(HashRequest::Cached(hash(5))));
        assert_eq!(cache.resolve(6, 20, 10), Err(HashError::Compacted));
        assert_eq!(cache.resolve(10, 20, 10), Ok(HashRequest::Compute { revision: 10 }));
        assert_eq!(cache.resolve(21, 20, 10), Err(HashError::FutureRevision));
        assert_eq!(cache.resolve(0, 20, 10), Ok(HashRequest::Compute { revision: 20 }));
        assert_eq!(cache.resolve(-5, 20, 10), Ok(HashRequest::Compute { revision: -5 }));
    }
}
