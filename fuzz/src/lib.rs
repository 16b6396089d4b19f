//! What strangers can send, or leave in a file, and what must hold whatever it is.
//!
//! A target is a file in `targets/`: one function of any bytes, which panics when something that must hold does not. libFuzzer looks for
//! such bytes (`cargo xtask fuzz`); what it kept on the way is in `corpus/TARGET/`, and `cargo test` feeds all of that, too.
//! A new target is such a file, its line in [`TARGETS`], and an example or two in its corpus. What is found becomes a test of the part
//! that it was found in.

mod targets;

use std::path::Path;

use targets::{configuration, domain, drbd_conf, frames, handshake, journal, machines, netlink, session, stream, xend};

/// The variable that tells the fuzzer its target.
pub const TARGET_VARIABLE: &str = "BASCULE_FUZZ";

/// Something that takes bytes from elsewhere.
#[derive(Debug)]
pub struct Target {
    /// Its name, and that of the directory of its corpus.
    pub name: &'static str,
    /// What is fed with the bytes.
    pub about: &'static str,
    /// Panics when something that must hold does not.
    pub run: fn(&[u8]),
}

/// Every target.
pub const TARGETS: &[Target] = &[
    Target { name: "configuration", about: "our own configuration, TOML", run: configuration::run },
    Target { name: "domain", about: "a domain's configuration from another host", run: domain::run },
    Target { name: "drbd-conf", about: "DRBD's configuration files", run: drbd_conf::run },
    Target { name: "frames", about: "frames of the relocation protocol", run: frames::run },
    Target { name: "handshake", about: "the server's end of TLS", run: handshake::run },
    Target { name: "journal", about: "a journal as a crash or a bad disk leaves it", run: journal::run },
    Target { name: "machines", about: "the machines of the handover, by any events and deaths", run: machines::run },
    Target { name: "netlink", about: "messages of DRBD's netlink family", run: netlink::run },
    Target { name: "session", about: "whole sessions of the destination, and what is left of them", run: session::run },
    Target { name: "stream", about: "the coded migration stream, and what becomes of libxc's", run: stream::run },
    Target { name: "xend", about: "xend's configuration, S-expressions", run: xend::run },
];

/// The target of that name.
#[must_use]
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

/// A directory in memory, where the kernel has one: nothing there waits for a disk.
fn memory_dir() -> std::io::Result<tempfile::TempDir> {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }
}
