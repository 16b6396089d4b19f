//! The socket of an incoming migration: one question and one answer for each connection, each a line of JSON.
//!
//! Both ends check that the other is of the same user (root, in life), and neither reads more than
//! [`MESSAGE_LEN_MAX`] bytes or waits past its deadline.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Error, Handover, io_error};
use crate::ids::{DomId, VolumeId};

/// The longest question or answer, in bytes.
const MESSAGE_LEN_MAX: usize = 4096;
/// The most questions that one migration takes: some tries for each of a domain's disks.
const QUESTIONS_MAX: u32 = 256;
/// How long a program that has connected may take to say what it wants.
const QUESTION_WAIT_MAX: Duration = Duration::from_secs(2);

/// Who asks, and for which volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asker {
    /// The volume to be attached.
    pub volume: VolumeId,
    /// The domain that it is to be attached to.
    pub domid: DomId,
    /// That domain's name at this moment.
    pub domain: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Answer {
    Granted(Handover),
    Refused(String),
}

/// Why a volume is not to be attached.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The domain is being moved away from this host.
    #[error("Domain {name} is being moved away from this host (migration {id})")]
    Leaving {
        /// The domain.
        name: String,
        /// The migration.
        id: Uuid,
    },
    /// The migration said no.
    #[error("The migration refused: {reason}")]
    Refused {
        /// What it said.
        reason: String,
    },
    /// The migration did not say anything until the deadline, or ended.
    #[error("The migration gave no answer")]
    NoAnswer(#[source] io::Error),
}

/// The listening end, held by the migration's process.
#[derive(Debug)]
pub(super) struct Door {
    listener: UnixListener,
    path: PathBuf,
    questions: u32,
}

impl Door {
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        drop(fs::remove_file(path)); // left by a process that died before its record was there
        let listener = UnixListener::bind(path).map_err(io_error(path))?;
        listener.set_nonblocking(true).map_err(io_error(path))?;
        Ok(Self { listener, path: path.to_owned(), questions: 0 })
    }

    /// The next well-formed question of a program that may ask.
    pub(super) fn next_request(&mut self, deadline: Instant) -> Result<Option<Request>, Error> {
        while wait_readable(self.listener.as_fd(), deadline).map_err(io_error(&self.path))? {
            self.questions += 1;
            if self.questions > QUESTIONS_MAX {
                return Err(io_error(&self.path)(io::Error::other("too many questions")));
            }
            match self.listener.accept().and_then(|(stream, _)| Request::receive(stream)) {
                Ok(request) => return Ok(Some(request)),
                Err(error) => tracing::warn!(%error, "question of a hotplug program dropped"),
            }
        }
        Ok(None)
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.path)); // a stale record's cleaning may have come first
    }
}

/// One question, waiting for its answer. Dropped without one, the program that asks is told that there is none.
#[derive(Debug)]
#[must_use = "a hotplug program waits for the answer, and libxl for the program"]
pub struct Request {
    asker: Asker,
    stream: UnixStream,
}

impl Request {
    fn receive(mut stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(false)?;
        check_peer(&stream)?;
        let asker = read_message(&mut stream, Instant::now() + QUESTION_WAIT_MAX)?;
        Ok(Self { asker, stream })
    }

    /// Who asks, and for which volume.
    #[must_use]
    pub fn asker(&self) -> &Asker {
        &self.asker
    }

    /// Lets the volume be attached, by the given handover.
    pub fn grant(self, handover: Handover) {
        self.answer(&Answer::Granted(handover));
    }

    /// Refuses, with a reason that the person who looks will read.
    pub fn refuse(self, reason: &str) {
        self.answer(&Answer::Refused(reason.chars().take(MESSAGE_LEN_MAX / 8).collect()));
    }

    /// A program that has gone meanwhile has no use for the answer.
    fn answer(mut self, answer: &Answer) {
        if let Err(error) = write_message(&mut self.stream, answer) {
            tracing::warn!(volume = %self.asker.volume, %error, "answer to a hotplug program lost");
        }
    }
}

/// Asks the migration behind `socket`.
pub(super) fn ask(socket: &Path, asker: &Asker, deadline: Instant) -> Result<Handover, Refusal> {
    let answer = exchange(socket, asker, deadline).map_err(Refusal::NoAnswer)?;
    match answer {
        Answer::Granted(handover) => Ok(handover),
        Answer::Refused(reason) => Err(Refusal::Refused { reason }),
    }
}

fn exchange(socket: &Path, asker: &Asker, deadline: Instant) -> io::Result<Answer> {
    let mut stream = UnixStream::connect(socket)?;
    check_peer(&stream)?;
    write_message(&mut stream, asker)?;
    read_message(&mut stream, deadline)
}

/// Only the user that we are ourselves may ask or answer.
fn check_peer(stream: &UnixStream) -> io::Result<()> {
    let peer = getsockopt(stream, PeerCredentials)?;
    if peer.uid() != geteuid().as_raw() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("peer is user {}", peer.uid())));
    }
    Ok(())
}

/// A message is far smaller than a socket's buffer: writing it does not wait.
fn write_message(stream: &mut UnixStream, message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    if line.len() > MESSAGE_LEN_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "message too long"));
    }
    stream.write_all(&line)
}

fn read_message<T: for<'de> Deserialize<'de>>(stream: &mut UnixStream, deadline: Instant) -> io::Result<T> {
    let mut buffer = [0; MESSAGE_LEN_MAX];
    let mut len = 0;
    while !buffer[..len].ends_with(b"\n") {
        if len == buffer.len() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "message too long"));
        }
        if !wait_readable(stream.as_fd(), deadline)? {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match stream.read(&mut buffer[len..])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            more => len += more,
        }
    }
    Ok(serde_json::from_slice(&buffer[..len])?)
}

/// Whether there is something to read (or an end to see) before the deadline.
fn wait_readable(fd: BorrowedFd<'_>, deadline: Instant) -> io::Result<bool> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // Rounded up: a wait that ends early would spin.
        let left_ms = left.as_micros().div_ceil(1000);
        let timeout = PollTimeout::try_from(left_ms).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Ok(0) if Instant::now() >= deadline => return Ok(false),
            Ok(0) | Err(nix::errno::Errno::EINTR) => {}
            Ok(_) => return Ok(true),
            Err(errno) => return Err(errno.into()),
        }
    }
}
