//! Bytes on a socket, each wait bounded.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv, send};

use super::Error;

/// The moment at which a wait ends, and how long the wait was to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    at: Instant,
    timeout: Duration,
}

impl Deadline {
    pub(crate) fn after(timeout: Duration) -> Deadline {
        Deadline { at: Instant::now() + timeout, timeout }
    }

    /// The time left for poll, rounded up to a millisecond.
    fn remaining(self) -> Result<PollTimeout, Error> {
        let left = self.at.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::Timeout(self.timeout));
        }
        Ok(PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX))
    }
}

/// Waits for one of the events, or for the end of the connection.
pub(crate) fn wait(fd: BorrowedFd<'_>, events: PollFlags, deadline: Deadline) -> Result<(), Error> {
    loop {
        let mut fds = [PollFd::new(fd, events)];
        match poll(&mut fds, deadline.remaining()?) {
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(()),
            Err(errno) => return Err(Error::Io(errno.into())),
        }
    }
}

/// Fills the buffer, and reads not a byte more.
pub(crate) fn read_exact(socket: impl AsFd, mut buffer: &mut [u8], deadline: Deadline) -> Result<(), Error> {
    while !buffer.is_empty() {
        let n = read_some(&socket, buffer, deadline)?;
        buffer = &mut buffer[n..];
    }
    Ok(())
}

/// Reads what there is, at least a byte.
pub(crate) fn read_some(socket: impl AsFd, buffer: &mut [u8], deadline: Deadline) -> Result<usize, Error> {
    loop {
        wait(socket.as_fd(), PollFlags::POLLIN, deadline)?;
        match recv(socket.as_fd().as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT) {
            // EIO is the kernel's word for a TLS record that is not data: the other side's farewell.
            Ok(0) | Err(Errno::EIO) => return Err(Error::Closed),
            Ok(n) => return Ok(n),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(errno) => return Err(Error::Io(errno.into())),
        }
    }
}

/// The first byte, which stays to be read.
pub(crate) fn peek(socket: impl AsFd, deadline: Deadline) -> Result<u8, Error> {
    let mut first = [0];
    loop {
        wait(socket.as_fd(), PollFlags::POLLIN, deadline)?;
        match recv(socket.as_fd().as_raw_fd(), &mut first, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_PEEK) {
            Ok(0) => return Err(Error::Closed),
            Ok(_) => return Ok(first[0]),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(errno) => return Err(Error::Io(errno.into())),
        }
    }
}

/// Writes all of it.
pub(crate) fn write_all(socket: impl AsFd, mut bytes: &[u8], deadline: Deadline) -> Result<(), Error> {
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    while !bytes.is_empty() {
        wait(socket.as_fd(), PollFlags::POLLOUT, deadline)?;
        match send(socket.as_fd().as_raw_fd(), bytes, flags) {
            Ok(n) => bytes = &bytes[n..],
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(errno) => return Err(Error::Io(errno.into())),
        }
    }
    Ok(())
}
