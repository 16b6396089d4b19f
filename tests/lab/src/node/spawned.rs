//! A command on a node that goes on while its caller does something else.

use std::process::Child;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;

use super::{Node, Output, output, wait};

/// A command that runs on a node. Dropping it ends the connection, not the command.
#[derive(Debug)]
pub struct Spawned {
    pub(super) node: Node,
    pub(super) command: String,
    pub(super) pid: u32,
    pub(super) child: Child,
    pub(super) stdout: JoinHandle<Vec<u8>>,
    pub(super) stderr: JoinHandle<Vec<u8>>,
}

impl Spawned {
    /// Its process id in the node: that of the shell that runs the command line, and of the command where it is just one.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends a signal, by the name that kill(1) has for it.
    ///
    /// # Errors
    /// The command has ended, or the node cannot be reached.
    pub fn signal(&self, signal: &str) -> anyhow::Result<()> {
        self.node.ok(&format!("kill -{signal} {}", self.pid)).map(drop)
    }

    /// Whether it has not ended yet.
    ///
    /// # Errors
    /// The state of ssh's client cannot be read.
    pub fn is_running(&mut self) -> anyhow::Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// The limit passed; the command is left running in the node.
    pub fn wait(mut self, limit: Duration) -> anyhow::Result<Output> {
        let status = wait(&mut self.child, limit).with_context(|| {
            format!("`{}` on {} has not ended within {} s", self.command, self.node.name(), limit.as_secs())
        })?;
        Ok(output(status, self.stdout, self.stderr))
    }
}
