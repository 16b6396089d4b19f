//! `bascule serve`, and the session that its workers run.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};

use bascule::daemon::{self, Config, Workers};
use bascule::fault::Faults;
use bascule::host;
use bascule::receive::{self, Ended, Timeouts};
use bascule::stream::Cancel;
use bascule::transport::Channel;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use uuid::Uuid;

use super::exit::Error;
use super::here::Here;
use super::{Serve, Session};

/// Runs the daemon in the foreground.
pub(crate) fn run(args: &Serve, state_dir: &Path) -> Result<(), Error> {
    let program = std::env::current_exe()?;
    let command = |name: &str| {
        let mut command = Command::new(&program);
        command.arg("--state-dir").arg(state_dir).arg(name);
        command
    };
    let session = || {
        let mut command = command("session");
        command.args(args.rehearsal.fail_at.iter().flat_map(|fault| ["--fail-at".to_owned(), fault.to_string()]));
        let bounds = args.bounds.timeouts.iter();
        command.args(bounds.map(|(name, bound)| format!("--timeout={name}={}", bound.as_secs_f64())));
        command
    };
    let recovery = |id: Uuid| {
        let mut command = command("recover");
        command.arg("--adopt").arg(id.to_string()).stdin(Stdio::null());
        command
    };
    let config = Config {
        listen: listen(args),
        allow: args.allow.clone(),
        sessions_max: args.sessions,
        run_dir: host::RUN_DIR.into(),
        state_dir: state_dir.to_owned(),
    };
    let workers = Workers { session: &session, recovery: &recovery };
    let stop = Cancel::default();
    cancel_on_signal(&stop)?;
    Ok(daemon::serve(&config, &workers, &stop)?)
}

/// All addresses, IPv4 by IPv6's socket, unless some were given; IPv4 alone where the kernel has no IPv6.
fn listen(args: &Serve) -> Vec<SocketAddr> {
    let addresses = match args.address.as_slice() {
        [] if has_ipv6() => &[IpAddr::V6(Ipv6Addr::UNSPECIFIED)],
        [] => &[IpAddr::V4(Ipv4Addr::UNSPECIFIED)][..],
        given => given,
    };
    addresses.iter().map(|address| SocketAddr::new(*address, args.port)).collect()
}

fn has_ipv6() -> bool {
    std::path::Path::new("/proc/net/if_inet6").exists()
}

/// One session on standard input's connection.
pub(crate) fn session(args: &Session, state_dir: &Path) -> Result<(), Error> {
    let connection: TcpStream = io::stdin().as_fd().try_clone_to_owned()?.into();
    let channel = Channel::adopt(connection)?;
    let span = tracing::info_span!("session", peer = %channel.peer()?);
    let _entered = span.enter();
    let cancel = Cancel::default();
    cancel_on_signal(&cancel)?;
    let here = Here::open(Faults::new(args.rehearsal.fail_at))?;
    let mut timeouts = Timeouts::default();
    for (name, bound) in &args.bounds.timeouts {
        timeouts.set(name, *bound);
    }
    match receive::session(&here.host(state_dir), &channel, timeouts, &cancel) {
        Ended::Moved(_) | Ended::Answered(_) => Ok(()),
        Ended::Discarded(reason) | Ended::Returned(reason) | Ended::Left(reason) => Err(reason),
    }
}

/// SIGINT and SIGTERM become the wish to stop; a second one changes nothing.
pub(crate) fn cancel_on_signal(cancel: &Cancel) -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let cancel = cancel.clone();
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in &mut signals {
            tracing::warn!(signal, "asked to stop");
            cancel.cancel();
        }
    })?;
    Ok(())
}
