//! Load generator: measures a server that speaks etcd's API, or two of them side by side.
//!
//! ```text
//!   compare ─► comparison ─► server_process   two servers, started and killed here
//!                  │              │
//!     run ────────►└─► round ◄────┴─ process_usage   CPU time and memory from /proc
//!                        │  └─► checkpoints ─► metrics_page
//!                        └─► workload ─► closed_loop ─► connections ─► access   open, as a user, over TLS
//!                                             └─► histogram
//!   report ─► table                               floor    a server without a store, to compare with
//!   idle          memory of connections that do nothing
//!   pauses        latency of puts while either server does deferred work
//! ```
//!
//! * Everything is bounded: by a deadline, a timeout for each call, and a bound on failures.
//! * Only processes started here are killed, and nothing outside their temporary folders is written but `--json`.
//!
//! `README.md` beside this crate says how the figures are to be read.

mod access;
mod checkpoints;
mod closed_loop;
mod command_line;
mod comparison;
mod connections;
mod floor;
mod histogram;
mod idle;
mod metrics_page;
mod pauses;
mod process_usage;
mod report;
mod round;
mod server_process;
mod spread;
mod table;
mod workload;

use std::process::ExitCode;

use clap::Parser;

use command_line::CommandLine;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    CommandLine::parse().run().unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
