//! The relocation daemon: accepts connections, checks where they come from, and gives each to a worker process of its own.
//!
//! A worker is the same program, started anew with the connection as its standard input: a crash inside libxl ends one
//! migration and nothing else. The daemon itself holds no Xen handle, and its worker none until its peer is known ([`Unauthenticated`]).
//! Whoever has not proved who it is is told nothing, has a few places ([`Limits`]) for a short time, and little of the log; it has a process
//! of ours only when it has said something.
//! The daemon also adopts orphans: a journal with work left and nobody who does it gets a process that recovers it, at start and whenever
//! one appears; so does what a killed process has left of a domain that it was saving or making ([`crate::abandoned`]). And it sees to it that each domain that we have started, or that came here, has a process that watches it ([`crate::watch`]).

mod allow;
pub mod check;
mod door;
mod limits;
mod listen;
mod names;
mod orphans;
mod refusals;
mod sessions;
mod supervisor;
mod sweep;
mod watchers;
mod worker;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use uuid::Uuid;

pub(crate) use self::allow::is_full_name;
pub use self::allow::{Allow, Entry, Nets};
pub use self::limits::{HALF_OPEN_MAX, HALF_OPEN_OF_ADDRESS_MAX, Limits, SESSIONS_MAX, SESSIONS_OF_ADDRESS_MAX};
pub use self::listen::Listeners;
use self::orphans::Orphans;
use self::refusals::Refusals;
use self::sessions::Sessions;
use self::supervisor::Supervisor;
pub use self::supervisor::reload;
use self::sweep::Broom;
use self::watchers::Watchers;
pub use self::worker::{NotAdmitted, Unauthenticated};
use crate::ids::DomId;
use crate::stream::Cancel;

/// What the daemon is told.
#[derive(Clone, Debug)]
pub struct Config {
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
    /// How many may.
    pub limits: Limits,
}

/// How the daemon starts its processes, and whom it lets in.
pub struct Workers<'a> {
    /// One session; the connection becomes its standard input, and a way to the daemon its standard output.
    pub session: &'a dyn Fn() -> Command,
    /// The recovery of one migration, or of what a killed process has left of a domain.
    pub recovery: &'a dyn Fn(Uuid) -> Command,
    /// The watch over one domain. It is left alone when the daemon ends.
    pub watcher: &'a dyn Fn(DomId) -> Command,
    /// Whom it lets in now; asked at each connection.
    pub policy: &'a dyn Fn() -> Arc<Policy>,
}

impl std::fmt::Debug for Workers<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Workers")
    }
}

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
    /// A socket that systemd gave is none to listen on.
    #[error("A socket from systemd cannot be listened on; see: systemctl cat bascule.socket")]
    Given(#[source] io::Error),
    /// The listening sockets cannot be waited for.
    #[error("Connections cannot be waited for")]
    Wait(#[from] io::Error),
}

/// Between two looks at the stop request and at ended workers.
const WAIT_INTERVAL_MS: u8 = 200;
/// The same while names are looked up, or workers wait for their turn to be started.
const PRESSED_INTERVAL_MS: u8 = 20;
/// The same while the daemon ends.
const REAP_INTERVAL: Duration = Duration::from_millis(50);
/// How long the daemon waits for its workers when it is stopped; the unit's `TimeoutStopSec` is longer.
pub const WORKERS_WAIT: Duration = Duration::from_secs(150);

/// Serves until `stop` is asked for; then no connection is accepted, and the workers are told to end: before GO they give
/// up, after it they finish. Workers that still run after [`WORKERS_WAIT`] are left to themselves.
///
/// # Errors
/// [`Error::Wait`] when the system fails.
pub fn serve(mut listeners: Listeners, config: &Config, workers: &Workers<'_>, stop: &Cancel) -> Result<(), Error> {
    let mut sessions = Sessions::new(workers);
    let mut orphans = Orphans::new(config.run_dir.clone(), config.state_dir.clone(), workers.recovery);
    let mut watchers = Watchers::new(config.run_dir.clone(), workers.watcher);
    let mut broom = Broom::new(config.run_dir.clone());
    let mut refusals = Refusals::default();
    let mut supervisor = Supervisor::ready(status(&sessions, &orphans));
    while !stop.requested() {
        broom.sweep();
        orphans.look();
        watchers.look();
        wait(&listeners, &sessions)?;
        listeners.accept(&mut refusals, |refusals, stream, peer| sessions.consider(refusals, stream, peer));
        sessions.turn(&mut refusals);
        refusals.sum_up();
        supervisor.turned(status(&sessions, &orphans));
    }
    drop(listeners);
    supervisor.stopping();
    end(sessions, orphans, refusals, supervisor);
    Ok(())
}

fn status(sessions: &Sessions<'_>, orphans: &Orphans<'_>) -> String {
    let plural = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    format!("{}, {}", plural(sessions.count(), "session"), plural(orphans.count(), "orphan"))
}

/// Until there is a connection, or a word from a worker, or it is time to look at the other duties.
fn wait(listeners: &Listeners, sessions: &Sessions<'_>) -> io::Result<()> {
    let interval_ms = if sessions.is_pressed() { PRESSED_INTERVAL_MS } else { WAIT_INTERVAL_MS };
    let fds = listeners.fds().chain(sessions.fds());
    let mut fds: Vec<PollFd<'_>> = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
    match poll(&mut fds, PollTimeout::from(interval_ms)) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn end(mut sessions: Sessions<'_>, mut orphans: Orphans<'_>, mut refusals: Refusals, mut supervisor: Supervisor) {
    sessions.ask_to_end();
    orphans.ask_to_end();
    let deadline = Instant::now() + WORKERS_WAIT;
    while !(sessions.have_ended() && orphans.have_ended()) && Instant::now() < deadline {
        std::thread::sleep(REAP_INTERVAL);
        sessions.turn(&mut refusals);
        supervisor.turned(status(&sessions, &orphans));
    }
    refusals.finish();
    sessions.leave();
}
