//! (door; see DESIGN)

pub mod allocator;
