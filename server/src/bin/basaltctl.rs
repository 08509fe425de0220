//! The program `basaltctl`: restores snapshots and checks data directories.

use std::process::ExitCode;

/// As in `basalt`.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    basalt_server::control::main()
}
