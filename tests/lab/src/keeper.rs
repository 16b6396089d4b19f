//! The process that stays with a lab: it is the hub of the guests' network, and it ends the nodes when whoever starts the lab
//! is gone before it is up (Ctrl-C, a kill, a crash). So nothing has to be caught there.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{ChildStdin, Command, Stdio};
use std::thread;

use anyhow::{Context, ensure};

use crate::lab;
use crate::lan;
use crate::layout::{DIR_VARIABLE, Layout, NODES};
use crate::process::Process;

const NAME: &str = "keeper";
const LOG: &str = "keeper.log";

/// What the starter says when the lab is up.
const STAY: u8 = b'u';

/// The keeper's side: runs until `down` ends it. Its standard input is the starter's end of a pipe.
///
/// # Errors
/// The hub cannot run, or the nodes cannot be ended.
pub fn run() -> anyhow::Result<()> {
    let layout = Layout::new(None)?;
    let sockets = layout.sockets().to_owned();
    let hub = thread::spawn(move || lan::run(&sockets, &NODES));
    let mut word = [0];
    let said = std::io::stdin().read(&mut word)?;
    if said == 0 || word[0] != STAY {
        return lab::end_everything_but_the_keeper(&layout);
    }
    hub.join().map_err(|_| anyhow::anyhow!("The hub of the guests' network died"))?
}

/// The starter's end of the pipe. Dropped before [`stay`](Self::stay), it takes the lab down.
#[derive(Debug)]
pub(crate) struct Leash(ChildStdin);

impl Leash {
    /// From here on the lab outlives its starter.
    pub(crate) fn stay(mut self) -> anyhow::Result<()> {
        self.0.write_all(&[STAY]).context("The lab's keeper has died")
    }
}

/// Starts the keeper: `command` is the program, with its arguments, that calls [`run`].
pub(crate) fn start(layout: &Layout, command: &[String]) -> anyhow::Result<Leash> {
    ensure!(!command.is_empty(), "The lab was given no program that is its keeper");
    let log = File::create(layout.file(LOG))?;
    let mut child = Command::new("setsid")
        .args(command)
        .env(DIR_VARIABLE, layout.dir())
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("setsid cannot be started")?;
    Process::of(child.id())?.save(&layout.pid_file(NAME))?;
    Ok(Leash(child.stdin.take().context("The child has no stdin")?))
}

/// The keeper of a lab, if it lives.
pub(crate) fn running(layout: &Layout) -> Option<Process> {
    Process::load(&layout.pid_file(NAME)).filter(Process::is_alive)
}
