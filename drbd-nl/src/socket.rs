//! The way to the kernel. Everything above it sees datagrams and deadlines, and a test can put its own kernel here.

use std::{fmt, io, os::fd::AsFd, time::Instant};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_GENERIC};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout},
    sys::socket::{MsgFlags, setsockopt, sockopt},
};

/// Room for one datagram. Answers stay below a page (NLMSG_GOODSIZE), pieces of a dump below 32 KiB; a longer one is an error.
const DATAGRAM_MAX: usize = 64 * 1024;
/// Room for events that nobody has read yet, as `drbdsetup` has it.
const RECEIVE_BUFFER: usize = 1024 * 1024;

/// One netlink socket.
pub(crate) trait Transport: Send + fmt::Debug {
    /// Sends a request. The kernel carries it out before this returns.
    fn send(&mut self, message: &[u8]) -> io::Result<()>;

    /// One datagram from the kernel. `TimedOut` at the deadline; `ENOBUFS` when datagrams were dropped.
    fn receive(&mut self, deadline: Instant) -> io::Result<Vec<u8>>;

    /// Joins a multicast group.
    fn join(&mut self, group: u32) -> io::Result<()>;

    /// Throws the socket away, with all that is queued in it and all groups, and opens another. The one way to stop a dump that
    /// does not end.
    fn reopen(&mut self) -> io::Result<()>;

    /// Our port: the kernel puts it into each answer.
    fn port(&self) -> u32;
}

/// A generic netlink socket of the kernel's.
pub(crate) struct KernelSocket {
    socket: Socket,
    port: u32,
    buffer: Vec<u8>,
}

impl KernelSocket {
    pub(crate) fn open() -> io::Result<KernelSocket> {
        let mut socket = Socket::new(NETLINK_GENERIC)?;
        let port = socket.bind_auto()?.port_number();
        // Explanations in words, and errors that do not repeat the request. Kernels before 4.12 have neither.
        for refused in [socket.set_ext_ack(true), socket.set_cap_ack(true)].into_iter().filter_map(Result::err) {
            if refused.raw_os_error() != Some(nix::libc::ENOPROTOOPT) {
                return Err(refused);
            }
        }
        enlarge(&socket)?;
        Ok(KernelSocket { socket, port, buffer: Vec::with_capacity(DATAGRAM_MAX) })
    }

    fn wait(&self, deadline: Instant) -> io::Result<()> {
        let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        // Rounded up, or the last millisecond would spin.
        let left = deadline.saturating_duration_since(Instant::now()).as_millis() + 1;
        let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match nix::poll::poll(&mut fds, left) {
            Ok(0) if Instant::now() >= deadline => Err(io::ErrorKind::TimedOut.into()),
            Ok(0) => Err(io::ErrorKind::Interrupted.into()),
            Ok(_) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// A large receive buffer, beyond the system's limit if we may.
fn enlarge(socket: &Socket) -> io::Result<()> {
    if setsockopt(socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
        setsockopt(socket, sockopt::RcvBuf, &RECEIVE_BUFFER)?;
    }
    Ok(())
}

impl Transport for KernelSocket {
    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        self.socket.send_to(message, &SocketAddr::new(0, 0), 0).map(drop)
    }

    fn receive(&mut self, deadline: Instant) -> io::Result<Vec<u8>> {
        self.wait(deadline)?;
        self.buffer.clear();
        // MSG_TRUNC makes the call tell the whole length, even when the buffer is too small for it.
        let flags = (MsgFlags::MSG_TRUNC | MsgFlags::MSG_DONTWAIT).bits();
        let (length, from) = self.socket.recv_from(&mut self.buffer, flags)?;
        if from.port_number() != 0 {
            return Err(io::ErrorKind::Interrupted.into()); // some process, not the kernel: read on
        }
        if length > self.buffer.len() {
            let text = format!("datagram of {length} bytes is longer than {}", self.buffer.len());
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        Ok(self.buffer.clone())
    }

    fn join(&mut self, group: u32) -> io::Result<()> {
        self.socket.add_membership(group)
    }

    fn reopen(&mut self) -> io::Result<()> {
        *self = KernelSocket::open()?;
        Ok(())
    }

    fn port(&self) -> u32 {
        self.port
    }
}

impl fmt::Debug for KernelSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KernelSocket").field("port", &self.port).finish_non_exhaustive()
    }
}

/// Nothing is wrong, there is only nothing yet: an interrupted call, or a wakeup without data.
pub(crate) fn is_retry(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock)
}

/// The kernel dropped datagrams since this socket's buffer was full.
pub(crate) fn is_overrun(error: &io::Error) -> bool {
    error.raw_os_error() == Some(nix::libc::ENOBUFS)
}
