//! Xenstore, by libxenstore: read, write, transactions, and waiting for a change with a deadline.
//!
//! A hotplug program links this and nothing else of Xen. Calls are short round trips to the xenstore daemon and have no
//! limit of their own: when the daemon hangs, dom0 hangs.

use std::ffi::{CStr, CString, c_char, c_void};
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use xen_sys as sys;

pub use self::transaction::Transaction;

mod transaction;

/// How often a transaction is tried again when others change what it has read. Dozens of conflicts in a row mean a daemon in trouble.
pub const TRANSACTION_TRIES_MAX: u32 = 100;

/// A connection to the xenstore daemon. Threads may share it (xs.c locks each request), but one thread at a time may wait for
/// watches: an event goes to whoever asks first.
#[derive(Debug)]
pub struct Xenstore(NonNull<sys::xs_handle>);

// SAFETY: libxenstore is built with threads and takes its own locks around requests and the watch queue (tools/libs/store/xs.c, struct xs_handle).
unsafe impl Send for Xenstore {}
// SAFETY: as for Send.
unsafe impl Sync for Xenstore {}

/// Xenstore refused, or is not there.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection: the daemon does not run, or this is not a Xen host.
    #[error("Xenstore cannot be opened")]
    Open {
        /// What the last attempt ran into.
        #[source]
        errno: Errno,
    },
    /// A request failed.
    #[error("Xenstore {operation} of {path} failed")]
    Request {
        /// The operation, as one word.
        operation: &'static str,
        /// What it was about.
        path: String,
        /// What the daemon answered.
        #[source]
        errno: Errno,
    },
    /// Others kept changing what the transaction had read.
    #[error("Xenstore transaction met a conflict {TRANSACTION_TRIES_MAX} times")]
    Conflict,
    /// A path or value that cannot be sent because of a NUL byte in it.
    #[error("Xenstore path {path:?} contains a NUL byte")]
    Nul {
        /// The path.
        path: String,
    },
}

impl Error {
    /// The errno that the daemon answered, where there is one.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Open { errno } | Self::Request { errno, .. } => Some(*errno),
            Self::Conflict | Self::Nul { .. } => None,
        }
    }
}

type Result<T> = std::result::Result<T, Error>;

/// A watch that has fired. Each watch fires once right after it was set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchEvent {
    /// The node that changed: the watched path or something below it.
    pub path: String,
    /// What the watch was set with.
    pub token: String,
}

impl Xenstore {
    /// Connects to the daemon of this host.
    ///
    /// # Errors
    /// [`Error::Open`] when there is none.
    pub fn open() -> Result<Self> {
        // SAFETY: no pointers in (xenstore.h, xs_open); the result is closed by Drop.
        let handle = unsafe { sys::xs_open(0) };
        NonNull::new(handle).map(Self).ok_or_else(|| Error::Open { errno: Errno::last() })
    }

    /// The value of a node, or `None` when there is no such node. Bytes that are not UTF-8 are replaced.
    ///
    /// # Errors
    /// [`Error::Request`] for anything but a missing node.
    pub fn read(&self, path: &str) -> Result<Option<String>> {
        self.outside().read(path)
    }

    /// Sets the value of a node, making it and its parents where they are missing.
    ///
    /// # Errors
    /// [`Error::Request`].
    pub fn write(&self, path: &str, value: &str) -> Result<()> {
        self.outside().write(path, value)
    }

    /// Makes an empty node; nothing happens when it exists.
    ///
    /// # Errors
    /// [`Error::Request`].
    pub fn mkdir(&self, path: &str) -> Result<()> {
        self.outside().mkdir(path)
    }

    /// Removes a node and all below it; nothing happens when it is missing.
    ///
    /// # Errors
    /// [`Error::Request`].
    pub fn rm(&self, path: &str) -> Result<()> {
        self.outside().rm(path)
    }

    /// The names of a node's children; none when the node is missing.
    ///
    /// # Errors
    /// [`Error::Request`] for anything but a missing node.
    pub fn directory(&self, path: &str) -> Result<Vec<String>> {
        self.outside().directory(path)
    }

    /// Runs `body` in a transaction and commits it when it returns `Ok`, else drops all it did. `body` is run again, from the
    /// start, when somebody has changed in the meantime what it had read.
    ///
    /// # Errors
    /// What `body` returns; [`Error::Conflict`] after [`TRANSACTION_TRIES_MAX`] tries.
    pub fn transaction<T, E: From<Error>>(
        &self,
        mut body: impl FnMut(&Transaction<'_>) -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        for _ in 0..TRANSACTION_TRIES_MAX {
            let transaction = Transaction::begin(self)?;
            let result = body(&transaction);
            match (transaction.end(result.is_ok()), result) {
                (_, Err(error)) => return Err(error),
                (Ok(()), Ok(value)) => return Ok(value),
                (Err(Errno::EAGAIN), Ok(_)) => {}
                (Err(errno), Ok(_)) => return Err(request("transaction", "/", errno).into()),
            }
        }
        Err(Error::Conflict.into())
    }

    /// Sets a watch on a node and all below it. `token` comes back with each event.
    ///
    /// # Errors
    /// [`Error::Request`], with `EEXIST` when the same watch is set already.
    pub fn watch(&self, path: &str, token: &str) -> Result<()> {
        let (c_path, c_token) = (c_string(path)?, c_string(token)?);
        // SAFETY: the handle is open while self lives; both strings are NUL-terminated and only read (xenstore.h, xs_watch).
        let done = unsafe { sys::xs_watch(self.0.as_ptr(), c_path.as_ptr(), c_token.as_ptr()) };
        check_errno(done, "watch", path)
    }

    /// Removes a watch. Events that had fired before may still come.
    ///
    /// # Errors
    /// [`Error::Request`], with `ENOENT` when there is no such watch.
    pub fn unwatch(&self, path: &str, token: &str) -> Result<()> {
        let (c_path, c_token) = (c_string(path)?, c_string(token)?);
        // SAFETY: as in watch (xenstore.h, xs_unwatch).
        let done = unsafe { sys::xs_unwatch(self.0.as_ptr(), c_path.as_ptr(), c_token.as_ptr()) };
        check_errno(done, "unwatch", path)
    }

    /// Waits for the next watch to fire; `None` when the deadline passes first.
    ///
    /// # Errors
    /// [`Error::Request`] when the connection is lost.
    pub fn wait(&self, deadline: Instant) -> Result<Option<WatchEvent>> {
        loop {
            if let Some(event) = self.next_event()? {
                return Ok(Some(event));
            }
            if !self.poll(deadline)? {
                return Ok(None);
            }
        }
    }

    /// Waits until `look` finds what it looks for, looking again whenever something at or below one of `paths` changes. `None` when the
    /// deadline passes first. Must not run beside another wait on the same connection.
    ///
    /// # Errors
    /// What `look` returns; [`Error::Request`].
    pub fn wait_until<T, E: From<Error>>(
        &self,
        paths: &[&str],
        deadline: Instant,
        look: impl FnMut(&Self) -> std::result::Result<Option<T>, E>,
    ) -> std::result::Result<Option<T>, E> {
        let token = format!("bascule-wait-{:p}", std::ptr::from_ref(&deadline));
        let set = paths.iter().map(|path| Watching::new(self, path, &token)).collect::<Result<Vec<_>>>()?;
        let found = self.look_until(deadline, look);
        drop(set);
        found
    }

    fn look_until<T, E: From<Error>>(
        &self,
        deadline: Instant,
        mut look: impl FnMut(&Self) -> std::result::Result<Option<T>, E>,
    ) -> std::result::Result<Option<T>, E> {
        loop {
            if let Some(found) = look(self)? {
                return Ok(Some(found));
            }
            if self.wait(deadline)?.is_none() {
                return Ok(None);
            }
        }
    }

    /// The next watch that has fired already.
    pub(super) fn next_event(&self) -> Result<Option<WatchEvent>> {
        // SAFETY: the handle is open while self lives; the result is one malloc'd block, freed below (xenstore.h, xs_check_watch).
        let strings = unsafe { sys::xs_check_watch(self.0.as_ptr()) };
        let Some(strings) = Malloced::new(strings) else {
            return match Errno::last() {
                Errno::EAGAIN => Ok(None),
                errno => Err(request("wait", "watches", errno)),
            };
        };
        // SAFETY: on success [0] is the path and [1] the token, both valid C strings inside the block (xenstore.h).
        let [path, token] = unsafe { strings.0.cast::<[*const c_char; 2]>().read() };
        Ok(Some(WatchEvent { path: text(path), token: text(token) }))
    }

    /// Readable when a watch may have fired.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the handle is open while self lives (xenstore.h, xs_fileno).
        let fd = unsafe { sys::xs_fileno(self.0.as_ptr()) };
        // SAFETY: the descriptor is the handle's own pipe and stays open while self is borrowed (xs.c, watch_pipe).
        unsafe { BorrowedFd::borrow_raw(fd) }
    }

    /// Waits until a watch may have fired; false when the deadline has passed.
    fn poll(&self, deadline: Instant) -> Result<bool> {
        let mut fds = [PollFd::new(self.fd(), PollFlags::POLLIN)];
        let left = deadline.saturating_duration_since(Instant::now());
        let left = PollTimeout::try_from(left.as_millis().saturating_add(1)).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, left) {
            Ok(0) => Ok(Instant::now() < deadline),
            Ok(_) | Err(Errno::EINTR) => Ok(true),
            Err(errno) => Err(request("wait", "watches", errno)),
        }
    }

    /// What a request outside of any transaction is made with.
    fn outside(&self) -> Transaction<'_> {
        Transaction::none(self)
    }
}

impl Drop for Xenstore {
    fn drop(&mut self) {
        // SAFETY: open returned it and nothing else closes it (xenstore.h, xs_close).
        unsafe { sys::xs_close(self.0.as_ptr()) }
    }
}

/// One watch, removed when it goes.
struct Watching<'a> {
    xenstore: &'a Xenstore,
    path: &'a str,
    token: &'a str,
}

impl<'a> Watching<'a> {
    fn new(xenstore: &'a Xenstore, path: &'a str, token: &'a str) -> Result<Self> {
        xenstore.watch(path, token)?;
        Ok(Self { xenstore, path, token })
    }
}

impl Drop for Watching<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.xenstore.unwatch(self.path, self.token) {
            tracing::debug!(path = self.path, %error, "watch not removed");
        }
    }
}

/// A block that C allocated for us.
struct Malloced(NonNull<c_void>);

impl Malloced {
    fn new<T>(pointer: *mut T) -> Option<Self> {
        NonNull::new(pointer.cast()).map(Self)
    }
}

impl Drop for Malloced {
    fn drop(&mut self) {
        // SAFETY: libxenstore's results are malloc'd and ours to free, once (xenstore.h).
        unsafe { libc::free(self.0.as_ptr()) }
    }
}

/// Xenstore's convention: false, and errno says why.
fn check_errno(done: bool, operation: &'static str, path: &str) -> Result<()> {
    if done { Ok(()) } else { Err(request(operation, path, Errno::last())) }
}

fn request(operation: &'static str, path: &str, errno: Errno) -> Error {
    Error::Request { operation, path: path.to_owned(), errno }
}

fn c_string(path: &str) -> Result<CString> {
    CString::new(path).map_err(|_| Error::Nul { path: path.to_owned() })
}

/// A C string inside a block that lives on.
fn text(pointer: *const c_char) -> String {
    // SAFETY: callers pass pointers that libxenstore documents as valid C strings (xenstore.h).
    let string = unsafe { CStr::from_ptr(pointer) };
    string.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests;
