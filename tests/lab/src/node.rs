//! One node: commands and files in it, its power switch.

mod boot;
mod spawned;

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::command::last_lines;
use crate::layout::Layout;
use crate::push;
use crate::qemu::{self, Start};
use crate::qmp::{self, Link};
use crate::ssh;
use crate::state::State;

pub(crate) use boot::Booting;
pub use spawned::Spawned;

/// How long a command may run unless its caller says otherwise.
pub const COMMAND_LIMIT: Duration = Duration::from_secs(180);

/// How long a node may take from QEMU's start to its last word. It is a quarter of a minute on an idle machine.
pub const BOOT_LIMIT: Duration = Duration::from_secs(240);

const POLL: Duration = Duration::from_millis(5);
/// A node of a running lab.
#[derive(Debug, Clone)]
pub struct Node {
    layout: Layout,
    nr: u8,
}

/// How a command on a node ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Exit code; 255 also stands for a connection that broke, 128 and more for a command that a signal ended.
    pub status: i32,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

impl Output {
    /// Whether the command ended with 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.status == 0
    }
}

impl Node {
    pub(crate) fn new(layout: &Layout, nr: u8) -> Self {
        Self { layout: layout.clone(), nr }
    }

    /// 1 or 2.
    #[must_use]
    pub fn nr(&self) -> u8 {
        self.nr
    }

    /// Its host name, `node1` or `node2`; both nodes resolve it to the relocation address.
    #[must_use]
    pub fn name(&self) -> String {
        format!("node{}", self.nr)
    }

    /// Its address on the relocation link.
    #[must_use]
    pub fn relocation_address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 99, 0, self.nr)
    }

    /// Its address on the replication link.
    #[must_use]
    pub fn replication_address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 98, 0, self.nr)
    }

    /// What it has printed on its serial line since `up`.
    #[must_use]
    pub fn console(&self) -> PathBuf {
        self.layout.console(self.nr)
    }

    /// Runs a command line of the node's shell to its end, at most [`COMMAND_LIMIT`].
    ///
    /// # Errors
    /// The limit passed, or ssh cannot be started. A command that fails is no error here.
    pub fn run(&self, command: &str) -> anyhow::Result<Output> {
        self.run_for(command, COMMAND_LIMIT)
    }

    /// As [`run`](Self::run), with a limit of the caller's. When it passes, the command is left running in the node.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_for(&self, command: &str, limit: Duration) -> anyhow::Result<Output> {
        self.run_with_input(command, None, limit)
    }

    /// Runs a command that must succeed and returns what it printed.
    ///
    /// # Errors
    /// The command failed (with its output), or as [`run`](Self::run).
    pub fn ok(&self, command: &str) -> anyhow::Result<String> {
        self.ok_for(command, COMMAND_LIMIT)
    }

    /// As [`ok`](Self::ok), with a limit of the caller's.
    ///
    /// # Errors
    /// As [`ok`](Self::ok).
    pub fn ok_for(&self, command: &str, limit: Duration) -> anyhow::Result<String> {
        let output = self.run_for(command, limit)?;
        self.ensure_success(command, &output)?;
        Ok(output.stdout)
    }

    /// Waits until a condition of the node's shell (bash) holds, and says what it waited for if it never does.
    ///
    /// The node looks by itself: a question from here costs it two processes, and under emulation each of them a good part of what
    /// is being waited for. A condition made of the shell's own words (`[ -e … ]`, `kill -0 …`) costs next to nothing.
    ///
    /// # Errors
    /// The limit passed, or the node cannot be reached.
    pub fn until(&self, what: &str, condition: &str, limit: Duration) -> anyhow::Result<()> {
        // Nobody ever writes into the pipe: to read from it in vain is to wait without starting a program.
        let script = format!(
            "exec 9<> <(:)\nend=$((SECONDS + {}))\nuntil {{ {condition}\n}}; do\n[ $SECONDS -lt $end ] || exit 1\nread -rt 0.2 -u 9 || :\ndone",
            limit.as_secs()
        );
        let waited = self.run_for(&script, limit + COMMAND_LIMIT)?;
        ensure!(waited.success(), "{}: waited {} s in vain: {what}\n{}", self.name(), limit.as_secs(), waited.stderr);
        Ok(())
    }

    /// Starts a command that goes on while the caller does something else.
    ///
    /// # Errors
    /// ssh cannot be started, or the node cannot be reached.
    pub fn spawn(&self, command: &str) -> anyhow::Result<Spawned> {
        // The shell tells its process id, which stays that of what it becomes.
        let line = format!("echo $$; exec sh -c {}", quoted(command));
        let mut child = ssh::command(&self.layout, self.nr, &line)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("ssh cannot be started")?;
        let mut stdout = child.stdout.take().context("The child has no stdout")?;
        let pid = read_line(&mut stdout)
            .ok()
            .and_then(|line| line.trim().parse().ok())
            .with_context(|| format!("{} does not start {command}", self.name()))?;
        let stderr = child.stderr.take().context("The child has no stderr")?;
        Ok(Spawned {
            node: self.clone(),
            command: command.to_owned(),
            pid,
            child,
            stdout: gather(stdout),
            stderr: gather(stderr),
        })
    }

    /// Writes a file in the node; a reader there sees the old one or the new one, never a part.
    ///
    /// # Errors
    /// The node cannot be reached, or there is no such directory in it.
    pub fn write_file(&self, path: &str, mode: u32, contents: &[u8]) -> anyhow::Result<()> {
        let (path, new) = (quoted(path), quoted(&format!("{path}.new")));
        let command = format!("cat >{new} && chmod {mode:o} {new} && mv {new} {path}");
        let output = self.run_with_input(&command, Some(contents), COMMAND_LIMIT)?;
        self.ensure_success(&command, &output)
    }

    /// Copies a file of the host into the node.
    ///
    /// # Errors
    /// As [`write_file`](Self::write_file), or the file cannot be read.
    pub fn copy_to(&self, local: &Path, path: &str, mode: u32) -> anyhow::Result<()> {
        let contents = fs::read(local).with_context(|| format!("{} cannot be read", local.display()))?;
        self.write_file(path, mode, &contents)
    }

    /// Reads a file of the node.
    ///
    /// # Errors
    /// The node cannot be reached, or there is no such file.
    pub fn read_file(&self, path: &str) -> anyhow::Result<Vec<u8>> {
        let output = ssh::command(&self.layout, self.nr, &format!("cat {}", quoted(path)))
            .output()
            .context("ssh cannot be started")?;
        ensure!(
            output.status.success(),
            "{} of {} cannot be read: {}",
            path,
            self.name(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(output.stdout)
    }

    /// Whether it is switched on.
    #[must_use]
    pub fn is_on(&self) -> bool {
        qemu::running(&self.layout, self.nr).is_some()
    }

    /// Takes the power away: everything in memory is lost, the disk keeps what it was given. No error when it is off already.
    ///
    /// # Errors
    /// QEMU cannot be killed.
    pub fn power_off(&self) -> anyhow::Result<()> {
        if let Some(process) = qemu::running(&self.layout, self.nr) {
            process.kill()?;
        }
        ssh::disconnect(&self.layout, self.nr);
        Ok(())
    }

    /// Switches it on and waits until it answers; cut links are still cut, and our programs are there if they were pushed. No
    /// error when it is on already.
    ///
    /// # Errors
    /// The lab is down, or the node does not come up within [`BOOT_LIMIT`].
    pub fn power_on(&self) -> anyhow::Result<()> {
        self.power_on_with(&[])
    }

    /// The same, but until it is switched off its processor is another one: QEMU's words, such as `-aes` or `level=7`.
    ///
    /// # Errors
    /// As [`power_on`](Self::power_on).
    pub fn power_on_with(&self, processor: &[&str]) -> anyhow::Result<()> {
        if self.is_on() {
            return Ok(());
        }
        let state = State::load(&self.layout)?.context("The lab is down: `cargo xtask lab up`")?;
        self.start(&state, false, processor)?.wait()?;
        push::install_again(self, &self.layout.programs())
    }

    /// Starts QEMU; the node comes up while the caller does something else.
    pub(crate) fn start(&self, state: &State, fresh: bool, processor: &[&str]) -> anyhow::Result<Booting<'_>> {
        if fresh {
            qemu::clear_console(&self.layout, self.nr)?;
        }
        let printed_before = fs::metadata(self.console()).map_or(0, |console| console.len());
        let ssh_port = state.ssh_ports[usize::from(self.nr - 1)];
        qemu::start(&self.layout, Start { node: self.nr, ssh_port, disk_cache: state.disk_cache, fresh, processor })?;
        Ok(Booting { node: self, printed_before, deadline: Instant::now() + BOOT_LIMIT })
    }

    pub(crate) fn set_link(&self, link: Link, up: bool) -> anyhow::Result<()> {
        qmp::set_link(&self.layout.qmp_socket(self.nr), link, up)
    }

    /// Writes what passes one of its nics, from now on, into a file of packets (pcap), until the capture ends.
    ///
    /// # Errors
    /// QEMU refuses, as it does while another capture of this node goes on.
    pub fn capture(&self, link: Link) -> anyhow::Result<Capture> {
        let file = self.layout.dir().join(format!("node{}.pcap", self.nr));
        qmp::start_capture(&self.layout.qmp_socket(self.nr), link, &file)?;
        Ok(Capture { socket: self.layout.qmp_socket(self.nr), file })
    }

    /// A port of this machine's loopback that leads to a port of the node. There the client is 10.0.2.2. It stays until the node is
    /// started anew.
    ///
    /// # Errors
    /// QEMU refuses.
    pub fn forward(&self, port: u16) -> anyhow::Result<SocketAddr> {
        let free = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        qmp::forward(&self.layout.qmp_socket(self.nr), free.port(), port)?;
        Ok(free)
    }

    pub(crate) fn run_with_input(
        &self,
        command: &str,
        input: Option<&[u8]>,
        limit: Duration,
    ) -> anyhow::Result<Output> {
        let mut ssh = ssh::command(&self.layout, self.nr, command);
        if input.is_some() {
            ssh.stdin(Stdio::piped());
        }
        let mut child = ssh.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("ssh cannot be started")?;
        let stdout = gather(child.stdout.take().context("The child has no stdout")?);
        let stderr = gather(child.stderr.take().context("The child has no stderr")?);
        let feeder = child.stdin.take().zip(input.map(<[u8]>::to_vec)).map(|(mut stdin, bytes)| {
            // A command that ends early tells so by its status.
            thread::spawn(move || stdin.write_all(&bytes).ok())
        });
        let status = wait(&mut child, limit)
            .with_context(|| format!("`{command}` on {} has not ended within {} s", self.name(), limit.as_secs()))?;
        if let Some(feeder) = feeder {
            feeder.join().ok();
        }
        Ok(output(status, stdout, stderr))
    }

    fn ensure_success(&self, command: &str, output: &Output) -> anyhow::Result<()> {
        let said = last_lines(&[output.stdout.as_str(), output.stderr.as_str()].concat());
        ensure!(output.success(), "`{command}` on {} ended with {}:\n{said}", self.name(), output.status);
        Ok(())
    }
}

/// A capture that goes on until it is ended, or dropped.
#[derive(Debug)]
pub struct Capture {
    socket: PathBuf,
    file: PathBuf,
}

impl Capture {
    /// Ends it; the bytes of the file, which is removed.
    ///
    /// # Errors
    /// QEMU does not answer, or the file cannot be read.
    pub fn end(self) -> anyhow::Result<Vec<u8>> {
        qmp::stop_capture(&self.socket)?;
        Ok(fs::read(&self.file)?)
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        // Ended already, unless a test failed.
        qmp::stop_capture(&self.socket).ok();
        fs::remove_file(&self.file).ok();
    }
}

/// A word of a shell's command line.
#[must_use]
pub fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + limit;
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        if Instant::now() >= deadline {
            child.kill().ok();
            child.wait().ok();
            return None;
        }
        thread::sleep(POLL);
    }
}

/// Reads a pipe to its end while the child runs: a full pipe would stop it.
fn gather(mut pipe: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).ok();
        bytes
    })
}

fn output(status: ExitStatus, stdout: JoinHandle<Vec<u8>>, stderr: JoinHandle<Vec<u8>>) -> Output {
    let text = |pipe: JoinHandle<Vec<u8>>| String::from_utf8_lossy(&pipe.join().unwrap_or_default()).into_owned();
    Output { status: status.code().unwrap_or(255), stdout: text(stdout), stderr: text(stderr) }
}

/// Reads up to the first newline and not a byte more.
fn read_line(pipe: &mut impl Read) -> anyhow::Result<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    while pipe.read(&mut byte)? == 1 && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    Ok(String::from_utf8(line)?)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_quoted_word_stays_one() {
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }

    #[test]
    fn the_wait_for_a_child_has_a_limit() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        assert!(wait(&mut child, Duration::from_millis(20)).is_none());
        assert!(child.try_wait().unwrap().is_some());
    }
}
