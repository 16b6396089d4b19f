//! The lab: two real Xen dom0s with real DRBD between them, under QEMU's software emulation.
//!
//! `Lab::up` builds what is missing and boots both nodes; `Lab::attach` finds a running lab. Everything is done by way
//! of [`Node`] and the links between the nodes. All of a lab lives in one directory, `target/lab` unless
//! `BASCULE_LAB_DIR` names another, so that two labs never meet; what is dear to build lies in a cache of the user's.
//!
//! The modules stand in the order in which `Lab::up` passes through them.

pub mod lab;
pub mod layout;

mod host;

mod apt;
mod cache;
pub mod guest;
mod image;
pub mod lan;
pub mod witness;

mod keeper;

mod process;
mod qemu;
mod qmp;
mod state;

pub mod logs;
pub mod node;
pub mod push;
mod ssh;

pub mod pair;

mod command;

pub use apt::unpacked;
pub use host::{ensure_packages, ensure_supported};
pub use keeper::run as run_keeper;
pub use lab::{Lab, Options, Status};
pub use lab_guest::memory::pages_in;
pub use lab_guest::wire::Order;
pub use layout::Layout;
pub use node::{Capture, Node, Output, Spawned};
pub use qemu::DiskCache;
pub use qmp::Link;
