//! The one binary: every component under its upstream name.
fn main() {}
