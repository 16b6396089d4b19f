//! This host, as both ends of a migration see it.

use std::path::Path;

use crate::config::{Guests, Security};
use crate::fault::{Faults, Step};
use crate::preflight::Code;
use crate::protocol::{Finding, Severity};
use crate::replication::Replication;
use crate::toolstack::{Error, Toolstack};

/// Where records of open migrations are kept.
pub const RUN_DIR: &str = crate::admission::DIR;

/// The program's name and version, as it introduces itself to a peer.
pub const PROGRAM: &str = concat!("bascule ", env!("CARGO_PKG_VERSION"));

/// What a migration works with on this host.
#[derive(Clone, Copy)]
pub struct Host<'a> {
    /// The way to Xen.
    pub toolstack: &'a dyn Toolstack,
    /// The way to DRBD.
    pub replication: &'a dyn Replication,
    /// This node's name, for messages.
    pub node: &'a str,
    /// Where records of open migrations are kept; [`RUN_DIR`] but in tests.
    pub run_dir: &'a Path,
    /// Where journals are kept; [`crate::journal::DIR`] unless it is set otherwise.
    pub state_dir: &'a Path,
    /// Finished journals kept as history; [`crate::journal::KEPT`] unless it is set otherwise.
    pub history_max: usize,
    /// How connections are protected.
    pub security: &'a Security,
    /// What domains that come from elsewhere may have of this host.
    pub guests: &'a Guests,
    /// What fails on purpose; [`Faults::none`] but in rehearsals.
    pub faults: &'a Faults,
}

/// Who calls another host's daemon.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// This node's name, as it introduces itself.
    pub node: &'a str,
    /// Where its key and its peers' are.
    pub state_dir: &'a Path,
    /// How the connection is protected.
    pub security: &'a Security,
}

impl std::fmt::Debug for Host<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host")
            .field("node", &self.node)
            .field("run_dir", &self.run_dir)
            .field("state_dir", &self.state_dir)
            .finish_non_exhaustive()
    }
}

impl<'a> Host<'a> {
    /// As it calls another host's daemon.
    pub(crate) fn caller(&self) -> Caller<'a> {
        Caller { node: self.node, state_dir: self.state_dir, security: self.security }
    }

    /// A step of a migration has been reached; fails here if that is rehearsed.
    ///
    /// # Errors
    /// The rehearsed one.
    pub fn reach(&self, step: Step) -> Result<(), Error> {
        self.faults.reach(step, self.run_dir)
    }

    /// A finding on this node that stops a migration.
    pub fn error(&self, code: Code, found: impl Into<String>, remedy: impl Into<String>) -> Finding {
        self.finding(Severity::Error, code, found.into(), remedy.into())
    }

    /// A finding on this node that is worth knowing.
    pub fn warning(&self, code: Code, found: impl Into<String>, remedy: impl Into<String>) -> Finding {
        self.finding(Severity::Warning, code, found.into(), remedy.into())
    }

    fn finding(&self, severity: Severity, code: Code, found: String, remedy: String) -> Finding {
        Finding { code: code.name().into(), severity, node: self.node.into(), found, remedy }
    }
}

/// This node's name: its host name up to the first dot.
pub fn node_name() -> String {
    let name = nix::sys::utsname::uname().map(|u| u.nodename().to_string_lossy().into_owned());
    let name = name.unwrap_or_default();
    name.split('.').next().filter(|short| !short.is_empty()).unwrap_or("localhost").to_owned()
}
