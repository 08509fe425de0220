//! The room as a whole, over a disk in memory.

mod corruption;
mod crash;
mod failures;
mod format;
mod growth;
mod hostile;
mod memory_disk;
mod model;
mod reading;
mod rig;
mod tidying;
