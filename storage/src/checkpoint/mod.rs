//! (door; see DESIGN)

pub mod manifest;
