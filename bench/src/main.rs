//! Load generator: measures a server that speaks etcd's API, or two of them side by side.
//!
//! ```text
//!   compare ─► comparison ─► server_process   two servers, started and killed here
//!                  │              │
//!     run ────────►└─► round ◄────┴─ process_usage   CPU time and memory from /proc
//!                        │
//!                        └─► workload ─► closed_loop ─► connections
//!                                             └─► histogram
//!   report ─► table
//! ```
//!
//! * Everything is bounded: by a deadline, a timeout for each call, and a bound on failures.
//! * Only processes started here are killed, and nothing outside their temporary folders is written but `--json`.
//!
//! `README.md` beside this crate says how the figures are to be read.

mod closed_loop;
mod command_line;
mod comparison;
mod connections;
mod histogram;
mod process_usage;
mod report;
mod round;
mod server_process;
mod table;
mod workload;

use std::process::ExitCode;

use clap::Parser;

use command_line::CommandLine;

fn main() -> ExitCode {
    CommandLine::parse().run().unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
