//! Live migration of Xen domains between hosts whose disks are replicated by DRBD.
//!
//! The modules stand in the order in which a migration passes through them; ARCHITECTURE.md tells one `migrate` call
//! from end to end. The library never prints and never exits.

pub mod domcfg;
pub mod ids;

// The story, both ends.
mod peer;
pub mod plan;

pub mod preflight;

pub mod migrate;

pub mod protocol;
pub mod transport;

pub mod stream;

pub mod receive;

pub mod handover;

pub mod journal;

pub mod ends;
pub mod recover;

pub mod fault;
pub mod orders;

pub mod report;

pub mod daemon;

// What it stands on: two traits, and who implements them.
pub mod host;

pub mod replication;
pub mod toolstack;

pub mod drbd;
pub mod xen;

// The right to write a volume on this host, and the programs that libxl runs for it.
pub mod admission;
pub mod dm;
pub mod holders;
pub mod layer;
pub mod role;

pub mod hotplug;

mod wait;
