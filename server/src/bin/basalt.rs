//! The program `basalt`.
fn main() {}
