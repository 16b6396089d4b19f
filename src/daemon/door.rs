//! The daemon's side of what a worker and it say to each other: see [`super::worker`].

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use super::worker::{ADMITTED, BUSY, LINE_LEN_MAX, Word};

/// What has come of a worker.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// It has not said all yet.
    Nothing,
    /// Its word.
    Word(Word),
    /// What is none, or its end.
    Nonsense,
}

/// The way to a worker that has not said who its peer is.
#[derive(Debug)]
pub(super) struct Door {
    worker: UnixStream,
    heard: Vec<u8>,
}

impl Door {
    /// One end for the daemon, and one to be the worker's standard output.
    pub(super) fn pair() -> io::Result<(Door, OwnedFd)> {
        let (worker, theirs) = UnixStream::pair()?;
        worker.set_nonblocking(true)?;
        Ok((Door { worker, heard: Vec::new() }, theirs.into()))
    }

    /// Reads what is there, up to a line's length.
    pub(super) fn hear(&mut self) -> Heard {
        let mut buffer = [0; LINE_LEN_MAX];
        let room = LINE_LEN_MAX - self.heard.len();
        match self.worker.read(&mut buffer[..room]) {
            Ok(0) => Heard::Nonsense,
            Ok(len) => {
                self.heard.extend(&buffer[..len]);
                self.line()
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                Heard::Nothing
            }
            Err(_) => Heard::Nonsense,
        }
    }

    fn line(&self) -> Heard {
        match self.heard.iter().position(|byte| *byte == b'\n') {
            Some(end) => Word::parse(&self.heard[..end]).map_or(Heard::Nonsense, Heard::Word),
            None if self.heard.len() >= LINE_LEN_MAX => Heard::Nonsense,
            None => Heard::Nothing,
        }
    }

    /// Lets the session begin, or has the worker turn its peer away. It is the last that the two say to each other.
    pub(super) fn answer(mut self, admitted: bool) -> io::Result<()> {
        self.worker.write_all(if admitted { ADMITTED } else { BUSY })
    }
}

impl AsFd for Door {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.worker.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(pieces: &[&[u8]]) -> Heard {
        let (mut door, worker) = Door::pair().expect("a pair");
        let mut worker = UnixStream::from(worker);
        let mut heard = Heard::Nothing;
        for piece in pieces {
            worker.write_all(piece).expect("written");
            heard = door.hear();
        }
        heard
    }

    #[test]
    fn a_word_may_come_in_pieces() {
        assert_eq!(said(&[b"authen", b"ticated node2"]), Heard::Nothing);
        assert_eq!(said(&[b"authen", b"ticated node2\n"]), Heard::Word(Word::Authenticated("node2".into())));
    }

    #[test]
    fn a_line_without_end_and_a_closed_door_are_nonsense() {
        assert_eq!(said(&[&[b'x'; LINE_LEN_MAX]]), Heard::Nonsense);
        let (mut door, worker) = Door::pair().expect("a pair");
        drop(worker);
        assert_eq!(door.hear(), Heard::Nonsense);
    }
}
