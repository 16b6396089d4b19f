//! What the hotplug programs do that libxl runs for a domain's disks and nics ([`block`], [`vif`]).
//!
//! The calling convention (tools/libs/light/libxl_linux.c): the command as first argument, `XENBUS_PATH` in the environment,
//! which names the backend's directory in xenstore; results are written there. libxl waits 40 s and then kills the program; it
//! shows the node `hotplug-error` to its user when the program has failed. The programs run in the blackout of a
//! migration: what they cost is downtime.

pub mod block;
mod link;
pub mod vif;

use std::time::Duration;

use crate::ids::DomId;
use crate::xen::xenstore::{self, Xenstore};

/// How long a whole call may take: libxl kills the program after 40 s (LIBXL_HOTPLUG_TIMEOUT), and then nobody says why.
const CALL_TIME_MAX: Duration = Duration::from_secs(36);

/// What the hotplug programs need of xenstore; tests have one of their own.
pub trait Nodes {
    /// The value of a node, or `None` when there is none.
    ///
    /// # Errors
    /// What the daemon says.
    fn read(&self, path: &str) -> Result<Option<String>, xenstore::Error>;

    /// Sets the value of a node.
    ///
    /// # Errors
    /// What the daemon says.
    fn write(&self, path: &str, value: &str) -> Result<(), xenstore::Error>;

    /// Removes a node.
    ///
    /// # Errors
    /// What the daemon says.
    fn rm(&self, path: &str) -> Result<(), xenstore::Error>;

    /// The names of a node's children.
    ///
    /// # Errors
    /// What the daemon says.
    fn directory(&self, path: &str) -> Result<Vec<String>, xenstore::Error>;
}

impl Nodes for Xenstore {
    fn read(&self, path: &str) -> Result<Option<String>, xenstore::Error> {
        self.read(path)
    }

    fn write(&self, path: &str, value: &str) -> Result<(), xenstore::Error> {
        self.write(path, value)
    }

    fn rm(&self, path: &str) -> Result<(), xenstore::Error> {
        self.rm(path)
    }

    fn directory(&self, path: &str) -> Result<Vec<String>, xenstore::Error> {
        self.directory(path)
    }
}

/// A backend's directory in xenstore.
#[derive(Clone, Copy)]
pub struct Backend<'a> {
    nodes: &'a dyn Nodes,
    path: &'a str,
    /// The domain that it serves.
    pub domid: DomId,
    /// The device's number in that domain.
    pub devid: u32,
}

impl std::fmt::Debug for Backend<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backend").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Why a call is none of libxl's.
#[derive(Debug, thiserror::Error)]
#[error("XENBUS_PATH {path:?} is not backend/KIND/DOMID/DEVID")]
pub struct NotABackend {
    /// What was given.
    path: String,
}

impl<'a> Backend<'a> {
    /// The backend that `XENBUS_PATH` names; its last two parts are the domain and the device.
    ///
    /// # Errors
    /// [`NotABackend`].
    pub fn new(nodes: &'a dyn Nodes, path: &'a str) -> Result<Self, NotABackend> {
        let wrong = || NotABackend { path: path.to_owned() };
        let mut parts = path.rsplit('/').map(str::parse::<u32>);
        match (parts.next(), parts.next()) {
            (Some(Ok(devid)), Some(Ok(domid))) => Ok(Self { nodes, path, domid: DomId(domid), devid }),
            _ => Err(wrong()),
        }
    }

    /// One of its nodes; an empty one counts as none.
    fn read(&self, node: &str) -> Result<Option<String>, xenstore::Error> {
        let value = self.nodes.read(&format!("{}/{node}", self.path))?;
        Ok(value.filter(|value| !value.is_empty()))
    }

    fn write(&self, node: &str, value: &str) -> Result<(), xenstore::Error> {
        self.nodes.write(&format!("{}/{node}", self.path), value)
    }

    fn rm(&self, node: &str) -> Result<(), xenstore::Error> {
        self.nodes.rm(&format!("{}/{node}", self.path))
    }

    /// Tells libxl, and whoever looks, why the call failed.
    ///
    /// # Errors
    /// What the daemon says.
    pub fn report(&self, message: &str) -> Result<(), xenstore::Error> {
        self.write("hotplug-error", message)?;
        self.write("hotplug-status", "error")
    }
}

/// The name of a domain, or `None` when it is gone.
fn domain_name(nodes: &dyn Nodes, domid: DomId) -> Result<Option<String>, xenstore::Error> {
    nodes.read(&format!("/local/domain/{domid}/name"))
}

/// An error and all its causes, as one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |line, cause| format!("{line}: {cause}"))
}

#[cfg(test)]
mod tests;
