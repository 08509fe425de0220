//! Hashes that etcd's clients compare: HashKV, and the hash over all buckets. Bit for bit etcd's.
//!
//! Both are CRC-32C over bytes in revision order, and CRCs of parts can be put together if the lengths are known. So
//! this room computes them from slot tables and never sees a value of bucket `key`.
//!
//! ```text
//!   View ─┬─► HashKvJob ───────► Superseded ─► HashKvHasher ─► HashKv ─► HashKvCache (of compactions only)
//!         │     two walks:       slots' links   their CRCs
//!         └─► ContentHashJob ──► ContentHash ─► RPC Hash: what a snapshot of that View would hold
//! ```
//!
//! Which slots count for HashKV(R) under compact revision C (etcd-contract 52, etcd `server/storage/mvcc/hash.go`):
//!
//! | slot | counts |
//! | --- | --- |
//! | above R | no |
//! | above C, up to R | yes |
//! | tombstone up to C | no |
//! | superseded by a slot up to C | no: a finished compaction drops it |
//! | up to C, superseded by a slot up to R | no; yes if no key at all is alive at R |
//! | up to C, else | yes |
//!
//! Invariants:
//! * How far a member's own compaction has come does not show: dead slots may be handed over or left out.
//! * A key changes at most once in a main revision (etcd refuses transactions that would).
//! * Input is a view that does not change between the two passes.
//!
//! It does not walk the slots of a View itself (room `snapshot` does), check what a job is asked for (the cache
//! resolves it), or decide when to hash.

mod concat;
mod content_hash;
mod content_hash_job;
mod error;
mod hash_cache;
mod hash_kv;
mod hash_kv_job;

#[cfg(test)]
mod tests;

pub use content_hash::{ContentHash, HashedContent};
pub use content_hash_job::ContentHashJob;
pub use error::{HashError, HashJobError};
pub use hash_cache::{CACHED_HASHES_MAX, HashKvCache, HashRequest};
pub use hash_kv::{HashKv, HashKvHasher, HashPurpose, HashScope, HashSlot, Superseded};
pub use hash_kv_job::HashKvJob;
