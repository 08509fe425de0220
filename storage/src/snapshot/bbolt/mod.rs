//! The file format of etcd's backend, written in one pass over the bytes and read without trust.
//!
//! A bbolt file is an array of pages. Pages 0 and 1 hold a meta record each, the newer one names the root: a B+tree
//! whose entries are the buckets, each of them the root of a B+tree of its own.
//!
//! ```text
//!   lengths ──► Plan ──► Layout { size }          entries with values ──► Writer ──► chunks, SHA-256
//!                           └──────────────────────────────────────────►   ▲
//!
//!   | meta | meta | freelist (empty) | alarm … | key: leaf leaf branch leaf … root | … | names of the buckets |
//!     0      1      2                  3
//! ```
//!
//! A stream cannot go back to a page, and a receiver wants to know the size first. So everything is planned from
//! lengths alone, and then the same entries are pushed again with their values; [`Writer`] ends in an error if they
//! are not the same.
//!
//! Invariants:
//! * Nothing here does I/O but [`ReadAt`]; planning and writing are pushed and answer with bytes.
//! * Plan and writer hold memory for leaves (bytes each) and for one open node per level, never for values.
//! * Every page of a written file but those of the empty freelist is reached exactly once: what bbolt's own check asks.
//! * A reader allocates no more than the file is long, whatever the file says, and reads no page twice.
//!
//! It does not do: inline buckets when writing (a leaf page of its own is as valid), nested buckets, changes in place.

mod meta;
mod node;
mod page;
mod plan;
mod reader;
mod source;
mod tree;
mod tree_writer;
mod writer;

#[cfg(test)]
mod tests;

pub use page::{KEY_BYTES_MAX, PAGE_BYTES, VALUE_BYTES_MAX};
pub use plan::{Layout, Plan};
pub use reader::{DEPTH_MAX, Item, Items, NODE_BYTES_MAX, Reader};
pub use source::{DiskSource, ReadAt};
pub use writer::Writer;
