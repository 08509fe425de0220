//! Latency of puts while a server does deferred work, beside that of calm.
//!
//! ```text
//!   command ─► side ─┬─► open_loop          puts at a fixed rate, whatever is answered
//!      │             ├─► compactions        asked for every few seconds
//!      │             └─► checkpoint_watch   when the server's metrics say that one was
//!      └─► report ◄── samples ◄── windows   which put was under way during which work
//! ```
//!
//! * A put counts from when it was due, so that a pause is charged to every put that it delays.
//! * A put that was under way during deferred work counts to it, also if it began before or ended after; one that met
//!   both kinds counts to both. Calm is what met neither.
//! * All servers get the same rate. Nothing runs on the server whose turn it is not.

mod checkpoint_watch;
mod command;
mod compactions;
mod open_loop;
mod report;
mod samples;
mod side;
mod windows;

pub use command::PausesArgs;
