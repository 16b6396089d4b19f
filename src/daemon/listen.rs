//! The sockets that connections come in by: bound here, or given by systemd, which then holds them while the daemon starts anew.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use listenfd::ListenFd;
use nix::errno::Errno;
use socket2::{Domain, Socket, Type};

use super::Error;
use super::refusals::{Refusals, Why};

/// How many connections the kernel keeps that have not been accepted, of each socket.
const BACKLOG: i32 = 1024;
/// The most connections that are accepted of one socket before the daemon sees to its other duties.
const ACCEPTED_MAX: usize = 64;
/// How long no connection is accepted when the system has no descriptor or memory for one: it would be asked again at once.
const EXHAUSTED_WAIT: Duration = Duration::from_millis(200);

/// The sockets that the daemon listens on; with none, it serves no port and cares for orphans alone.
#[derive(Debug, Default)]
pub struct Listeners {
    listeners: Vec<TcpListener>,
    exhausted_until: Option<Instant>,
}

impl Listeners {
    /// Listens on these addresses.
    ///
    /// # Errors
    /// [`Error::Listen`] for the first that cannot be listened on.
    pub fn bind(addresses: &[SocketAddr]) -> Result<Listeners, Error> {
        let bound = addresses.iter().map(|address| {
            let listener = listen(*address).map_err(|source| Error::Listen { address: *address, source })?;
            tracing::info!(address = %listener.local_addr().unwrap_or(*address), "listening");
            Ok(listener)
        });
        Ok(Listeners { listeners: bound.collect::<Result<_, Error>>()?, exhausted_until: None })
    }

    /// The sockets that systemd opened for this process (sd_listen_fds(3)), if it did. To be called once, before there are threads: it takes
    /// the variables that say so out of the environment.
    ///
    /// # Errors
    /// [`Error::Given`] when one of them is no listening TCP socket.
    pub fn given() -> Result<Option<Listeners>, Error> {
        let mut given = ListenFd::from_env();
        let taken = (0..given.len()).map(|index| take(&mut given, index).map_err(Error::Given));
        let listeners: Vec<TcpListener> = taken.collect::<Result<_, _>>()?;
        for address in listeners.iter().flat_map(TcpListener::local_addr) {
            tracing::info!(%address, "listening, on systemd's socket");
        }
        Ok((!listeners.is_empty()).then_some(Listeners { listeners, exhausted_until: None }))
    }

    /// What is to be waited for: nothing while the system has no room for another connection.
    pub(super) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let exhausted = self.exhausted_until.is_some_and(|until| Instant::now() < until);
        self.listeners.iter().filter(move |_| !exhausted).map(AsFd::as_fd)
    }

    /// Takes the connections that have come, so many at a time.
    pub(super) fn accept(
        &mut self,
        refusals: &mut Refusals,
        mut take: impl FnMut(&mut Refusals, TcpStream, SocketAddr),
    ) {
        if self.exhausted_until.is_some_and(|until| Instant::now() < until) {
            return;
        }
        for listener in &self.listeners {
            for _ in 0..ACCEPTED_MAX {
                match listener.accept() {
                    Ok((stream, peer)) => take(refusals, stream, peer),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) if is_exhausted(&error) => {
                        refusals.say(Why::Exhausted, None, &error.to_string());
                        self.exhausted_until = Some(Instant::now() + EXHAUSTED_WAIT);
                        return;
                    }
                    // The connection is gone already (accept(2), "Error handling").
                    Err(error) => tracing::debug!(%error, "a connection was not accepted"),
                }
            }
        }
    }
}

/// The address may be taken again at once after the daemon has ended, whatever its connections are doing.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn take(given: &mut ListenFd, index: usize) -> io::Result<TcpListener> {
    let listener = given.take_tcp_listener(index)?.ok_or(io::ErrorKind::NotFound)?;
    match socket2::SockRef::from(&listener).is_listener()? {
        true => listener.set_nonblocking(true).map(|()| listener),
        false => Err(io::Error::other("it accepts no connections: the socket unit must say Accept=no")),
    }
}

fn is_exhausted(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM))
}
