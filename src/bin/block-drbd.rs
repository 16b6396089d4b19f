//! The disk hotplug program.
fn main() {}
