//! Tests of the log as a whole, over the simulated disk.

mod crash;
mod document;
mod full_disk;
mod harness;
mod hostile_bytes;
mod round_trip;
