//! The program `basalt`: takes etcd's flags and serves etcd's API.

use std::process::ExitCode;

/// A fifth less server CPU per call than the system's allocator, measured (DESIGN 10).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    basalt_server::program::main()
}
