//! Terminals: a domain's, a person's while he types into it, and the lock that makes a console one person's.

use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::fcntl::{Flock, OFlag};
use nix::sys::termios::{self, SetArg, Termios};

use crate::admission;
use crate::ids::DomId;

/// Where xenconsole keeps others from a console that it has (`XEN_LOCK_DIR`).
const LOCK_DIR: &str = "/var/lock";

/// Not waiting for a carrier, not as our controlling terminal, and with nothing done to what passes.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_NOCTTY | OFlag::O_NONBLOCK;
    let tty = File::options().read(true).write(true).custom_flags(flags.bits()).open(path)?;
    if let Ok(mut modes) = termios::tcgetattr(&tty) {
        termios::cfmakeraw(&mut modes);
        termios::tcsetattr(&tty, SetArg::TCSANOW, &modes)?;
    }
    Ok(tty)
}

/// A person's terminal in raw mode, until this is dropped.
#[derive(Debug)]
pub struct Raw<'a> {
    terminal: BorrowedFd<'a>,
    modes: Termios,
}

impl Raw<'_> {
    /// Makes a terminal raw; `None` where it is none.
    #[must_use]
    pub fn new(terminal: BorrowedFd<'_>) -> Option<Raw<'_>> {
        let modes = termios::tcgetattr(terminal).ok()?;
        let mut raw = modes.clone();
        termios::cfmakeraw(&mut raw);
        termios::tcsetattr(terminal, SetArg::TCSANOW, &raw).ok()?;
        Some(Raw { terminal, modes })
    }
}

impl Drop for Raw<'_> {
    fn drop(&mut self) {
        if let Err(error) = termios::tcsetattr(self.terminal, SetArg::TCSADRAIN, &self.modes) {
            tracing::warn!(%error, "the terminal is not as it was: reset");
        }
    }
}

/// A domain's consoles are somebody's, ours or xenconsole's: two who read would each get a part.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    _lock: Option<Flock<File>>,
}

impl Lock {
    /// Takes it, or `None` while another has it.
    ///
    /// # Errors
    /// The file cannot be used.
    pub fn take(domid: DomId) -> Result<Option<Lock>, admission::Error> {
        Lock::take_in(Path::new(LOCK_DIR), domid)
    }

    fn take_in(dir: &Path, domid: DomId) -> Result<Option<Lock>, admission::Error> {
        let path = dir.join(format!("xenconsole.{domid}"));
        if !dir.is_dir() {
            return Ok(Some(Lock { path, _lock: None }));
        }
        Ok(admission::lock_file(&path, Instant::now())?.map(|lock| Lock { path, _lock: Some(lock) }))
    }
}

/// As xenconsole does, while it is still locked.
impl Drop for Lock {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.path));
    }
}
#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use nix::pty::openpty;

    use super::*;

    #[test]
    fn a_persons_terminal_is_put_back_also_by_a_panic() {
        let pair = openpty(None, None).expect("a terminal");
        let slave = pair.slave;
        let modes = || termios::tcgetattr(&slave).expect("modes").local_flags;
        let before = modes();
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _raw = Raw::new(slave.as_fd()).expect("a terminal");
            assert_ne!(modes(), before);
            std::panic::resume_unwind(Box::new(()));
        }));
        assert!(panicked.is_err());
        assert_eq!(modes(), before);
        assert!(Raw::new(File::open("/dev/null").expect("null").as_fd()).is_none());
    }

    #[test]
    fn a_console_is_one_persons() {
        let dir = tempfile::tempdir().expect("a directory");
        let lock = Lock::take_in(dir.path(), DomId(5)).expect("a lock");
        assert!(lock.is_some() && Lock::take_in(dir.path(), DomId(5)).expect("a look").is_none());
        assert!(Lock::take_in(dir.path(), DomId(6)).expect("another's").is_some());
        drop(lock);
        assert!(Lock::take_in(dir.path(), DomId(5)).expect("free again").is_some());
        assert!(Lock::take_in(Path::new("/nowhere"), DomId(5)).expect("no directory").is_some());
    }
}
