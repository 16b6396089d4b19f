//! Whether an address can be listened on, and who does already.

use std::io;
use std::net::{IpAddr, SocketAddr};

use nix::errno::Errno;
use procfs::net::{TcpNetEntry, TcpState};
use procfs::process::{FDTarget, Process};
use socket2::{Domain, Socket, Type};

use super::Looked;

/// The number of the first process, which holds the sockets of systemd's units.
pub(crate) const INIT: i32 = 1;

/// The kernel's name of our processes (proc(5), comm).
pub(crate) const OUR_NAME: &str = "bascule";

pub(super) fn look(address: SocketAddr) -> Looked {
    let what = format!("address {address}");
    let refused = match try_bind(address) {
        Ok(()) => return Looked::ok(what, "it is free"),
        Err(error) => error,
    };
    match refused.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EADDRINUSE) => taken(what, address.port(), listener(address)),
        Some(Errno::EADDRNOTAVAIL) => {
            Looked::problem(what, "it is none of this host's", "ip address; and set relocation.address to one of those")
        }
        _ => Looked::problem(
            what,
            refused.to_string(),
            "Set relocation.address and relocation.port to what can be bound",
        ),
    }
}

/// Nobody can connect meanwhile: it is bound, and not listened on.
fn try_bind(address: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())
}

fn taken(what: String, port: u16, by: Option<(i32, String)>) -> Looked {
    match by {
        Some((pid, name)) if name == OUR_NAME => Looked::ok(what, format!("our daemon listens there (process {pid})")),
        Some((INIT, name)) => Looked::ok(what, format!("{name} listens there for a socket unit")),
        Some((pid, name)) => {
            let remedy = format!("systemctl status {pid}; end it, or set relocation.port to another one");
            Looked::problem(what, format!("{name} listens there (process {pid})"), remedy)
        }
        None => Looked::problem(
            what,
            "another process listens there",
            format!("ss --listening --tcp --processes sport = {port}"),
        ),
    }
}

/// Who listens there: our daemon, if it is one of several that hold the socket.
pub(crate) fn listener(address: SocketAddr) -> Option<(i32, String)> {
    let tables = [procfs::net::tcp(), procfs::net::tcp6()];
    let entries = tables.into_iter().flatten().flatten();
    let sockets: Vec<u64> = entries.filter(|entry| is_in_the_way(entry, address)).map(|entry| entry.inode).collect();
    let processes = procfs::process::all_processes().ok()?.flatten();
    let holders = processes.filter(|process| holds(process, &sockets));
    holders.filter_map(|holder| Some((holder.pid, holder.stat().ok()?.comm))).max_by_key(|(_, name)| name == OUR_NAME)
}

fn is_in_the_way(entry: &TcpNetEntry, address: SocketAddr) -> bool {
    let (theirs, ours) = (entry.local_address.ip().to_canonical(), address.ip().to_canonical());
    let all = |ip: IpAddr| ip.is_unspecified();
    let same = theirs == ours || all(theirs) || all(ours);
    entry.state == TcpState::Listen && entry.local_address.port() == address.port() && same
}

fn holds(process: &Process, sockets: &[u64]) -> bool {
    let fds = process.fd().into_iter().flatten().flatten();
    fds.into_iter().any(|fd| matches!(fd.target, FDTarget::Socket(inode) if sockets.contains(&inode)))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_free_address_a_taken_one_and_one_elsewhere_are_told_apart() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = listener.local_addr().expect("its address");
        let found = look(address);
        assert!(!found.ok && found.found.contains(&format!("process {}", std::process::id())), "{found:?}");
        drop(listener);
        assert!(look(address).ok);
        let elsewhere = look("192.0.2.1:8002".parse().expect("an address"));
        assert!(!elsewhere.ok && elsewhere.remedy.is_some(), "{elsewhere:?}");
    }

    #[test]
    fn our_daemon_and_systemd_may_listen() {
        for (pid, name, ok) in [(INIT, "systemd", true), (70, OUR_NAME, true), (70, "xend", false)] {
            assert_eq!(taken("address".into(), 8002, Some((pid, name.into()))).ok, ok, "{name}");
        }
        assert!(!taken("address".into(), 8002, None).ok);
    }
}
