//! The running node: Raft, the log, apply, checkpoints and page reads, each on a thread of its own, and the handle
//! through which the API reaches them.
//!
//! ```text
//!   NodeHandle::propose ─► node thread (Core) ─► log thread ─► node thread ─► apply thread ─► waiters
//!                                                                               │  ├─► View (one pointer swap)
//!                                                 checkpoint thread ◄── Frozen ─┘  └─► watch thread
//! ```
//!
//! * [`core`] and `checkpoint_schedule` are the pure parts: input and time in, outputs out. The threads only carry those.
//! * A View is published before any answer or event of its batch leaves.
//! * A thread that cannot go on stops the process: a failed sync, a failed append, damaged pages under apply.
//!
//! Nothing here knows gRPC; the async runtime shows only in the channels that answer callers.

pub mod answer_budget;
mod apply_checkpoints;
mod apply_counts;
mod apply_follow;
mod apply_install;
mod apply_links;
mod apply_members;
pub mod apply_thread;
mod checkpoint_schedule;
mod checkpoint_thread;
mod compaction_hashes;
mod compaction_schedule;
pub mod content;
pub mod core;
mod data_dir;
pub(crate) mod fatal;
mod first_start;
mod force_new_cluster;
pub mod gather;
pub mod handle;
pub mod hash_marks;
pub mod log_store;
pub mod log_thread;
pub mod node_thread;
mod open_log;
mod pace;
mod read_ahead;
pub mod read_queue;
pub mod readers;
pub mod start;
mod start_error;
pub mod waiters;
mod watch_backlog;
pub mod watch_events;
pub mod watch_history;
pub mod watch_thread;
