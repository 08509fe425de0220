//! The handlers over a running node.

mod history;
mod kept;
mod nesting;
mod queues;
mod read_only_txn;
mod rig;
mod streams;
mod waiting;
