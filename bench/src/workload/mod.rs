//! The loads: what is put on a server, by how many callers, and what counts as one operation.
//!
//! ```text
//!   Workload ──prepare──► dyn Load ──round──► Tally        (again and again, on either server in turn)
//!      │                     ├─ writes, reads, leases: callers in a loop
//!    Sizes                   └─ watches: writers in a loop, readers of events beside them
//! ```
//!
//! * Preparing (filling keys, granting leases, creating watches) is not measured.
//! * Each operation is checked: an answer that misses keys, or a transaction that did not happen, is a failure.
//! * Every load ends: by deadline, by timeout of each call, by a bound on failures; events in flight are bounded.
//! * Keys and values come from fixed seeds: both servers get the same load.
//!
//! It knows nothing of processes, CPU time or reports.

mod key_space;
mod leases;
mod load;
mod reads;
mod sizes;
mod watches;
mod workload_kind;
mod writes;

pub use key_space::{KeySpace, random_value};
pub use load::Load;
pub use sizes::{LIST_VALUE_BYTES, PAGE_KEYS, Sizes};
pub use workload_kind::Workload;
pub use writes::Put;
