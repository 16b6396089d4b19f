//! `bascule serve`, and the session that its workers run.

mod check;

use std::ffi::{OsString, c_int};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use bascule::config::{Config, Count, Guests, Relocation, Security, State};
use bascule::daemon::{self, Listeners, NotAdmitted, Unauthenticated, Workers};
use bascule::fault::Faults;
use bascule::host;
use bascule::ids::DomId;
use bascule::migrate::chain;
use bascule::pair::{self, Offer};
use bascule::protocol::Failed;
use bascule::receive::{self, Ended, Timeouts};
use bascule::stream::Cancel;
use bascule::tls::{self, Accepted};
use bascule::transport::Channel;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use uuid::Uuid;

use super::exit::Error;
use super::here::Here;
use super::settings::{self, Live, Source};
use super::{Serve, Session, secured};

/// Runs the daemon in the foreground.
pub(crate) fn run(args: &Serve, config: Config, source: &Source) -> Result<(), Error> {
    // Before anything else: it looks into the environment, which no other thread may do meanwhile.
    let given = Listeners::given()?;
    let config = settings::with_options(config, args);
    if args.check {
        return check::run(&config, source, args.json);
    }
    let stop = Cancel::default();
    cancel_on_signal(&stop)?;
    let listeners = listeners(given, &config.relocation)?;
    let daemon = daemon::Config { run_dir: host::RUN_DIR.into(), state_dir: config.state.dir.clone() };
    let live = Live::new(config);
    let (overlay, source) = (args.clone(), source.clone());
    live.follow(move || Ok(settings::with_options(source.load()?, &overlay)))?;
    // This very program, also when another version has been installed meanwhile: daemon and workers speak with each other.
    let program = Path::new("/proc/self/exe");
    let workers = Workers {
        session: &|| session_command(program, &daemon.state_dir, &live.config(), args),
        recovery: &|id| recovery_command(program, &daemon.state_dir, &live.config(), id),
        watcher: &|domid| watcher_command(program, &daemon.state_dir, &live.config(), domid),
        policy: &|| live.policy(),
    };
    Ok(daemon::serve(listeners, &daemon, &workers, &stop)?)
}

/// A session is told all that it needs: the file may be wrong by now.
fn session_command(program: &Path, state_dir: &Path, config: &Config, args: &Serve) -> Command {
    let mut command = Command::new(program);
    command.arg0("bascule");
    command.arg("--state-dir").arg(state_dir).arg("session");
    command.arg(format!("--history={}", config.state.history.0)).arg(format!("--log={}", config.log.level.name()));
    command.args(args.rehearsal.fail_at.iter().flat_map(|fault| ["--fail-at".to_owned(), fault.to_string()]));
    command.args(bounds(config.timeouts.destination.each()));
    command.args(secured::options(&config.security));
    command.args(guests_options(&config.guests));
    command
}

fn guests_options(guests: &Guests) -> Vec<OsString> {
    let Guests { kernels, nic_scripts, shared_disks, read_only_disks, bridges } = guests;
    let mut options: Vec<OsString> = Vec::new();
    options.extend(kernels.iter().flat_map(|directory| ["--kernels".into(), directory.into()]));
    options.extend(nic_scripts.iter().map(|script| format!("--nic-script={script}").into()));
    options.extend(shared_disks.iter().map(|pattern| format!("--shared-disk={pattern}").into()));
    options.extend(read_only_disks.iter().map(|pattern| format!("--read-only-disk={pattern}").into()));
    options.extend(bridges.iter().map(|map| format!("--map-bridge={map}").into()));
    options
}

/// So is a recovery.
fn recovery_command(program: &Path, state_dir: &Path, config: &Config, id: Uuid) -> Command {
    let mut command = Command::new(program);
    command.arg0("bascule");
    command.arg("--state-dir").arg(state_dir).arg("recover").arg("--adopt").arg(id.to_string()).stdin(Stdio::null());
    command.args(bounds(config.timeouts.source.each()));
    command.args(secured::options(&config.security));
    command
}

/// And a watcher, which outlives the daemon and whatever it is told later.
fn watcher_command(program: &Path, state_dir: &Path, config: &Config, domid: DomId) -> Command {
    let mut command = Command::new(program);
    command.arg0("bascule").stdin(Stdio::null()).stdout(Stdio::null());
    command.arg("--state-dir").arg(state_dir).arg("watch").arg(domid.to_string());
    command.arg(format!("--log={}", config.log.level.name()));
    command
}

fn bounds(each: impl Iterator<Item = (&'static str, Duration)>) -> impl Iterator<Item = String> {
    each.map(|(name, bound)| format!("--timeout={name}={}", bound.as_secs_f64()))
}

/// systemd's sockets, if it gave any; else those that the configuration names. None where nothing shall be received.
fn listeners(given: Option<Listeners>, relocation: &Relocation) -> Result<Listeners, Error> {
    let listen = listen(relocation)?;
    match given {
        Some(_) if listen.is_empty() => Ok(Listeners::default()),
        Some(given) => {
            let (address, port) = (relocation.address.len(), relocation.port);
            tracing::warn!(
                address,
                port,
                "relocation.address and port are not used: systemd's socket unit says where to listen"
            );
            Ok(given)
        }
        None => Ok(Listeners::bind(&listen)?),
    }
}

/// All addresses, IPv4 by IPv6's socket, unless some were given; IPv4 alone where the kernel has no IPv6. None where nothing shall be
/// received.
pub(crate) fn listen(relocation: &Relocation) -> Result<Vec<SocketAddr>, Error> {
    if !relocation.enabled {
        tracing::warn!("relocation.enabled is false: no port is served");
        return Ok(Vec::new());
    }
    if relocation.hosts_allow.0.is_empty() {
        return Err(NOBODY.into());
    }
    if relocation.address.is_empty() {
        let all = if has_ipv6() { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
        return Ok(vec![SocketAddr::new(all, relocation.port)]);
    }
    let mut listen = Vec::new();
    for address in &relocation.address {
        listen.extend(address.resolve(relocation.port)?);
    }
    Ok(listen)
}

/// What a daemon says that nobody could reach.
const NOBODY: &str = "Nobody may connect: say who, with --allow 10.99.0.0/24 or, in the configuration, \
    [relocation] hosts-allow = [\"10.99.0.0/24\"]; or enabled = false there, if no domains shall be received";

fn has_ipv6() -> bool {
    std::path::Path::new("/proc/net/if_inet6").exists()
}

/// One session on standard input's connection. Until the peer is known there is no way to Xen or DRBD.
pub(crate) fn session(args: &Session, state_dir: PathBuf) -> Result<(), Error> {
    let worker = Unauthenticated::begin()?;
    let connection: TcpStream = io::stdin().as_fd().try_clone_to_owned()?.into();
    let span = tracing::info_span!("session", peer = %connection.peer_addr()?);
    let _entered = span.enter();
    let mut timeouts = Timeouts::default();
    for (name, bound) in &args.bounds.timeouts {
        timeouts.set(name, *bound);
    }
    let security = args.security.settings();
    let Some(channel) = authenticate(worker, &security, &state_dir, connection, timeouts.authentication)? else {
        return Ok(());
    };
    let cancel = Cancel::default();
    cancel_on_signal(&cancel)?;
    let here = match Here::open(&security, &args.guests(), Faults::new(args.rehearsal.fail_at)) {
        Ok(here) => here,
        Err(error) => {
            // The peer may be gone; why the session ends is the log's in any case.
            let _ = turn_away(&channel, "opening the ways to Xen and DRBD", chain(error.as_ref()));
            return Err(error);
        }
    };
    let state = State { dir: state_dir, history: Count(args.history) };
    match receive::session(&here.host(&state), &channel, timeouts, &cancel) {
        Ended::Moved(_) | Ended::Answered(_) => Ok(()),
        Ended::Discarded(reason) | Ended::Returned(reason) | Ended::Left(reason) => Err(reason),
    }
}

impl Session {
    /// The options as settings.
    fn guests(&self) -> Guests {
        Guests {
            kernels: self.kernels.clone(),
            nic_scripts: self.nic_scripts.clone(),
            shared_disks: self.shared_disks.clone(),
            read_only_disks: self.read_only_disks.clone(),
            bridges: self.bridges.clone(),
        }
    }
}

/// Lets the peer prove who it is; `None` where there is nothing more to do for it, which the daemon has been told.
fn authenticate(
    worker: Unauthenticated,
    security: &Security,
    state_dir: &Path,
    connection: TcpStream,
    timeout: Duration,
) -> Result<Option<Channel>, Error> {
    let pairing = Offer::is_open(host::RUN_DIR.as_ref());
    let (channel, peer) = match tls::accept(security, state_dir, connection, timeout, pairing) {
        Ok(Accepted::Relocation(channel, peer)) => (channel, peer),
        Ok(Accepted::Pairing(channel, key)) => {
            match pair::answer(host::RUN_DIR.as_ref(), &host::node_name(), &channel, key, timeout) {
                Ok(()) => worker.served(&format!("paired, key {key}")),
                Err(error) => worker.refused(&chain(error.as_ref())),
            }
            return Ok(None);
        }
        Err(error) => {
            worker.refused(&chain(&error));
            return Ok(None);
        }
    };
    match worker.authenticated(&peer) {
        Ok(()) => {
            tracing::info!(peer_name = peer, protection = %channel.protection(), "authenticated");
            Ok(Some(channel))
        }
        Err(NotAdmitted::Busy) => {
            turn_away(&channel, "accepting the connection", NotAdmitted::Busy.to_string()).map(|()| None)
        }
        Err(no_answer) => Err(no_answer.into()),
    }
}

/// Tells a peer that is known why it has no session; the log has it already, or gets it from the caller.
fn turn_away(channel: &Channel, step: &str, reason: String) -> Result<(), Error> {
    channel.send(Failed { step: step.into(), reason }, TURN_AWAY_WAIT)?;
    channel.finish(TURN_AWAY_WAIT);
    Ok(())
}

/// How long that may take.
const TURN_AWAY_WAIT: Duration = Duration::from_secs(2);

/// SIGINT and SIGTERM become the wish to stop; a second one changes nothing.
pub(crate) fn cancel_on_signal(cancel: &Cancel) -> io::Result<()> {
    cancel_on(cancel, &[SIGINT, SIGTERM])
}

/// The same for other signals.
pub(crate) fn cancel_on(cancel: &Cancel, signals: &[c_int]) -> io::Result<()> {
    let mut signals = Signals::new(signals)?;
    let cancel = cancel.clone();
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in &mut signals {
            tracing::warn!(signal, "asked to stop");
            cancel.cancel();
        }
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Args, Command};

    #[test]
    fn sessions_are_told_every_setting_about_guests() {
        let everything = "[guests]\nkernels = ['/k']\nnic-scripts = ['vif-x']\nshared-disks = ['/dev/mapper/san-*']\n\
            read-only-disks = ['/srv/iso/*.iso', '/dev/sr0']\nbridges = ['xenbr0=br-lan', 'a=b']";
        for text in ["", everything] {
            let guests = Config::parse(Path::new("f"), text).expect("a configuration").guests;
            let words = ["bascule", "session"].map(OsString::from).into_iter().chain(guests_options(&guests));
            match Args::try_parse_from(words).expect("our own options").command {
                Command::Session(session) => assert_eq!(session.guests(), guests),
                other => panic!("{other:?}"),
            }
        }
    }
}
