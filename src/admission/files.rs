//! The records as files: made visible and locked in one moment, read with what their locks tell, and the locks beside them.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use uuid::Uuid;

use super::{Entry, Error};
use crate::abandoned::Charge;
use crate::wait::poll_until;

/// The longest record that is read, in bytes: some hundred volumes.
const RECORD_LEN_MAX: u64 = 64 * 1024;
/// How long to wait for another process that opens a record.
const OPEN_WAIT_MAX: Duration = Duration::from_secs(5);

pub(super) fn record_paths(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let listing = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listing => listing.map_err(io_error(dir))?,
    };
    Ok(listing.flatten().map(|entry| entry.path()).filter(|path| is_record(path)).collect())
}

/// A record, by who holds it.
pub(super) enum Found {
    /// Its process lives.
    Live(Entry),
    /// Its process is gone, and something is left to do.
    Abandoned(Entry),
    /// Its process is gone, or the record is.
    Stale,
}

impl Found {
    pub(super) fn abandoned(self) -> Option<Entry> {
        match self {
            Self::Abandoned(entry) => Some(entry),
            Self::Live(_) | Self::Stale => None,
        }
    }
}

/// Reads a record. A shared lock tells who holds it: readers do not stand in each other's way.
pub(super) fn read(path: &Path) -> Result<Found, Error> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Stale),
        file => file.map_err(io_error(path))?,
    };
    match Flock::lock(file, FlockArg::LockSharedNonblock) {
        Ok(file) => Ok(match parse(path, &file) {
            Ok(entry) if entry.charge.as_ref().is_some_and(Charge::counts) => Found::Abandoned(entry),
            _ => Found::Stale,
        }),
        Err((file, Errno::EWOULDBLOCK)) => parse(path, &file).map(Found::Live),
        Err((_, errno)) => Err(io_error(path)(errno.into())),
    }
}

fn parse(path: &Path, file: &File) -> Result<Entry, Error> {
    let reader = io::Read::take(file, RECORD_LEN_MAX);
    serde_json::from_reader(reader).map_err(|source| Error::Malformed { path: path.to_owned(), source })
}

pub(super) fn remove_stale(path: &Path) {
    tracing::warn!(path = %path.display(), "stale migration record removed");
    for leftover in [path.to_owned(), path.with_extension("sock")] {
        drop(fs::remove_file(leftover)); // gone already, or the next open tries again
    }
}

/// Makes the record visible, locked and complete at once: it is written under another name, and the lock moves with it.
pub(super) fn publish(path: &Path, entry: &Entry) -> Result<Flock<File>, Error> {
    let draft = path.with_extension("new");
    let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&draft);
    let file = file.map_err(io_error(&draft))?;
    let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock);
    let lock = lock.map_err(|(_, errno)| io_error(&draft)(errno.into()))?;
    serde_json::to_writer(&*lock, entry).map_err(|source| io_error(&draft)(source.into()))?;
    fs::rename(&draft, path).map_err(io_error(path))?;
    Ok(lock)
}

/// Only root may look into the directory: who can write there decides what is attached.
pub(crate) fn make_dir(dir: &Path) -> Result<(), Error> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io_error(dir))
}

pub(super) fn lock_dir(dir: &Path) -> Result<Flock<File>, Error> {
    lock_file(&dir.join("lock"), Instant::now() + OPEN_WAIT_MAX)?.ok_or_else(|| Error::Locked { dir: dir.to_owned() })
}

/// The file whose lock ([`lock_file`]) serialises changes of a resource's attachment on this host. Its directory exists then.
///
/// # Errors
/// [`Error::Io`].
pub fn resource_lock(dir: &Path, resource: &str) -> Result<PathBuf, Error> {
    make_dir(dir)?;
    Ok(dir.join(format!("resource-{}.lock", resource.replace('/', "_"))))
}

/// Locks a file, made if it is missing, or `None` when another process holds it until `deadline`.
///
/// # Errors
/// [`Error::Io`].
pub fn lock_file(path: &Path, deadline: Instant) -> Result<Option<Flock<File>>, Error> {
    let mut options = File::options();
    let mut file =
        Some(options.write(true).create(true).truncate(false).mode(0o600).open(path).map_err(io_error(path))?);
    let locked = poll_until(deadline, || match Flock::lock(file.take()?, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Some(Ok(lock)),
        Err((again, Errno::EWOULDBLOCK)) => {
            file = Some(again);
            None
        }
        Err((_, errno)) => Some(Err(io_error(path)(errno.into()))),
    });
    locked.transpose()
}

pub(super) fn record_path(dir: &Path, id: Uuid) -> PathBuf {
    dir.join(format!("migration-{id}.json"))
}

pub(super) fn socket_path(dir: &Path, id: Uuid) -> PathBuf {
    dir.join(format!("migration-{id}.sock"))
}

fn is_record(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with("migration-") && name.ends_with(".json")
}

pub(super) fn io_error(path: &Path) -> impl Fn(io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::Io { path: path.clone(), source }
}
