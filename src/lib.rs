//! Live migration of Xen domains between hosts whose disks are replicated by DRBD.
//!
//! The modules stand in the order in which a migration passes through them; ARCHITECTURE.md tells one `migrate` call
//! from end to end. The library never prints and never exits.

pub mod domcfg;
pub mod ids;

// The story, both ends.
pub mod fault;
pub mod migrate;
pub mod orders;
pub mod pair;
mod peer;
pub mod plan;
pub mod preflight;
pub mod protocol;
pub mod receive;
pub mod report;
pub mod stream;
mod timeouts;
pub mod tls;
pub mod transport;

// What each end has promised, what follows from it, and the hands that do it; also after a death.
pub mod ends;
pub mod handover;
pub mod journal;
pub mod recover;

// What stands against domains that move, on this host and between it and a peer.
pub mod checkup;

pub mod config;
pub mod daemon;
pub mod firewall;

// What becomes of a domain that shuts down, of one that goes to a file or was left by a process that was killed, and what it says meanwhile.
pub mod abandoned;
pub mod console;
pub mod saved;
pub mod watch;

// What it stands on: two traits, and who implements them.
pub mod cpu;
pub mod drbd;
pub mod host;
pub mod replication;
pub mod toolstack;
pub mod xen;

// The right to write a volume on this host, and the programs that libxl runs for it.
pub mod admission;
pub mod backing;
pub mod dm;
pub mod holders;
pub mod hotplug;
pub mod layer;
pub mod role;

mod nearest;
mod wait;
