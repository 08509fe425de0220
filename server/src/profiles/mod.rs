//! Profiles of this process under `/debug/pprof/`, in the form that `go tool pprof` reads; nothing of it exists unless
//! `--enable-pprof` is given (decision 0035).
//!
//! ```text
//! path, query ─► answers ─► cpu ◄─ ticks: SIGPROF, a copy of the stack of whoever runs
//!                   │        └──► modules: which code lies where ─► frames of a copied stack ─┐
//!                   ├──────► memory ─► heap ◄─ jemalloc: what it sampled ─────────────────────┼─► pprof ◄─ symbols
//!                   └──────► threads: /proc ──────────────────────────────────────────────────┘
//! ```
//!
//! Paths, parameters, headers and errors are those of Go's `net/http/pprof`; the profiles are of this program. It owns neither
//! sockets nor rules of access: `pages.rs` asks those first.
//!
//! Invariants:
//! * The handler of the signal copies and sends, and nothing else: no allocation, no lock, no reading of memory that may not be
//!   there. What is to be thought about a stack is thought on a thread of its own.
//! * One profile of the CPU at a time, of a bounded length, with a bounded number of stacks. A request that goes away ends it.
//! * Where no profile is taken there is no timer, no signal and no thread.

mod answers;
mod cpu;
mod error;
#[cfg(feature = "heap-profiles")]
mod heap;
#[cfg(feature = "heap-profiles")]
mod jemalloc;
mod memory;
mod modules;
mod pprof;
mod symbols;
mod threads;
mod ticks;

pub use answers::{Answer, Profiles};
