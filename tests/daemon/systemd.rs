//! The daemon under systemd, as far as it goes without one: what it is told, the sockets that it gives, and the units.

use std::io::Write;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use libtest_mimic::Trial;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::client::{Known, SOON};
use crate::process::{Daemon, wait};
use crate::programs::BASCULE;
use crate::stand_in::Setting;
use crate::{Tested, test};

/// How exposed the service may be, in tenths of what `systemd-analyze security` prints; the unit says why it cannot be less.
const EXPOSURE_MAX: u32 = 60;
/// Where systemd has the version that can look at units which are not installed.
const OFFLINE_SINCE: u32 = 250;

/// Whom the daemon tells.
struct Told {
    socket: UnixDatagram,
    path: PathBuf,
    _dir: tempfile::TempDir,
}

impl Told {
    fn new() -> anyhow::Result<Told> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path)?;
        socket.set_read_timeout(Some(SOON))?;
        Ok(Told { socket, path, _dir: dir })
    }

    /// The next message.
    fn next(&self) -> anyhow::Result<String> {
        let mut buffer = [0; 4096];
        let len = self.socket.recv(&mut buffer).context("The daemon says nothing")?;
        Ok(String::from_utf8_lossy(&buffer[..len]).into_owned())
    }

    /// The next message that has this line; those before it.
    fn until(&self, line: &str) -> anyhow::Result<Vec<String>> {
        let (mut before, deadline) = (Vec::new(), Instant::now() + SOON);
        loop {
            ensure!(Instant::now() < deadline, "no {line:?} in {before:?}");
            let message = self.next()?;
            if message.lines().any(|said| said == line) {
                return Ok(before);
            }
            before.push(message);
        }
    }
}

pub(crate) fn hears_of_start_status_and_end() -> Tested {
    let told = Told::new()?;
    let mut daemon = Daemon::start_with(&Setting::default(), |command| {
        command.env("NOTIFY_SOCKET", &told.path).env("WATCHDOG_USEC", "800000");
    })?;
    let ready = told.next()?;
    ensure!(ready.contains("READY=1") && ready.contains("STATUS=0 sessions, 0 orphans"), "{ready}");
    let since = Instant::now();
    told.until("WATCHDOG=1")?;
    told.until("WATCHDOG=1")?;
    ensure!(since.elapsed() < SOON, "no sign of life");
    let mut session = Known::enter(daemon.address, Ipv4Addr::new(127, 0, 1, 1))?;
    told.until("STATUS=1 session, 0 orphans")?;
    session.ping()?;
    drop(session);
    told.until("STATUS=0 sessions, 0 orphans")?;
    daemon.signal(Signal::SIGTERM)?;
    told.until("STOPPING=1")?;
    ensure!(daemon.ended()?.success(), "{}", daemon.log()?);
    Ok(())
}

/// The program's own daemon, with a file as its log.
struct Served {
    child: Child,
    dir: tempfile::TempDir,
}

impl Served {
    fn start(adjust: impl FnOnce(&mut Command, &std::fs::File)) -> anyhow::Result<Served> {
        let dir = tempfile::tempdir()?;
        std::fs::write(dir.path().join("bascule.toml"), "[relocation]\nhosts-allow = ['127.0.0.1']\n")?;
        let log = std::fs::File::create(dir.path().join("log"))?;
        let mut command = Command::new(BASCULE);
        command.arg("--config").arg(dir.path().join("bascule.toml")).arg("--state-dir").arg(dir.path().join("state"));
        command.args(["serve", "--address", "127.0.0.1", "--port"]).arg(free_port()?.to_string()).stdin(Stdio::null());
        adjust(&mut command, &log);
        let child = command.stderr(log).spawn()?;
        Ok(Served { child, dir })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn log(&self) -> anyhow::Result<String> {
        Ok(std::fs::read_to_string(self.file("log"))?)
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        Ok(kill(Pid::from_raw(i32::try_from(self.child.id())?), signal)?)
    }

    fn await_log(&self, words: &str) -> Tested {
        wait(words, || Ok(self.log()?.contains(words).then_some(()))).with_context(|| self.log().unwrap_or_default())
    }

    fn end(mut self) -> Tested {
        self.signal(Signal::SIGTERM)?;
        let status = wait("the daemon has ended", || Ok(self.child.try_wait()?))?;
        ensure!(status.success(), "{status}: {}", self.log()?);
        Ok(())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

pub(crate) fn hears_of_a_reload() -> Tested {
    let told = Told::new()?;
    let served = Served::start(|command, _| {
        command.env("NOTIFY_SOCKET", &told.path);
    })?;
    told.until("READY=1")?;
    for (text, words) in
        [("[relocation]\nsessions = 3\n", "configuration taken over"), ("[nonsense]\n", "not taken over")]
    {
        std::fs::write(served.file("bascule.toml"), text)?;
        served.signal(Signal::SIGHUP)?;
        let reloading = told.next()?;
        ensure!(reloading.contains("RELOADING=1") && reloading.contains("MONOTONIC_USEC="), "{reloading}");
        told.until("READY=1")?;
        served.await_log(words)?;
    }
    served.end()
}

/// The program takes the socket that it is given and none of its own.
pub(crate) fn gives_the_socket() -> Tested {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let (address, fd) = (listener.local_addr()?, listener.as_raw_fd());
    fcntl(&listener, FcntlArg::F_SETFD(FdFlag::empty()))?;
    let served = Served::start(|command, _| {
        command.env("LISTEN_FDS", "1").env("LISTEN_FDS_FIRST_FD", fd.to_string());
    })?;
    fcntl(&listener, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    served.await_log("relocation.address and port are not used")?;
    served.await_log(&format!("address={address}"))?;
    let mut peer = TcpStream::connect(address)?;
    peer.write_all(b"GET / HTTP/1.1\r\n\r\n")?;
    served.await_log("it did not prove who it is")?;
    served.await_log("is not TLS")?;
    ensure!(served.log()?.matches("TLS").count() == 1, "more than a line of it: {}", served.log()?);
    served.end()
}

/// Where standard error leads to the journal, which its device and inode tell, a line begins with its priority and has no time.
pub(crate) fn the_journal_has_priorities() -> Tested {
    let served = Served::start(|command, log| {
        let meta = log.metadata().expect("its inode");
        command.env("JOURNAL_STREAM", format!("{}:{}", meta.dev(), meta.ino()));
    })?;
    served.await_log("listening")?;
    let log = served.log()?;
    ensure!(log.lines().all(|line| line.starts_with('<')) && log.contains("<6>"), "{log}");
    served.end()
}

/// What systemd says of the units, if it is there.
pub(crate) fn units() -> Vec<Trial> {
    let version = analyze_version();
    let missing = (version < Some(OFFLINE_SINCE)).then_some("needs systemd-analyze 250 or later");
    let tests = [test("units_are_right", are_right), test("the_service_is_closed", is_closed)];
    let kind = missing.unwrap_or_default();
    tests.map(|test| test.with_kind(kind).with_ignored_flag(missing.is_some())).into()
}

fn analyze_version() -> Option<u32> {
    let output = Command::new("systemd-analyze").arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.split_whitespace().nth(1)?.split(['.', '~']).next()?.parse().ok()
}

/// The units, with the program where it was built.
fn built_units() -> anyhow::Result<tempfile::TempDir> {
    let dir = tempfile::tempdir()?;
    for name in ["bascule.service", "bascule.socket"] {
        let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd").join(name);
        let text = std::fs::read_to_string(unit)?.replace("/usr/sbin/bascule", BASCULE);
        std::fs::write(dir.path().join(name), text)?;
    }
    Ok(dir)
}

fn are_right() -> Tested {
    let units = built_units()?;
    let files = ["bascule.service", "bascule.socket"].map(|name| units.path().join(name));
    let output = Command::new("systemd-analyze").args(["verify", "--man=no"]).args(files).output()?;
    ensure!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn is_closed() -> Tested {
    let units = built_units()?;
    let mut command = Command::new("systemd-analyze");
    command.args(["security", "--offline=yes"]).arg(format!("--threshold={EXPOSURE_MAX}"));
    let output = command.arg(units.path().join("bascule.service")).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    Ok(())
}

/// systemd waits for the daemon longer than the daemon for its sessions, and kills nothing but the daemon.
pub(crate) fn has_patience() -> Tested {
    let text = std::fs::read_to_string(built_units()?.path().join("bascule.service"))?;
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=').map(str::to_owned));
    let patience = value("TimeoutStopSec").context("TimeoutStopSec")?.parse().map(Duration::from_secs)?;
    ensure!(patience > bascule::daemon::WORKERS_WAIT, "{patience:?}");
    ensure!(value("KillMode").as_deref() == Some("process"), "{:?}", value("KillMode"));
    Ok(())
}
