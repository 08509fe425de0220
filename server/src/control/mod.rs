//! The program `basaltctl`: what an operator does to data while no node runs on it, and to a cluster that runs.
//!
//! ```text
//!   arguments ─► command_line ─► snapshot restore ─► import ─► a new data directory
//!                           ├──► snapshot status
//!                           ├──► check ─► basalt_storage::check
//!                           ├──► cluster: status, member, reseed ─► members, over gRPC
//!                           └──► openapi ─► the gateway's document
//! ```
//!
//! It takes etcdutl's words and flags where there are any. Results go to standard output, progress and errors to standard
//! error; the last line of a failure says what to do. It never changes a directory that a node has locked, and no other
//! file than those of the directory it was told to make.
//!
//! Exit codes: 0 done, and nothing wrong; 1 it failed, or `check` has found damage; 2 a command line that cannot be
//! parsed, or `check` could not look.

mod check;
mod cluster;
mod cluster_line;
mod command_line;
mod help;
mod program;
mod restore;
mod status;

pub use program::main;
