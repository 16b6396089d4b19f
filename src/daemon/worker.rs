//! The worker's side of what it and the daemon say to each other, and what holds it in until its peer is known.
//!
//! A worker's standard output is a socket to its daemon. On it the worker says one line, once: `authenticated NAME`, `refused WHY`, or
//! `served WHAT` for who wanted no session; to the first the daemon answers `admitted` or `busy`. So nobody is told how busy this host is before it has proved who it is, and the
//! log has one line for each stranger. Until then the worker has no way to Xen or DRBD, which the caller sees to by opening them afterwards,
//! and lives within bounds that an honest handshake never meets; a worker that takes too long is killed by the daemon.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};
use nix::unistd::dup2_stdout;

/// The longest line that a worker says, in bytes, with its end.
pub(super) const LINE_LEN_MAX: usize = 512;
/// What the daemon answers to a peer's name.
pub(super) const ADMITTED: &[u8] = b"admitted\n";
/// The same when there are too many sessions.
pub(super) const BUSY: &[u8] = b"busy\n";
const AUTHENTICATED: &str = "authenticated ";
const REFUSED: &str = "refused ";
const SERVED: &str = "served ";
/// How long the daemon may take to answer: it looks many times a second.
const ANSWER_WAIT: Duration = Duration::from_secs(20);

/// What a worker is held to until its peer is known. The memory is what it may write to: TLS takes a fraction of it, and libxl, which
/// needs eight bytes for each page of a guest, comes later. No core file: it would hold this host's key, and strangers could fill the disk.
const BOUNDS: [(Resource, rlim_t); 3] =
    [(Resource::RLIMIT_CORE, 0), (Resource::RLIMIT_DATA, 128 << 20), (Resource::RLIMIT_NOFILE, 64)];

/// Why a peer that is known has no session.
#[derive(Debug, thiserror::Error)]
pub enum NotAdmitted {
    /// There are as many as there may be. The peer may be told.
    #[error("It has as many sessions as it may")]
    Busy,
    /// The daemon is gone, or does not answer.
    #[error("The daemon does not answer its worker")]
    NoAnswer(#[source] io::Error),
}

/// A worker whose peer is not known yet.
#[derive(Debug)]
pub struct Unauthenticated {
    daemon: UnixStream,
    before: Vec<(Resource, rlim_t)>,
}

impl Unauthenticated {
    /// The first thing that a worker does.
    ///
    /// # Errors
    /// Standard output leads to no daemon, or the system refuses a bound.
    pub fn begin() -> io::Result<Unauthenticated> {
        let daemon = UnixStream::from(io::stdout().as_fd().try_clone_to_owned()?);
        if daemon.peer_addr().is_err() {
            return Err(io::Error::other("standard output is no daemon: sessions are started by bascule serve"));
        }
        daemon.set_read_timeout(Some(ANSWER_WAIT))?;
        daemon.set_write_timeout(Some(ANSWER_WAIT))?;
        Ok(Unauthenticated { daemon, before: BOUNDS.into_iter().map(lower).collect::<Result<_, _>>()? })
    }

    /// The peer has proved that it is `name`. From here on the worker may have what it needs; what is written to standard output
    /// goes to the log.
    ///
    /// # Errors
    /// [`NotAdmitted`].
    pub fn authenticated(self, name: &str) -> Result<(), NotAdmitted> {
        self.say(AUTHENTICATED, name).map_err(NotAdmitted::NoAnswer)?;
        if !self.is_admitted().map_err(NotAdmitted::NoAnswer)? {
            return Err(NotAdmitted::Busy);
        }
        self.release().map_err(NotAdmitted::NoAnswer)
    }

    /// The peer has not proved who it is: the daemon logs why, and the worker has nothing more to say.
    pub fn refused(self, why: &str) {
        // A daemon that is gone has no use for it.
        let _ = self.say(REFUSED, why);
    }

    /// The peer has had what it wanted, which was no session.
    pub fn served(self, what: &str) {
        let _ = self.say(SERVED, what);
    }

    fn say(&self, word: &str, what: &str) -> io::Result<()> {
        let line = format!("{word}{}\n", in_one_line(what, LINE_LEN_MAX - word.len() - 1));
        (&self.daemon).write_all(line.as_bytes())
    }

    fn is_admitted(&self) -> io::Result<bool> {
        let mut answer = Vec::new();
        (&self.daemon).take(LINE_LEN_MAX as u64).read_to_end(&mut answer)?;
        match answer {
            said if said == ADMITTED => Ok(true),
            said if said == BUSY => Ok(false),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn release(self) -> io::Result<()> {
        for (resource, soft) in self.before {
            setrlimit(resource, soft, getrlimit(resource)?.1)?;
        }
        Ok(dup2_stdout(io::stderr())?)
    }
}

/// Lowers a bound that can be raised again; gives what it was.
fn lower((resource, bound): (Resource, rlim_t)) -> nix::Result<(Resource, rlim_t)> {
    let (soft, hard) = getrlimit(resource)?;
    setrlimit(resource, soft.min(bound), hard)?;
    Ok((resource, soft))
}

/// What a worker has said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// Who the peer is.
    Authenticated(String),
    /// Why it is nobody.
    Refused(String),
    /// What it has had.
    Served(String),
}

impl Word {
    /// A line without its end; `None` when it is none of ours.
    pub(super) fn parse(line: &[u8]) -> Option<Word> {
        let line = std::str::from_utf8(line).ok()?;
        let after = |word| line.strip_prefix(word).map(|what| in_one_line(what, LINE_LEN_MAX));
        let authenticated = after(AUTHENTICATED).map(Word::Authenticated);
        authenticated.or_else(|| after(REFUSED).map(Word::Refused)).or_else(|| after(SERVED).map(Word::Served))
    }
}

/// Without what would end a line or move a cursor, and no longer than so many bytes.
fn in_one_line(text: &str, len_max: usize) -> String {
    let mut line: String = text.chars().map(|char| if char.is_control() { ' ' } else { char }).collect();
    while line.len() > len_max {
        line.pop();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_word_or_nothing() {
        assert_eq!(Word::parse(b"authenticated node2"), Some(Word::Authenticated("node2".into())));
        assert_eq!(Word::parse(b"refused a\x1b[2Jb"), Some(Word::Refused("a [2Jb".into())));
        assert_eq!(Word::parse(b"served paired"), Some(Word::Served("paired".into())));
        for nothing in [&b""[..], b"authenticated", b"admitted", b"refused \xff"] {
            assert_eq!(Word::parse(nothing), None);
        }
    }

    #[test]
    fn what_is_said_fits_in_a_line() {
        assert_eq!(in_one_line("a\nb\r\tc", 80), "a b  c");
        assert_eq!(in_one_line(&"ä".repeat(400), LINE_LEN_MAX).len(), LINE_LEN_MAX);
        assert_eq!(in_one_line("xä", 2), "x");
    }
}
