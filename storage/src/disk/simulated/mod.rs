//! A disk in memory that keeps only its promises, for crash tests and the cluster simulator.
//!
//! It holds everything twice: as the page cache shows it, and as the platter has it. Reads see the cache. A sync
//! of a file moves its sectors and length to the platter, a sync of a directory its entries, and nothing else
//! does. [`SimulatedDisk::crash`] is a power cut: each sector of 512 bytes, each length, each created, renamed or
//! removed name that was not synced persists or is lost on its own, and a sector may be torn in the middle
//! ([`PowerCut`] says how that is chosen). [`SimulatedDisk::restart`] is the death of the process alone: the
//! cache lives on, and what it shows may still not be on the platter.
//!
//! Reading order: `sparse_bytes` (bytes with holes), `file` (cache and platter of one file), `namespace` (the
//! same of names), `injected_fault` and `faults` (what is armed, and how its errors are known), `device` (all of it behind [`Disk`](super::Disk)).
//!
//! It does not model latency (who performs a request decides when), nor permissions, links or mmap.

mod device;
mod faults;
mod file;
mod injected_fault;
mod namespace;
mod power_cut;
mod sparse_bytes;

pub use device::SimulatedDisk;
pub use injected_fault::InjectedFault;
pub use power_cut::PowerCut;
