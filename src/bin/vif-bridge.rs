//! The nic hotplug program.
fn main() {}
