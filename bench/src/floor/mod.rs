//! A server without a store: what a load costs when nothing is kept, ordered or looked up.
//!
//! ```text
//!   server ─► calls ─┬─► wire       messages as bytes, as tonic frames them
//!                    ├─► canned     answers that never change
//!                    ├─► list       a list, cut into pages and messages as basalt cuts it
//!                    └─► fan_out    each put to every watcher of its range
//! ```
//!
//! * It is tonic as it comes, with answers that were encoded before the load began. What a load costs here is the floor
//!   of a server on tonic; one with an edge of its own may be below it.
//! * It answers what the loads call whose floors are asked for: keepalives, watches of a prefix, lists, and puts, grants
//!   and gets of one key beside them. Everything else is refused as unimplemented.
//! * It keeps nothing but watchers. Whatever is put is told to them and forgotten.

mod calls;
mod canned;
mod fan_out;
mod list;
mod server;
mod wire;

pub use server::FloorArgs;
