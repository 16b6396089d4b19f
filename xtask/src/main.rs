//! The entry points of the repository.
fn main() {}
