//! Data of etcd becomes data of ours: which data, under whose name, and what becomes of the old.
//!
//! ```text
//!   snapshot FILE ───────────► database ──────────────► data directory, new
//!   member/ of a restore ─┬─► etcd_log: whose is it, was it used since? ─► database ─► the same directory
//!                         └─────────────────────────────────► member.imported-<time>     (takeover)
//! ```
//!
//! How files are read and written is `basalt_storage::import`'s; this room says what may come in:
//!
//! * A database of etcd 3.7 or older, with no downgrade to below 3.6 under way: what is refused could not be kept as the
//!   operator expects it.
//! * A directory only as `etcdutl snapshot restore` wrote it. Once etcd ran on it, its log may hold what its database
//!   does not; then a snapshot is the way.
//!
//! Invariants:
//! * An import that was cut off anywhere leaves the old tree as it was, or is whole. The instant between is one exchange
//!   of two names, so that neither etcd nor basalt ever finds a directory without `member` and starts empty there.
//! * What was imported is never imported again, and the old tree is renamed, not removed.
//! * Bytes of etcd's files are hostile, those of its log too.

mod database;
mod error;
mod etcd_log;
mod file_source;
mod system_records;
mod takeover;
#[cfg(test)]
mod tests;

pub use database::{Imported, Target, import_database};
pub use error::ImportFailure;
pub use etcd_log::{EtcdLog, is_segment_name};
pub use file_source::FileSource;
pub use takeover::{DATABASE_NAME, MEMBER_FILE, MEMBER_TEXT, TakenOver, Takeover, write_member_file};
