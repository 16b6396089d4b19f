//! Ctrl-C: what runs in a node is told to end by its connection's end, and everything is put back before this program ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, ensure};
use nix::libc::{SIGINT, SIGTERM};
use signal_hook::flag;

/// Whether the user wants it to end.
#[derive(Debug, Clone)]
pub(super) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// From now on the signals that ask for an end do not end this program.
    pub(super) fn catch() -> anyhow::Result<Self> {
        let asked = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            flag::register(signal, Arc::clone(&asked)).context("Signals cannot be caught")?;
        }
        Ok(Self(asked))
    }

    /// An error if the user wants it to end.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        ensure!(!self.0.load(Ordering::Relaxed), "Interrupted");
        Ok(())
    }
}
