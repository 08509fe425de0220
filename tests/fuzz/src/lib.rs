//! Foreign bytes: every parser of what others send, write or leave on a disk, as a function of bytes that must hold its promises
//! whatever the bytes are.
//!
//! ```text
//!   corpus/<target>/ ─┐
//!   seeds of the code ─┼─► mutation ─► Target::run ─► panics, when a promise is broken
//!   libFuzzer ────────┘    (tests/replay.rs: seeded, bounded; tests/fuzz/run: guided by coverage)
//! ```
//!
//! * A target takes any bytes, keeps nothing between two runs that shows, and knows no clock: the same bytes do the same.
//! * It goes through the door that the program goes through. Where a checksum would turn all that is forged away at once, it
//!   makes the checksums right first ([`forge`]): what stands behind them is to hold too.
//! * Beside what every target looks for (panics, overflows, hangs, memory), each says in its first lines what must hold.
//! * A finding becomes a test beside the code that it is about, and its bytes stay in the corpus.

pub mod disks;
pub mod forge;
pub mod mutation;
mod targets;

pub use targets::{TARGETS, Target};

/// Finds a target by its name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
