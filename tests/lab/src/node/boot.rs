//! A node on its way up, from QEMU's start to the first answer.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use super::{BOOT_LIMIT, Node};
use crate::command::last_lines;
use crate::qemu;
use crate::qmp::Link;
use crate::state::State;

const POLL: Duration = Duration::from_millis(100);

/// What the boot script prints at its end, before the ssh server starts.
const READY: &str = "is ready";

/// A node on its way up.
#[derive(Debug)]
pub(crate) struct Booting<'a> {
    pub(super) node: &'a Node,
    /// Bytes on the console from before this start.
    pub(super) printed_before: u64,
    pub(super) deadline: Instant,
}

impl Booting<'_> {
    /// Waits until the node answers.
    pub(crate) fn wait(self) -> anyhow::Result<()> {
        let node = self.node;
        self.restore_cuts()?;
        while !self.console_text().contains(READY) {
            self.ensure_hope()?;
            thread::sleep(POLL);
        }
        while !node.run("true")?.success() {
            self.ensure_hope()?;
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// A cable that was out before stays out.
    fn restore_cuts(&self) -> anyhow::Result<()> {
        let Some(state) = State::load(&self.node.layout)? else { return Ok(()) };
        for link in state.cut.iter().map(|name| name.parse::<Link>()) {
            let link = link?;
            while let Err(error) = self.node.set_link(link, false) {
                self.ensure_hope().context(error)?;
                thread::sleep(POLL);
            }
        }
        Ok(())
    }

    fn ensure_hope(&self) -> anyhow::Result<()> {
        let name = self.node.name();
        if !self.node.is_on() {
            let log = fs::read_to_string(qemu::qemu_log(&self.node.layout, self.node.nr)).unwrap_or_default();
            bail!("{name} went off while it booted:\n{}\n{}", last_lines(&log), last_lines(&self.console_text()));
        }
        ensure!(
            Instant::now() < self.deadline,
            "{name} is not up after {} s; the end of its console:\n{}",
            BOOT_LIMIT.as_secs(),
            last_lines(&self.console_text())
        );
        Ok(())
    }

    fn console_text(&self) -> String {
        let text = fs::read(self.node.console()).unwrap_or_default();
        let start = usize::try_from(self.printed_before).unwrap_or(usize::MAX).min(text.len());
        String::from_utf8_lossy(&text[start..]).into_owned()
    }
}
