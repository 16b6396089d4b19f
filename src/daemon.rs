//! The relocation daemon: accepts connections, checks where they come from, and gives each to a worker process of its own.
//!
//! A worker is the same program, started anew with the connection as its standard input: a crash inside libxl ends one
//! migration and nothing else. The daemon itself holds no Xen handle. It also adopts orphans: a journal with work left and
//! nobody who does it gets a process that recovers it, at start and whenever one appears.

mod allow;
mod names;
mod orphans;
mod sweep;

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use uuid::Uuid;

pub(crate) use self::allow::is_full_name;
pub use self::allow::{Allow, Entry, Nets};
use self::names::Names;
use self::orphans::Orphans;
use self::sweep::Broom;
use crate::protocol::Failed;
use crate::stream::Cancel;
use crate::transport::Channel;

/// What the daemon is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// The addresses to listen on; with none, it serves no port and cares for orphans alone.
    pub listen: Vec<SocketAddr>,
    /// Where records of open migrations are kept.
    pub run_dir: PathBuf,
    /// Where the journals are whose orphans the daemon adopts.
    pub state_dir: PathBuf,
}

/// Whom the daemon lets in, which may change while it serves.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Who may connect. Nobody else is answered.
    pub allow: Allow,
    /// The most sessions at one time.
    pub sessions_max: usize,
}

/// How the daemon starts its processes, and whom it lets in.
pub struct Workers<'a> {
    /// One session, its connection on standard input.
    pub session: &'a dyn Fn() -> Command,
    /// The recovery of one migration.
    pub recovery: &'a dyn Fn(Uuid) -> Command,
    /// Whom it lets in now; asked at each connection.
    pub policy: &'a dyn Fn() -> Arc<Policy>,
}

impl std::fmt::Debug for Workers<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Workers")
    }
}

/// The most sessions at one time, unless the configuration says otherwise.
pub const SESSIONS_MAX: usize = 8;

/// Why the daemon cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address cannot be listened on.
    #[error("Address {address} cannot be listened on")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The listening sockets cannot be waited for.
    #[error("Connections cannot be waited for")]
    Wait(#[from] io::Error),
}

/// Serves until `stop` is asked for; then no connection is accepted, and the workers are told to end: before GO they give
/// up, after it they finish. Workers that still run after [`WORKERS_WAIT`] are left to themselves.
///
/// # Errors
/// [`Error::Listen`] before anything is served; [`Error::Wait`] when the system fails.
pub fn serve(config: &Config, workers: &Workers<'_>, stop: &Cancel) -> Result<(), Error> {
    let listeners = config.listen.iter().map(|address| listen(*address)).collect::<Result<Vec<_>, _>>()?;
    let mut sessions = Sessions { workers, names: Names::new(names::system), running: Vec::new() };
    let mut orphans = Orphans::new(config.state_dir.clone(), workers.recovery);
    let mut broom = Broom::new(config.run_dir.clone());
    while !stop.requested() {
        broom.sweep();
        orphans.look();
        for ready in wait(&listeners, sessions.interval_ms())? {
            sessions.accept(&listeners[ready]);
        }
        sessions.admit_named();
        sessions.reap();
    }
    drop(listeners);
    sessions.end();
    orphans.end();
    Ok(())
}

fn listen(address: SocketAddr) -> Result<TcpListener, Error> {
    let refused = |source| Error::Listen { address, source };
    let listener = TcpListener::bind(address).map_err(refused)?;
    listener.set_nonblocking(true).map_err(refused)?;
    tracing::info!(%address, "listening");
    Ok(listener)
}

/// The listeners that have a connection, or none after so long.
fn wait(listeners: &[TcpListener], interval_ms: u8) -> io::Result<Vec<usize>> {
    let mut fds: Vec<PollFd<'_>> =
        listeners.iter().map(|listener| PollFd::new(listener.as_fd(), PollFlags::POLLIN)).collect();
    match poll(&mut fds, PollTimeout::from(interval_ms)) {
        Ok(_) => {}
        Err(nix::errno::Errno::EINTR) => return Ok(Vec::new()),
        Err(errno) => return Err(errno.into()),
    }
    let ready = fds.iter().enumerate().filter(|(_, fd)| fd.any().unwrap_or(false));
    Ok(ready.map(|(index, _)| index).collect())
}

struct Sessions<'a> {
    workers: &'a Workers<'a>,
    names: Names,
    running: Vec<Session>,
}

struct Session {
    peer: SocketAddr,
    worker: Child,
}

impl Sessions<'_> {
    fn accept(&mut self, listener: &TcpListener) {
        match listener.accept() {
            Ok((stream, peer)) => self.consider(stream, peer),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => tracing::warn!(%error, "a connection could not be accepted"),
        }
    }

    fn consider(&mut self, stream: TcpStream, peer: SocketAddr) {
        let policy = (self.workers.policy)();
        match policy.allow.by_address(peer.ip()) {
            Some(true) => self.admit(stream, peer, policy.sessions_max),
            Some(false) => tracing::warn!(%peer, "refused: not an allowed host"),
            None => self.names.ask(stream, peer),
        }
    }

    /// Those whose name was looked up.
    fn admit_named(&mut self) {
        for (stream, peer, name) in self.names.settled() {
            let policy = (self.workers.policy)();
            match name {
                Ok(name) if policy.allow.by_name(&name) => self.admit(stream, peer, policy.sessions_max),
                Ok(name) => tracing::warn!(%peer, name, "refused: not an allowed host"),
                Err(why) => tracing::warn!(%peer, why, "refused: not an allowed host"),
            }
        }
    }

    fn admit(&mut self, stream: TcpStream, peer: SocketAddr, sessions_max: usize) {
        match self.running.len() < sessions_max {
            true => self.start(stream, peer),
            false => {
                tracing::warn!(%peer, sessions = self.running.len(), "refused: too many sessions");
                say_busy(stream);
            }
        }
    }

    fn interval_ms(&self) -> u8 {
        if self.names.is_idle() { WAIT_INTERVAL_MS } else { LOOKUP_INTERVAL_MS }
    }

    fn start(&mut self, stream: TcpStream, peer: SocketAddr) {
        match (self.workers.session)().stdin(Stdio::from(OwnedFd::from(stream))).spawn() {
            Ok(worker) => {
                tracing::info!(%peer, worker = worker.id(), "session");
                self.running.push(Session { peer, worker });
            }
            Err(error) => tracing::error!(%peer, %error, "no worker could be started"),
        }
    }

    fn reap(&mut self) {
        self.running.retain_mut(|session| match session.worker.try_wait() {
            Ok(None) => true,
            Ok(Some(status)) => {
                tracing::info!(peer = %session.peer, worker = session.worker.id(), %status, "session ended");
                false
            }
            Err(error) => {
                tracing::error!(worker = session.worker.id(), %error, "a worker cannot be waited for");
                false
            }
        });
    }

    fn end(mut self) {
        for session in &self.running {
            if let Ok(pid) = i32::try_from(session.worker.id()) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
            }
        }
        let deadline = Instant::now() + WORKERS_WAIT;
        while !self.running.is_empty() && Instant::now() < deadline {
            std::thread::sleep(REAP_INTERVAL);
            self.reap();
        }
        for session in &self.running {
            tracing::warn!(worker = session.worker.id(), peer = %session.peer, "left to itself: its session goes on");
        }
    }
}

fn say_busy(stream: TcpStream) {
    let busy = Failed { step: "accepting the connection".into(), reason: "it has as many sessions as it may".into() };
    let sent = Channel::adopt(stream).and_then(|channel| channel.send(busy, BUSY_WAIT));
    if let Err(error) = sent {
        tracing::debug!(%error, "the peer could not be told");
    }
}

/// Between two looks at the stop request and at ended workers.
const WAIT_INTERVAL_MS: u8 = 200;
/// The same while names are looked up.
const LOOKUP_INTERVAL_MS: u8 = 20;
/// The same while the daemon ends.
const REAP_INTERVAL: Duration = Duration::from_millis(50);
/// How long the daemon waits for its workers when it is stopped.
pub const WORKERS_WAIT: Duration = Duration::from_secs(150);
/// How long telling a peer that there is no room may take.
const BUSY_WAIT: Duration = Duration::from_secs(1);
