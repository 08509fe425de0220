//! Log lines in the form that etcd's operators and their tools already read.
//!
//! ```text
//! {"level":"info","ts":"2026-08-20T15:13:15.000123Z","caller":"listen/accept.rs:42","msg":"serving client traffic",
//!  "address":"127.0.0.1:2379","traffic":"http"}
//! ```
//!
//! Owns the one `tracing` subscriber of the process: it filters by level, encodes an event as one line (zap's JSON or
//! console form), and writes that line to each output with one call. Times are UTC. Field names are the event's, with
//! `-` for `_`, as etcd writes them.
//!
//! systemd's journal is written in its own protocol (`journal.rs`): the line is the message of an entry, which has its level.
//!
//! A file may be put aside when it is full, as lumberjack does for etcd (`rotating_file.rs`, `backups.rs`). The level may change
//! while the process runs ([`LevelControl`]).
//!
//! It never asks whether an output is a terminal, never fails a caller because an output fails, and never logs spans:
//! what a line needs stands in its own fields. What goes into the fields is the caller's duty: no values, no secrets.
//!
//! No stranger fills a disk with lines ([`allowance`]): each place of our own code has 100 a second and then each 100th, as etcd's
//! logger has; each of a library ten in ten seconds; and where strangers can make things happen without a login, a [`Reminder`]
//! stands. What they wrote is cut ([`ForeignText`]).
//!
//! Invariants:
//! * One event is one line; line breaks in texts are escaped.
//! * Events of libraries are logged from warn on, whatever the level: their debug events are about every frame.
//! * Of what is left out, the next line of that place says how much.

mod allowance;
mod backups;
mod foreign_text;
mod journal;
mod level;
mod line;
mod output;
mod places;
mod reminder;
mod rotating_file;
mod subscriber;

pub use foreign_text::{FOREIGN_TEXT_BYTES_MAX, ForeignText};
pub use level::{LevelControl, Step};
pub use line::time_text;
pub use reminder::Reminder;
pub use subscriber::{LoggingError, install, subscriber};
