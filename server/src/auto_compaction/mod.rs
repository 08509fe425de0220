//! When old revisions go by themselves (etcd-contract 58; `server/etcdserver/api/v3compactor/` in etcd).
//!
//! Owns the two schedules of `--auto-compaction-mode`: `periodic` keeps the revisions of a time, `revision` keeps a
//! number of them. Pure: it is told the time and the revision, and answers which revision to compact at.
//!
//! ```text
//! tick(now, revision, leads) -> Some(at)   the caller compacts at `at` and says how it went
//! finished(now, outcome)                   a success moves on; a failure is tried again at a later tick
//! ```
//!
//! It never compacts, sleeps or reads a clock. Only the leader compacts, but every member samples, so that one that
//! comes to lead need not wait a whole period first.
//!
//! Invariants:
//! * A revision whose compaction succeeded is not asked for twice in a row.
//! * One question at a time, and a pause after each, however late or often ticks come.
//! * At most one sample is kept for each tenth of the interval within the period.

mod periodic;
mod revision;
mod schedule;

pub use schedule::{AutoCompactor, Outcome};
