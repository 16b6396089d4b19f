//! The guest workload.
fn main() {}
