//! TLS by a thread of ours, where the kernel does none: libxl and we read and write one end of a socket pair, the thread the other one.
//!
//! What is on its way is bounded: a record or two in each direction, and what the sockets hold. The end of either direction is
//! handed on as such; a connection that breaks ends both, after what had come was delivered.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, send};
use rustls::Connection;

/// What is read at a time, in bytes: four records.
const CHUNK: usize = 64 << 10;

/// Starts the thread; gives the end of the pair that stands for the connection.
pub(super) fn start(tcp: TcpStream, tls: Connection) -> io::Result<OwnedFd> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    tcp.set_nonblocking(true)?;
    let relay = Relay {
        tls,
        tcp,
        inner: ours,
        inbound: Vec::new(),
        inner_ended: false,
        tcp_ended: false,
        farewell: Farewell::Due,
    };
    std::thread::Builder::new().name("relay".into()).spawn(move || {
        if let Err(error) = relay.run() {
            tracing::info!(%error, "the connection broke");
        }
    })?;
    Ok(theirs.into())
}

struct Relay {
    tls: Connection,
    tcp: TcpStream,
    inner: UnixStream,
    /// Decrypted, and not yet delivered.
    inbound: Vec<u8>,
    inner_ended: bool,
    tcp_ended: bool,
    farewell: Farewell,
}

/// The end of what is sent.
#[derive(PartialEq, Eq)]
enum Farewell {
    Due,
    Queued,
    Sent,
}

impl Relay {
    fn run(mut self) -> io::Result<()> {
        while !(self.farewell == Farewell::Sent && self.tcp_ended && self.inbound.is_empty()) {
            self.wait()?;
            self.deliver()?;
            self.receive()?;
            self.send()?;
        }
        Ok(())
    }

    fn takes_more(&self) -> bool {
        !self.tls.wants_write() && !self.inner_ended
    }

    /// Only for what can be gone on with: a socket that has ended would be ready all the time.
    fn wait(&self) -> io::Result<()> {
        let when = |wanted: bool, flag| if wanted { flag } else { PollFlags::empty() };
        let tcp = when(self.inbound.is_empty() && !self.tcp_ended, PollFlags::POLLIN)
            | when(self.tls.wants_write() && self.farewell != Farewell::Sent, PollFlags::POLLOUT);
        let inner = when(self.takes_more(), PollFlags::POLLIN) | when(!self.inbound.is_empty(), PollFlags::POLLOUT);
        let both = [PollFd::new(self.tcp.as_fd(), tcp), PollFd::new(self.inner.as_fd(), inner)];
        let mut wanted: Vec<PollFd<'_>> = both.into_iter().filter(|fd| !fd.events().is_empty()).collect();
        match poll(&mut wanted, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn deliver(&mut self) -> io::Result<()> {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        while !self.inbound.is_empty() {
            match send(self.inner.as_raw_fd(), &self.inbound, flags) {
                Ok(n) => drop(self.inbound.drain(..n)),
                Err(Errno::EAGAIN | Errno::EINTR) => return Ok(()),
                Err(errno) => return Err(errno.into()),
            }
        }
        if self.tcp_ended { self.inner.shutdown(Shutdown::Write).or_else(gone) } else { Ok(()) }
    }

    fn receive(&mut self) -> io::Result<()> {
        if !self.inbound.is_empty() || self.tcp_ended {
            return Ok(());
        }
        match self.tls.read_tls(&mut self.tcp) {
            // Without TLS's own word: each of our messages says itself where it ends.
            Ok(0) => self.tcp_ended = true,
            Ok(_) => {}
            Err(error) if is_later(&error) => return Ok(()),
            Err(error) => return Err(error),
        }
        let state = self.tls.process_new_packets().map_err(io::Error::other)?;
        self.tcp_ended |= state.peer_has_closed();
        let start = self.inbound.len();
        self.inbound.resize(start + state.plaintext_bytes_to_read(), 0);
        self.tls.reader().read_exact(&mut self.inbound[start..])?;
        self.deliver()
    }

    fn send(&mut self) -> io::Result<()> {
        if self.takes_more() {
            let mut chunk = [0; CHUNK];
            match self.inner.read(&mut chunk) {
                Ok(0) => self.inner_ended = true,
                Ok(n) => self.tls.writer().write_all(&chunk[..n])?,
                Err(error) if is_later(&error) => {}
                Err(error) => return Err(error),
            }
        }
        if self.inner_ended && self.farewell == Farewell::Due {
            self.tls.send_close_notify();
            self.farewell = Farewell::Queued;
        }
        while self.tls.wants_write() && self.farewell != Farewell::Sent {
            match self.tls.write_tls(&mut self.tcp) {
                Ok(_) => {}
                Err(error) if is_later(&error) => return Ok(()),
                Err(error) => return self.give_up_sending(&error),
            }
        }
        if self.farewell == Farewell::Queued {
            self.farewell = Farewell::Sent;
            self.tcp.shutdown(Shutdown::Write).or_else(gone)?;
        }
        Ok(())
    }

    /// The last words of the other side may still be there to be read.
    fn give_up_sending(&mut self, error: &io::Error) -> io::Result<()> {
        tracing::debug!(%error, "nothing more can be sent");
        (self.inner_ended, self.farewell) = (true, Farewell::Sent);
        self.inner.shutdown(Shutdown::Read).or_else(gone)
    }
}

fn is_later(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Who has gone need not be told that nothing follows.
fn gone(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotConnected { Ok(()) } else { Err(error) }
}
