//! The lab's guest: a workload that proves that a domain went on without loss, and the little init around it.
//!
//! `wire` is what the guest says and hears on its network; the lab's witness reads it from there. `workload` is the
//! story: a counter, its log on every data disk, a checked memory area, and the socket for commands. It knows nothing
//! of PID 1 and runs as well inside a test. `init` is what surrounds it in a domain: mounts, modules, disks, network,
//! power-off.

pub mod cmdline;
pub mod console;
pub mod counter_log;
pub mod init;
pub mod memory;
pub mod network;
pub mod wire;
pub mod workload;
