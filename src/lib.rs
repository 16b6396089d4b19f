//! Live migration of Xen domains between hosts whose disks are replicated by DRBD.
//!
//! The modules stand in the order in which a migration passes through them; ARCHITECTURE.md tells one `migrate` call
//! from end to end. The library never prints and never exits.

pub mod admission;
pub mod daemon;
pub mod dm;
pub mod domcfg;
pub mod drbd;
pub mod handover;
pub mod holders;
pub mod host;
pub mod hotplug;
pub mod ids;
pub mod layer;
pub mod migrate;
pub mod plan;
pub mod preflight;
pub mod protocol;
pub mod receive;
pub mod replication;
pub mod report;
pub mod role;
pub mod stream;
pub mod toolstack;
pub mod transport;
mod wait;
pub mod xen;
