//! (door; see DESIGN)
