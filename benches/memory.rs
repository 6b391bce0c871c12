//! Placeholder while the seams settle.
fn main() {}
