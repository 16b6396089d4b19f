//! The daemon's process as the system sees it: memory, descriptors, children, time, log.

use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use procfs::process::Process;
use tempfile::TempDir;

use crate::client::SOON;
use crate::stand_in::Setting;

/// A daemon that ends with the test.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
    pub(crate) address: SocketAddr,
    log: PathBuf,
    dir: Rc<TempDir>,
}

/// What it uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Use {
    pub(crate) resident_kib: u64,
    pub(crate) descriptors: usize,
}

impl Daemon {
    pub(crate) fn start(setting: &Setting) -> anyhow::Result<Daemon> {
        Daemon::start_with(setting, |_| {})
    }

    /// Starts it, with whatever else `adjust` gives to its command.
    pub(crate) fn start_with(setting: &Setting, adjust: impl FnOnce(&mut Command)) -> anyhow::Result<Daemon> {
        Daemon::start_in(setting, Rc::new(tempfile::tempdir()?), adjust)
    }

    /// Starts another where this one was, with its directories.
    pub(crate) fn successor(&self, setting: &Setting) -> anyhow::Result<Daemon> {
        Daemon::start_in(setting, Rc::clone(&self.dir), |_| {})
    }

    fn start_in(setting: &Setting, dir: Rc<TempDir>, adjust: impl FnOnce(&mut Command)) -> anyhow::Result<Daemon> {
        let log = dir.path().join("log");
        let mut command = Command::new(std::env::current_exe()?);
        command.args(setting.words(dir.path())).stdin(Stdio::null()).stderr(File::create(&log)?);
        adjust(&mut command);
        let child = command.spawn()?;
        let mut daemon = Daemon { child, address: ([127, 0, 0, 1], 0).into(), log, dir };
        daemon.address = wait("the daemon listens", || daemon.listens_at())?;
        Ok(daemon)
    }

    /// Where the records are.
    pub(crate) fn run_dir(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    fn listens_at(&self) -> anyhow::Result<Option<SocketAddr>> {
        let log = self.log()?;
        let line = log.lines().find(|line| line.contains("listening"));
        Ok(line.and_then(|line| line.rsplit_once("address=")?.1.trim().parse().ok()))
    }

    pub(crate) fn log(&self) -> anyhow::Result<String> {
        Ok(std::fs::read_to_string(&self.log)?)
    }

    /// The lines of the log that refuse something, and how many refusals they stand for.
    pub(crate) fn refusals(&self, why: &str) -> anyhow::Result<(usize, usize)> {
        let log = self.log()?;
        let lines: Vec<&str> = log.lines().filter(|line| line.contains(&format!("refused: {why}"))).collect();
        let more = |line: &&str| line.split("more=").nth(1)?.split(' ').next()?.parse::<usize>().ok();
        Ok((lines.len(), lines.iter().map(|line| more(line).unwrap_or(1)).sum()))
    }

    /// Waits until so many refusals of that kind are in the log, one by one or summed up.
    pub(crate) fn await_refusals(&self, why: &str, count: usize) -> anyhow::Result<()> {
        wait("the refusals are logged", || Ok((self.refusals(why)?.1 >= count).then_some(())))
            .with_context(|| format!("{:?} of {count} {why}", self.refusals(why)))
    }

    fn process(&self) -> anyhow::Result<Process> {
        Ok(Process::new(self.pid())?)
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a process's number")
    }

    pub(crate) fn uses(&self) -> anyhow::Result<Use> {
        let process = self.process()?;
        let resident_kib = process.status()?.vmrss.context("A process has memory")?;
        Ok(Use { resident_kib, descriptors: process.fd_count()? })
    }

    /// Its workers.
    pub(crate) fn workers(&self) -> anyhow::Result<Vec<i32>> {
        let tasks = self.process()?.tasks()?.flatten();
        let children = tasks.flat_map(|task| task.children().unwrap_or_default());
        Ok(children.filter_map(|pid| i32::try_from(pid).ok()).collect())
    }

    /// The processor time that it has used.
    pub(crate) fn busy(&self) -> anyhow::Result<Duration> {
        let stat = self.process()?.stat()?;
        let ticks = stat.utime + stat.stime;
        Ok(Duration::from_millis(ticks * 1000 / procfs::ticks_per_second()))
    }

    /// Waits until it has no workers and no more descriptors than then.
    pub(crate) fn await_quiet(&self, before: Use) -> anyhow::Result<()> {
        wait("the daemon is as it was", || {
            Ok((self.workers()?.is_empty() && self.uses()?.descriptors <= before.descriptors).then_some(()))
        })
        .with_context(|| format!("{before:?}, now {:?}", self.uses()))
    }

    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        Ok(kill(Pid::from_raw(self.pid()), signal)?)
    }

    /// Waits for its end.
    pub(crate) fn ended(&mut self) -> anyhow::Result<ExitStatus> {
        wait("the daemon has ended", || Ok(self.child.try_wait()?))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Looks until there is something.
pub(crate) fn wait<T>(what: &str, mut look: impl FnMut() -> anyhow::Result<Option<T>>) -> anyhow::Result<T> {
    let deadline = Instant::now() + SOON;
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        ensure!(Instant::now() < deadline, "not within {} s: {what}", SOON.as_secs());
        std::thread::sleep(Duration::from_millis(20));
    }
}
