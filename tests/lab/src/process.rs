//! Processes of the lab that live longer than the program that started them, known by process id and start time: an id alone may
//! belong to somebody else by the time that it is used.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long a process may take to end after SIGTERM, and then after SIGKILL.
const END_LIMIT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(10);

/// A process, as it was when it was recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    pid: i32,
    /// In clock ticks since boot (proc(5), `starttime`).
    start: u64,
    boot: String,
}

impl Process {
    /// The process that has this id now.
    pub(crate) fn of(pid: u32) -> anyhow::Result<Self> {
        let pid = i32::try_from(pid)?;
        let (_, start) = stat(pid).with_context(|| format!("Process {pid} has ended"))?;
        Ok(Self { pid, start, boot: boot_id()? })
    }

    /// Reads a pid file; `None` when there is none or it is not whole.
    pub(crate) fn load(file: &Path) -> Option<Self> {
        let text = fs::read_to_string(file).ok()?;
        let mut words = text.split_whitespace();
        let pid = words.next()?.parse().ok()?;
        let start = words.next()?.parse().ok()?;
        Some(Self { pid, start, boot: words.next()?.to_owned() })
    }

    /// Writes a pid file.
    pub(crate) fn save(&self, file: &Path) -> anyhow::Result<()> {
        fs::write(file, format!("{} {} {}\n", self.pid, self.start, self.boot))
            .with_context(|| format!("{} cannot be written", file.display()))
    }

    /// Whether it still runs. One that waits for its parent to fetch its exit status does not.
    pub(crate) fn is_alive(&self) -> bool {
        boot_id().is_ok_and(|boot| boot == self.boot)
            && stat(self.pid).is_some_and(|(state, start)| start == self.start && !matches!(state, 'Z' | 'X'))
    }

    /// Ends it: asks first, then kills; returns when it is gone.
    pub(crate) fn end(&self) -> anyhow::Result<()> {
        if !self.signalled_away(Signal::SIGTERM) && !self.signalled_away(Signal::SIGKILL) {
            bail!("Process {} does not end", self.pid);
        }
        Ok(())
    }

    /// Kills it at once, as a loss of power would; returns when it is gone.
    pub(crate) fn kill(&self) -> anyhow::Result<()> {
        if !self.signalled_away(Signal::SIGKILL) {
            bail!("Process {} does not end", self.pid);
        }
        Ok(())
    }

    fn signalled_away(&self, signal: Signal) -> bool {
        let deadline = Instant::now() + END_LIMIT;
        if self.is_alive() {
            // It may end between the two lines; then there is nobody to get the signal.
            kill(Pid::from_raw(self.pid), signal).ok();
        }
        while self.is_alive() {
            if Instant::now() > deadline {
                return false;
            }
            thread::sleep(POLL);
        }
        true
    }
}

/// All processes one of whose arguments begins with `prefix`.
pub(crate) fn with_argument(prefix: &str) -> anyhow::Result<Vec<Process>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // A process that ends meanwhile has no arguments.
        let arguments = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if arguments.split(|byte| *byte == 0).any(|argument| argument.starts_with(prefix.as_bytes())) {
            found.extend(Process::of(pid));
        }
    }
    Ok(found)
}

/// State and start time (proc(5)). The name in between may hold anything, a parenthesis too.
fn stat(pid: i32) -> Option<(char, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

fn boot_id() -> anyhow::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_process_is_known_by_its_start_too() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let process = Process::of(child.id()).unwrap();
        assert!(process.is_alive());
        assert!(!Process { start: process.start + 1, ..process.clone() }.is_alive());
        assert!(!Process { boot: "another".to_owned(), ..process.clone() }.is_alive());
        process.kill().unwrap();
        child.wait().unwrap();
        assert!(!process.is_alive());
    }

    #[test]
    fn a_pid_file_says_what_was_saved() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x.pid");
        let process = Process::of(std::process::id()).unwrap();
        process.save(&file).unwrap();
        assert_eq!(Process::load(&file), Some(process));
        fs::write(&file, "17").unwrap();
        assert_eq!(Process::load(&file), None);
    }
}
