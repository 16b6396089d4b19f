//! The real program's worker before its peer is known, and `bascule serve --check`.

use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use procfs::process::{FDTarget, Process};

use crate::Tested;
use crate::process::wait;

pub(crate) const BASCULE: &str = env!("CARGO_BIN_EXE_bascule");

/// How long a worker is watched that nobody admits.
const WATCHED: Duration = Duration::from_secs(3);

/// Where there is no Xen, a worker that wanted it would have ended; where there is, it would hold it.
pub(crate) fn a_worker_has_no_xen_before_its_peer_is_known() -> Tested {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let _peer = TcpStream::connect(listener.local_addr()?)?;
    let (connection, _) = listener.accept()?;
    let (_daemon, theirs) = UnixStream::pair()?;
    let mut worker = Ended(session(connection.into(), theirs.into()).spawn()?);
    let process = Process::new(i32::try_from(worker.0.id())?)?;
    wait("the worker has begun", || Ok((process.exe()?.ends_with("bascule")).then_some(())))?;
    let since = Instant::now();
    while since.elapsed() < WATCHED {
        ensure!(worker.0.try_wait()?.is_none(), "the worker has ended before its peer was known");
        let xen: Vec<FDTarget> = process.fd()?.flatten().map(|fd| fd.target).filter(is_of_xen).collect();
        ensure!(xen.is_empty(), "{xen:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    let limits = process.limits()?;
    ensure!(format!("{:?}", limits.max_core_file_size.soft_limit) == "Value(0)", "{:?}", limits.max_core_file_size);
    // Its only sockets are the connection and the one to its daemon: none to xenstore.
    let sockets = process.fd()?.flatten().filter(|fd| matches!(fd.target, FDTarget::Socket(_)));
    let inodes: std::collections::HashSet<String> = sockets.map(|fd| format!("{:?}", fd.target)).collect();
    ensure!(inodes.len() <= 2, "{inodes:?}");
    Ok(())
}

fn is_of_xen(target: &FDTarget) -> bool {
    let places = ["/dev/xen", "/proc/xen", "/run/xen", "/var/run/xen"];
    matches!(target, FDTarget::Path(path) if places.iter().any(|place| path.starts_with(place)))
}

fn session(connection: OwnedFd, daemon: OwnedFd) -> Command {
    let mut command = Command::new(BASCULE);
    command.arg("session").stdin(Stdio::from(connection)).stdout(Stdio::from(daemon)).stderr(Stdio::null());
    command
}

/// A process that ends with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn a_session_by_hand_is_refused() -> Tested {
    let output = Command::new(BASCULE).arg("session").stdin(Stdio::null()).output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(1) && stderr.contains("bascule serve"), "{output:?}");
    Ok(())
}

/// It finds that the port is taken, and by whom; what else it finds is this machine's affair, but each problem has a remedy.
pub(crate) fn serve_check_says_what_is_missing() -> Tested {
    let dir = tempfile::tempdir()?;
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let config = dir.path().join("bascule.toml");
    let port = taken.local_addr()?.port();
    let text = format!("[relocation]\naddress = ['127.0.0.1']\nport = {port}\nhosts-allow = ['127.0.0.1']\n");
    std::fs::write(&config, text)?;
    let state = dir.path().join("state");
    let check = |options: &[&str]| -> anyhow::Result<Output> {
        let mut command = Command::new(BASCULE);
        command.arg("--config").arg(&config).arg("--state-dir").arg(&state).args(["serve", "--check"]);
        Ok(command.args(options).output()?)
    };
    let output = check(&["--json"])?;
    let looked: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).context("It prints JSON")?;
    let problems: Vec<_> = looked.iter().filter(|one| one["ok"] == false).collect();
    ensure!(output.status.code() == Some(1) && !problems.is_empty(), "{looked:?}");
    ensure!(problems.iter().all(|one| one["remedy"].as_str().is_some_and(|remedy| !remedy.is_empty())), "{problems:?}");
    let address =
        looked.iter().find(|one| one["what"] == format!("address 127.0.0.1:{port}")).context("the address")?;
    ensure!(
        address["found"].as_str().is_some_and(|found| found.contains(&std::process::id().to_string())),
        "{address}"
    );
    drop(taken);
    let text = String::from_utf8(check(&[])?.stdout)?;
    ensure!(text.contains(&format!("ok       address 127.0.0.1:{port}: it is free\n")), "{text}");
    ensure!(text.contains("problem  ") == text.contains("-> "), "{text}");
    ensure!(!state.exists(), "something was changed");
    Ok(())
}
