//! The program `basalt`: takes etcd's flags and serves etcd's API.

use std::process::ExitCode;

/// Gives memory that is free back within a second or two (decision 0016).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    basalt_server::program::main()
}
