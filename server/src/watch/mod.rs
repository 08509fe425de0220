//! Watches: which stream is told what, and when.
//!
//! ```text
//!            Create, Cancel, Progress                       ┌► Send (WatchResponses in wire form)
//!   streams ─────────────────────────► Watches ─► Hub ──────┤
//!   apply ──── Applied, Compacted ───►    │    (one a shard,└► Scan, FetchPrevious (a disk must be read)
//!                                         │     one spanning)      │
//!                                         └──── Scanned, Previous ◄┘
//! ```
//!
//! A [`Hub`](hub) has three flows that meet in its watchers:
//! * **live**: what apply changed, queued while previous values are fetched, then told to every watcher that is synced;
//! * **ring**: recent changes in memory, for watchers a little behind;
//! * **scan**: one shared read of history, in chunks, for all watchers further behind.
//!
//! It is pure: inputs and time in, outputs out. It reads no disk and no clock, knows no connection and has no thread. The API
//! asks for permission before it hands a request in; the room asks again when users or roles change.
//!
//! Invariants:
//! * A watcher is told every event of its range from its start on, once, in the order of revisions, and all events of
//!   one revision in one response unless it asked for fragments (etcd-contract 31).
//! * A header that reports progress R to a watcher is sent after every event up to R (etcd-contract 30); R never falls.
//! * A watcher whose stream does not drain holds nothing but its next revision, and holds up nobody.
//! * What cannot be read is never passed over: watches that would have to be told of it are cancelled.
//! * An event is the stored KeyValue itself, shared with the store; its frame is written where a message is.

mod config;
mod event;
mod hub;
mod interest;
mod lane;
mod message;
mod messages;
mod progress;
mod registry;
mod response;
mod ring;
mod slab;
mod stream;
#[cfg(test)]
mod tests;
mod watcher;
mod watches;

pub use config::WatchConfig;
pub use event::{Event, EventKind};
pub use messages::{Input, Output, PreviousValue, StreamId, Ticket};
pub use watches::{WatchFigures, Watches};
