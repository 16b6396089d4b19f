//! The relocation connection: frames before and after the memory stream, on one TCP socket.
//!
//! A reader of frames never reads ahead: the byte after the frame that opens the stream belongs to libxl. No
//! `SO_RCVTIMEO` or `SO_SNDTIMEO` is ever set, since libxc takes EAGAIN as fatal; frames are awaited with poll, and a
//! peer that vanished during the stream is found by keepalive and `TCP_USER_TIMEOUT`.

pub(crate) mod wire;

use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::poll::PollFlags;
use nix::sys::socket::{Shutdown, shutdown};
use nix::{getsockopt_impl, sockopt_impl};
use socket2::{SockRef, TcpKeepalive};

use self::wire::Deadline;
use crate::protocol::{self, HEADER_LEN, Header, Message};
use crate::tls::Protection;

/// How long data may stay unacknowledged before the kernel gives the connection up.
pub const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(30);
/// Idle time before the first keepalive probe, and the time between probes.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// Probes without an answer before the connection is dead.
pub const KEEPALIVE_PROBES: u32 = 6;

/// How soon a peer is taken for lost while the domain stands still.
pub const PROMPTNESS: Duration = Duration::from_secs(10);
/// Keepalive probes within that time.
const PROMPT_PROBES: u32 = 4;

/// What can go wrong on the connection.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name has no address.
    #[error("Host name {host} cannot be resolved")]
    Resolve {
        /// The name.
        host: String,
        /// What the resolver says.
        source: io::Error,
    },
    /// Nobody answers.
    #[error("{address} does not accept a relocation connection")]
    Connect {
        /// The address that was tried last.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The other side closed the connection.
    #[error("The connection was closed by the other side")]
    Closed,
    /// The connection broke.
    #[error("The connection broke")]
    Io(#[from] io::Error),
    /// Nothing came in time.
    #[error("Nothing came within {} ms", .0.as_millis())]
    Timeout(Duration),
    /// What came is not the protocol.
    #[error(transparent)]
    Protocol(#[from] protocol::Error),
}

/// Connects to the relocation port of `host`, trying each of its addresses within `timeout` each.
///
/// # Errors
/// [`Error::Resolve`], or [`Error::Connect`] for the last address.
pub fn dial(host: &str, port: u16, timeout: Duration) -> Result<TcpStream, Error> {
    let addresses = (host, port).to_socket_addrs().map_err(|source| Error::Resolve { host: host.into(), source })?;
    let mut last = Error::Resolve { host: host.into(), source: io::ErrorKind::NotFound.into() };
    for address in addresses {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(stream) => return Ok(stream),
            Err(source) => last = Error::Connect { address, source },
        }
    }
    Err(last)
}

/// One end of a relocation connection.
#[derive(Debug)]
pub struct Channel {
    /// What is read and written: the connection itself, or what stands for it where a relay protects it.
    stream: OwnedFd,
    /// The connection.
    tcp: TcpStream,
    protection: Protection,
}

impl Channel {
    /// Takes a connected socket, in clear, and sets what the protocol needs on it.
    ///
    /// # Errors
    /// [`Error::Io`] when the socket refuses an option.
    pub fn adopt(tcp: TcpStream) -> Result<Channel, Error> {
        let stream = tcp.try_clone()?.into();
        Channel::over(tcp, stream, Protection::Clear)
    }

    /// A connection, and what is read and written in its stead.
    pub(crate) fn over(tcp: TcpStream, stream: OwnedFd, protection: Protection) -> Result<Channel, Error> {
        tcp.set_nodelay(true)?;
        let keepalive = TcpKeepalive::new()
            .with_time(KEEPALIVE_INTERVAL)
            .with_interval(KEEPALIVE_INTERVAL)
            .with_retries(KEEPALIVE_PROBES);
        let socket = SockRef::from(&tcp);
        socket.set_tcp_keepalive(&keepalive)?;
        socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX))?;
        if protection != Protection::RelayedTls {
            tcp.set_nonblocking(false)?;
        }
        Ok(Channel { stream, tcp, protection })
    }

    /// How it is protected.
    pub fn protection(&self) -> Protection {
        self.protection
    }

    /// The memory has been streamed and the domain is suspended: from now on a peer that vanishes is noticed within
    /// [`PROMPTNESS`].
    ///
    /// # Errors
    /// [`Error::Io`] when the socket refuses an option.
    pub fn expect_promptness(&self) -> Result<(), Error> {
        let interval = PROMPTNESS / (PROMPT_PROBES + 1);
        let keepalive = TcpKeepalive::new().with_time(interval).with_interval(interval).with_retries(PROMPT_PROBES);
        let socket = SockRef::from(&self.tcp);
        socket.set_tcp_keepalive(&keepalive)?;
        Ok(socket.set_tcp_user_timeout(Some(PROMPTNESS))?)
    }

    /// A second handle on the same connection, for the thread that listens while libxl writes.
    ///
    /// # Errors
    /// [`Error::Io`] when no descriptor is free.
    pub fn try_clone(&self) -> Result<Channel, Error> {
        Ok(Channel { stream: self.stream.try_clone()?, tcp: self.tcp.try_clone()?, protection: self.protection })
    }

    /// The other side's address.
    ///
    /// # Errors
    /// [`Error::Io`] when the connection is gone.
    pub fn peer(&self) -> Result<SocketAddr, Error> {
        Ok(self.tcp.peer_addr()?)
    }

    /// This side's address.
    ///
    /// # Errors
    /// [`Error::Io`] when the connection is gone.
    pub fn local(&self) -> Result<SocketAddr, Error> {
        Ok(self.tcp.local_addr()?)
    }

    /// Bytes that the kernel has sent and had acknowledged on this connection, and bytes received (`TCP_INFO`).
    pub fn bytes(&self) -> TcpBytes {
        tcp_bytes(self.tcp.as_fd()).unwrap_or_default()
    }

    /// Sends one message within `timeout`.
    ///
    /// # Errors
    /// [`Error::Timeout`], [`Error::Io`], [`Error::Protocol`] when it is too long.
    pub fn send(&self, message: impl Into<Message>, timeout: Duration) -> Result<(), Error> {
        let message = message.into();
        tracing::debug!(message = message.name(), "sent");
        wire::write_all(&self.stream, &protocol::encode(&message)?, Deadline::after(timeout))
    }

    /// Receives one message within `timeout`, and not a byte more.
    ///
    /// # Errors
    /// [`Error::Timeout`], [`Error::Closed`], [`Error::Io`], [`Error::Protocol`].
    pub fn receive(&self, timeout: Duration) -> Result<Message, Error> {
        let deadline = Deadline::after(timeout);
        let mut header = [0; HEADER_LEN];
        wire::read_exact(&self.stream, &mut header, deadline)?;
        let header = Header::parse(header)?;
        let mut payload = vec![0; header.len];
        wire::read_exact(&self.stream, &mut payload, deadline)?;
        let message = protocol::decode(header, &payload)?;
        tracing::debug!(message = message.name(), "received");
        Ok(message)
    }

    /// Waits until something can be read or the connection has ended; false when `timeout` passed first.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn wait_readable(&self, timeout: Duration) -> Result<bool, Error> {
        match wire::wait(self.as_fd(), PollFlags::POLLIN, Deadline::after(timeout)) {
            Ok(()) => Ok(true),
            Err(Error::Timeout(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Says that nothing more will be sent, and reads away what the other side still sends, so that our last message
    /// is not lost to a reset. Bounded by `timeout`.
    pub fn finish(&self, timeout: Duration) {
        let deadline = Deadline::after(timeout);
        let _ = shutdown(self.stream.as_raw_fd(), Shutdown::Write);
        let mut waste = vec![0; 64 << 10];
        while wire::read_some(&self.stream, &mut waste, deadline).is_ok() {}
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// What TCP has moved on one connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpBytes {
    /// Bytes sent and acknowledged.
    pub acknowledged: u64,
    /// Bytes received.
    pub received: u64,
}

/// The head of the kernel's `struct tcp_info` (linux/tcp.h) as 64-bit words, up to the byte counters; the kernel
/// truncates what it returns to the length asked for.
type TcpInfoHead = [u64; 17];
const BYTES_ACKED: usize = 15;
const BYTES_RECEIVED: usize = 16;

sockopt_impl!(
    /// `TCP_INFO`, see [`TcpInfoHead`].
    TcpInfo, GetOnly, nix::libc::IPPROTO_TCP, nix::libc::TCP_INFO, TcpInfoHead
);

fn tcp_bytes(fd: BorrowedFd<'_>) -> Option<TcpBytes> {
    let head = nix::sys::socket::getsockopt(&fd, TcpInfo).ok()?;
    Some(TcpBytes { acknowledged: head[BYTES_ACKED], received: head[BYTES_RECEIVED] })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::protocol::{Go, Stream};

    const SOON: Duration = Duration::from_secs(20);

    fn pair() -> (Channel, Channel) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let port = listener.local_addr().expect("bound").port();
        let source = dial("127.0.0.1", port, SOON).expect("connects");
        let (accepted, _) = listener.accept().expect("accepts");
        (Channel::adopt(source).expect("adopts"), Channel::adopt(accepted).expect("adopts"))
    }

    #[test]
    fn a_frame_is_read_to_its_last_byte_and_no_further() {
        let (source, destination) = pair();
        source.send(Stream {}, SOON).expect("sends");
        wire::write_all(&source, b"memory", Deadline::after(SOON)).expect("writes");
        source.send(Go {}, SOON).expect("sends");
        assert_eq!(destination.receive(SOON).expect("a frame"), Stream {}.into());
        let mut raw = [0; 6];
        wire::read_exact(&destination, &mut raw, Deadline::after(SOON)).expect("the stream");
        assert_eq!(&raw, b"memory");
        assert_eq!(destination.receive(SOON).expect("a frame"), Go {}.into());
        assert_eq!(destination.bytes().received, 8 + 2 + 6 + 8 + 2);
    }

    #[test]
    fn silence_and_a_closed_connection_are_told_apart() {
        let (source, destination) = pair();
        let silent = destination.receive(Duration::from_millis(1));
        assert!(matches!(silent, Err(Error::Timeout(_))), "{silent:?}");
        drop(source);
        let closed = destination.receive(SOON);
        assert!(matches!(closed, Err(Error::Closed)), "{closed:?}");
    }
}
