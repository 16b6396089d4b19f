//! What must be so before libxl may touch a stream: libxl calls through a null pointer when a save or restore fails or is
//! aborted before its helper has been started (libxl_save_callout.c, helper_stop to helper_done; 4.17 to 4.22, tried on
//! 4.17). So a receiver that is gone, a stream that never begins, and an early abort are dealt with here.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv};
use nix::sys::uio::pread;
use nix::unistd::{Whence, lseek};

use super::error::{Error, Result};

/// The header of a libxl stream and that of its first record (docs/specs/libxl-migration-stream).
const BEGIN_BYTES: usize = 24;
/// "LibxlFmt", then version 2, both big endian.
const IDENT_AND_VERSION: [u8; 12] = *b"LibxlFmt\0\0\0\x02";
/// The type of the first record, `LIBXC_CONTEXT`, after the header's options; on x86 in little endian.
const LIBXC_CONTEXT: [u8; 4] = 1u32.to_le_bytes();
/// Between two looks while the first bytes trickle in.
const TRICKLE: Duration = Duration::from_millis(1);

/// Waits until the first bytes can be written at once.
pub(super) fn wait_writable(fd: BorrowedFd<'_>, abort: BorrowedFd<'_>) -> Result<()> {
    match wait(fd, PollFlags::POLLOUT, abort)? {
        seen if seen.intersects(PollFlags::POLLERR | PollFlags::POLLHUP) => refused("its receiver is gone"),
        _ => Ok(()),
    }
}

/// Waits until a stream that libxl can read has begun, and leaves all of it unread. What is neither socket nor file, a pipe, cannot be looked
/// into, and is taken as it is.
pub(super) fn wait_begun(fd: BorrowedFd<'_>, abort: BorrowedFd<'_>) -> Result<()> {
    let mut begin = [0; BEGIN_BYTES];
    loop {
        wait(fd, PollFlags::POLLIN, abort)?;
        match recv(fd.as_raw_fd(), &mut begin, MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT) {
            Ok(BEGIN_BYTES) => return check(&begin),
            Ok(0) => return refused("it ended before it began"),
            Ok(_) => thread::sleep(TRICKLE),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(Errno::ENOTSOCK) => return check_file(fd),
            Err(errno) => return Err(Error::Wait(errno.into())),
        }
    }
}

/// A file has all that it will ever have.
fn check_file(fd: BorrowedFd<'_>) -> Result<()> {
    let Ok(at) = lseek(fd, 0, Whence::SeekCur) else { return Ok(()) };
    let mut begin = [0; BEGIN_BYTES];
    match pread(fd, &mut begin, at) {
        Ok(BEGIN_BYTES) => check(&begin),
        Ok(_) => refused("it ended before it began"),
        Err(errno) => Err(Error::Wait(errno.into())),
    }
}

fn check(begin: &[u8; BEGIN_BYTES]) -> Result<()> {
    if begin[..12] != IDENT_AND_VERSION {
        return refused("it is no libxl stream of version 2");
    }
    if begin[16..20] != LIBXC_CONTEXT {
        return refused("it does not begin with a domain's memory");
    }
    Ok(())
}

fn wait(fd: BorrowedFd<'_>, wanted: PollFlags, abort: BorrowedFd<'_>) -> Result<PollFlags> {
    loop {
        let mut fds = [PollFd::new(fd, wanted), PollFd::new(abort.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) if fds[1].any().unwrap_or(true) => return refused("it was aborted before it began"),
            Ok(_) => return Ok(fds[0].revents().unwrap_or(wanted)),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(Error::Wait(errno.into())),
        }
    }
}

fn refused<T>(reason: &'static str) -> Result<T> {
    Err(Error::Stream { reason })
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Seek, SeekFrom, Write, pipe};
    use std::os::unix::net::UnixStream;

    use super::*;

    const GOOD: &[u8; BEGIN_BYTES] = b"LibxlFmt\0\0\0\x02\0\0\0\0\x01\0\0\0\0\0\0\0";

    fn begun(bytes: &[u8]) -> Result<()> {
        let ((abort, _writer), (mut sender, receiver)) = (pipe().expect("pipe"), UnixStream::pair().expect("pair"));
        sender.write_all(bytes).expect("write");
        drop(sender);
        wait_begun(receiver.as_fd(), abort.as_fd())
    }

    #[test]
    fn a_stream_that_has_begun_is_left_unread() {
        let ((abort, _writer), (mut sender, mut receiver)) = (pipe().expect("pipe"), UnixStream::pair().expect("pair"));
        let trickle = thread::spawn(move || {
            for byte in GOOD {
                sender.write_all(&[*byte]).expect("write");
                thread::sleep(Duration::from_micros(300));
            }
            sender
        });
        wait_begun(receiver.as_fd(), abort.as_fd()).expect("begun");
        let mut read = [0; BEGIN_BYTES];
        receiver.read_exact(&mut read).expect("read");
        assert_eq!(&read, GOOD);
        drop(trickle.join());
    }

    #[test]
    fn what_libxl_would_stumble_over_is_refused() {
        assert!(begun(GOOD).is_ok());
        let mut other_version = *GOOD;
        other_version[11] = 3;
        let mut no_memory = *GOOD;
        no_memory[16] = 0;
        let rows: [(&[u8], &str); 4] = [
            (b"", "ended before"),
            (b"xend's S-expressions of old", "no libxl stream"),
            (&other_version, "no libxl stream"),
            (&no_memory, "does not begin"),
        ];
        for (bytes, reason) in rows {
            assert!(begun(bytes).expect_err(reason).to_string().contains(reason));
        }
    }

    #[test]
    fn a_file_is_looked_into_where_it_stands() {
        let (abort, _writer) = pipe().expect("pipe");
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(b"a header").expect("write");
        file.write_all(GOOD).expect("write");
        let begins = |file: &mut File, at| {
            file.seek(SeekFrom::Start(at)).expect("seek");
            wait_begun(file.as_fd(), abort.as_fd())
        };
        begins(&mut file, 8).expect("begun");
        assert_eq!(file.stream_position().expect("a position"), 8);
        assert!(begins(&mut file, 9).expect_err("cut").to_string().contains("ended before"));
        assert!(begins(&mut file, 0).expect_err("other").to_string().contains("no libxl stream"));
    }

    #[test]
    fn an_abort_ends_the_wait() {
        let ((abort, mut writer), (_sender, receiver)) = (pipe().expect("pipe"), UnixStream::pair().expect("pair"));
        writer.write_all(b"a").expect("write");
        assert!(wait_begun(receiver.as_fd(), abort.as_fd()).expect_err("aborted").to_string().contains("aborted"));
        assert!(wait_writable(receiver.as_fd(), abort.as_fd()).expect_err("aborted").to_string().contains("aborted"));
    }

    #[test]
    fn a_receiver_that_is_gone_is_noticed() {
        let ((abort, _writer), (sender, receiver)) = (pipe().expect("pipe"), UnixStream::pair().expect("pair"));
        wait_writable(sender.as_fd(), abort.as_fd()).expect("writable");
        drop(receiver);
        assert!(wait_writable(sender.as_fd(), abort.as_fd()).expect_err("gone").to_string().contains("gone"));
    }
}
