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

/// What can be done without waiting.
#[derive(Clone, Copy)]
struct Ready {
    tcp: PollFlags,
    inner: PollFlags,
}

/// How a socket is ready for reading: its end, and an error, are read, too.
const READABLE: PollFlags = PollFlags::POLLIN.union(PollFlags::POLLHUP).union(PollFlags::POLLERR);

impl Relay {
    fn run(mut self) -> io::Result<()> {
        let mut chunk = vec![0; CHUNK];
        while !(self.farewell == Farewell::Sent && self.tcp_ended && self.inbound.is_empty()) {
            let ready = self.wait()?;
            if ready.tcp.intersects(READABLE) && self.wants_records() {
                self.receive(&mut chunk)?;
            }
            self.deliver()?;
            if ready.inner.intersects(READABLE) && self.takes_more() {
                self.take(&mut chunk)?;
            }
            self.send()?;
        }
        Ok(())
    }

    fn wants_records(&self) -> bool {
        self.inbound.is_empty() && !self.tcp_ended
    }

    fn takes_more(&self) -> bool {
        !self.tls.wants_write() && !self.inner_ended
    }

    /// Only for what can be gone on with: a socket that has ended would be ready all the time.
    fn wait(&self) -> io::Result<Ready> {
        let when = |wanted: bool, flag| if wanted { flag } else { PollFlags::empty() };
        let tcp = when(self.wants_records(), PollFlags::POLLIN)
            | when(self.tls.wants_write() && self.farewell != Farewell::Sent, PollFlags::POLLOUT);
        let inner = when(self.takes_more(), PollFlags::POLLIN) | when(!self.inbound.is_empty(), PollFlags::POLLOUT);
        let mut ready = Ready { tcp: PollFlags::empty(), inner: PollFlags::empty() };
        let both = [(self.tcp.as_fd(), tcp, &mut ready.tcp), (self.inner.as_fd(), inner, &mut ready.inner)];
        let (mut fds, mut slots) = (Vec::with_capacity(2), Vec::with_capacity(2));
        for (fd, events, slot) in both.into_iter().filter(|(_, events, _)| !events.is_empty()) {
            fds.push(PollFd::new(fd, events));
            slots.push(slot);
        }
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) => fds.iter().zip(slots).for_each(|(fd, slot)| *slot = fd.revents().unwrap_or(PollFlags::empty())),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        Ok(ready)
    }

    /// Reads and decrypts. rustls reads four KiB at a time by itself, which is four times as many system calls as a record has.
    fn receive(&mut self, chunk: &mut [u8]) -> io::Result<()> {
        let n = match self.tcp.read(chunk) {
            Ok(n) => n,
            Err(error) if is_later(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        // The end may come without TLS's own word for it: each of our messages says itself where it ends.
        self.tcp_ended = n == 0;
        let mut records = &chunk[..n];
        while !records.is_empty() {
            self.tls.read_tls(&mut records)?;
            let state = self.tls.process_new_packets().map_err(io::Error::other)?;
            self.tcp_ended |= state.peer_has_closed();
            let start = self.inbound.len();
            self.inbound.resize(start + state.plaintext_bytes_to_read(), 0);
            self.tls.reader().read_exact(&mut self.inbound[start..])?;
        }
        Ok(())
    }

    fn deliver(&mut self) -> io::Result<()> {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let mut delivered = 0;
        while delivered < self.inbound.len() {
            match send(self.inner.as_raw_fd(), &self.inbound[delivered..], flags) {
                Ok(n) => delivered += n,
                Err(Errno::EAGAIN | Errno::EINTR) => break,
                Err(errno) => return Err(errno.into()),
            }
        }
        self.inbound.drain(..delivered);
        if self.tcp_ended && self.inbound.is_empty() {
            self.inner.shutdown(Shutdown::Write).or_else(gone)
        } else {
            Ok(())
        }
    }

    /// Reads and encrypts what is to be sent.
    fn take(&mut self, chunk: &mut [u8]) -> io::Result<()> {
        match self.inner.read(chunk) {
            Ok(0) => self.inner_ended = true,
            Ok(n) => self.tls.writer().write_all(&chunk[..n])?,
            Err(error) if is_later(&error) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn send(&mut self) -> io::Result<()> {
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
