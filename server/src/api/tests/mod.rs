//! The handlers over a running node.

mod client_version;
mod history;
mod kept;
mod nesting;
mod queues;
mod quota;
mod read_only_txn;
mod rig;
mod streams;
mod waiting;
