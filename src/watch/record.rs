//! The records of watched domains, `/run/bascule/watch-DOMID.json`, and the lock that says that the daemon is there to find them.
//!
//! Whoever starts a domain makes its record; the process that watches it holds a lock (flock) on that while it lives. A record that nobody
//! holds is the daemon's to give to a process. The directory does not outlive the host's boot, as the domains do not; where it does, the
//! kernel's name for the boot tells.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use jiff::Timestamp;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::admission;
use crate::ids::DomId;
use crate::journal::this_boot;

/// The longest record that is read, in bytes: a configuration may stand in it.
const RECORD_LEN_MAX: u64 = 1 << 20;
/// What the daemon holds while it cares for watchers.
const DUTY: &str = "daemon.lock";

/// What a record says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Watched {
    pub(super) domid: DomId,
    pub(super) uuid: Uuid,
    /// The boot of this host that the number belongs to.
    pub(super) boot: Uuid,
    /// The domain is being started anew, from this: a process that is killed in the middle leaves it to the next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) restart: Option<Restart>,
}

/// A restart that has begun.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Restart {
    pub(super) since: Timestamp,
    /// libxl's JSON.
    pub(super) config: Value,
}

/// Why a record cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory or its lock.
    #[error(transparent)]
    Directory(#[from] admission::Error),
    /// A file.
    #[error("Record {} of a watched domain could not be used", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It does not say what it should, and has been removed.
    #[error("Record {} of a watched domain could not be read: nobody watches it", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// Puts a domain in the daemon's charge, unless it is already.
///
/// # Errors
/// [`Error::Io`]: nobody will act when it shuts down.
pub fn announce(dir: &Path, domid: DomId, uuid: Uuid) -> Result<(), Error> {
    let watched = Watched { domid, uuid, boot: this_boot(), restart: None };
    let path = record_path(dir, domid);
    let known = fs::read(&path).ok().and_then(|text| serde_json::from_slice::<Watched>(&text).ok());
    if known.is_some_and(|known| known.uuid == uuid && known.boot == watched.boot) {
        return Ok(());
    }
    publish(dir, &watched).map(drop)
}

/// Whether a process watches this domain.
#[must_use]
pub fn is_watched(dir: &Path, domid: DomId) -> bool {
    is_held(&record_path(dir, domid))
}

/// The domains that have a record and nobody who watches them.
///
/// # Errors
/// [`Error::Io`]: the directory cannot be read.
pub(crate) fn unwatched(dir: &Path) -> Result<Vec<DomId>, Error> {
    let listing = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listing => listing.map_err(io_error(dir))?,
    };
    let paths = listing.flatten().map(|entry| entry.path());
    Ok(paths.filter_map(|path| domid_of(&path).filter(|_| !is_held(&path))).collect())
}

/// A lock that the daemon holds while it starts watchers: one daemon of a host does.
#[derive(Debug)]
pub(crate) struct Duty(#[expect(dead_code, reason = "it is the lock that counts")] Flock<File>);

impl Duty {
    /// Takes it, or `None` while another daemon has it.
    ///
    /// # Errors
    /// [`Error::Directory`].
    pub(crate) fn take(dir: &Path) -> Result<Option<Duty>, Error> {
        admission::make_dir(dir)?;
        Ok(admission::lock_file(&dir.join(DUTY), Instant::now())?.map(Duty))
    }
}

/// Whether a daemon runs that will find the records.
#[must_use]
pub fn is_somebody_on_duty(dir: &Path) -> bool {
    is_held(&dir.join(DUTY))
}

/// A shared lock tells; readers do not stand in each other's way.
fn is_held(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    matches!(Flock::lock(file, FlockArg::LockSharedNonblock), Err((_, Errno::EWOULDBLOCK)))
}

/// The record of a domain that this process watches. Dropping it lets the lock go and leaves the record to the next.
#[derive(Debug)]
pub(super) struct Post {
    dir: PathBuf,
    watched: Watched,
    lock: Flock<File>,
}

impl Post {
    /// Takes a domain's record, or `None` when there is none or another process has it.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::Io`].
    pub(super) fn take(dir: &Path, domid: DomId) -> Result<Option<Post>, Error> {
        let path = record_path(dir, domid);
        let file = match File::options().read(true).write(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(io_error(&path))?,
        };
        let lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((_, Errno::EWOULDBLOCK)) => return Ok(None),
            Err((_, errno)) => return Err(io_error(&path)(errno.into())),
        };
        // Whoever held it before may have put another in its place, or taken it away.
        if !is_at(&lock, &path) {
            return Ok(None);
        }
        let read = serde_json::from_reader(io::Read::take(&*lock, RECORD_LEN_MAX));
        let watched = read.map_err(|source| {
            drop(fs::remove_file(&path)); // or it is complained of again
            Error::Malformed { path, source }
        })?;
        Ok(Some(Post { dir: dir.to_owned(), watched, lock }))
    }

    pub(super) fn domid(&self) -> DomId {
        self.watched.domid
    }

    pub(super) fn watched(&self) -> &Watched {
        &self.watched
    }

    /// Says in the record that the domain is being started anew from this.
    pub(super) fn note_restart(&mut self, config: &Value) -> Result<(), Error> {
        let restart = Some(Restart { since: Timestamp::now(), config: config.clone() });
        self.replace(Watched { restart, ..self.watched.clone() })
    }

    /// The domain has this number now, and does not run yet. Under the new one it is watched before the old record goes.
    pub(super) fn move_to(&mut self, domid: DomId) -> Result<(), Error> {
        let old = record_path(&self.dir, self.domid());
        self.replace(Watched { domid, ..self.watched.clone() })?;
        if old != record_path(&self.dir, domid) {
            remove(&old);
        }
        Ok(())
    }

    /// It has been started anew, and runs.
    pub(super) fn note_running(&mut self) -> Result<(), Error> {
        match self.watched.restart {
            Some(_) => self.replace(Watched { restart: None, ..self.watched.clone() }),
            None => Ok(()),
        }
    }

    fn replace(&mut self, watched: Watched) -> Result<(), Error> {
        self.lock = publish(&self.dir, &watched)?;
        self.watched = watched;
        Ok(())
    }

    /// There is nothing to watch any more.
    pub(super) fn close(self) {
        let path = record_path(&self.dir, self.domid());
        if is_at(&self.lock, &path) {
            remove(&path);
        }
    }
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        tracing::warn!(path = %path.display(), %error, "the record of a watched domain is not removed");
    }
}

/// Whether an open file is the one that has this name.
fn is_at(file: &File, path: &Path) -> bool {
    let inode = |metadata: &fs::Metadata| (metadata.dev(), metadata.ino());
    matches!((file.metadata(), fs::metadata(path)), (Ok(open), Ok(named)) if inode(&open) == inode(&named))
}

/// Makes a record visible, locked and complete at once: it is written under another name, and the lock moves with it.
fn publish(dir: &Path, watched: &Watched) -> Result<Flock<File>, Error> {
    admission::make_dir(dir)?;
    let path = record_path(dir, watched.domid);
    let draft = path.with_extension(format!("{}.new", std::process::id()));
    let file = File::options().read(true).write(true).create(true).truncate(true).mode(0o600).open(&draft);
    let lock = Flock::lock(file.map_err(io_error(&draft))?, FlockArg::LockExclusiveNonblock);
    let lock = lock.map_err(|(_, errno)| io_error(&draft)(errno.into()))?;
    serde_json::to_writer(&*lock, watched).map_err(|source| io_error(&draft)(source.into()))?;
    fs::rename(&draft, &path).map_err(io_error(&path))?;
    Ok(lock)
}

fn record_path(dir: &Path, domid: DomId) -> PathBuf {
    dir.join(format!("watch-{domid}.json"))
}

fn domid_of(path: &Path) -> Option<DomId> {
    let name = path.file_name()?.to_str()?;
    name.strip_prefix("watch-")?.strip_suffix(".json")?.parse().ok().map(DomId)
}

fn io_error(path: &Path) -> impl Fn(io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::Io { path: path.clone(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIVE: DomId = DomId(5);
    const UUID: Uuid = Uuid::from_u128(1);

    #[test]
    fn a_record_is_the_daemons_until_somebody_takes_it_and_when_he_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        assert!(unwatched(&dir.path().join("none")).unwrap().is_empty());
        announce(dir.path(), FIVE, UUID).unwrap();
        assert_eq!(unwatched(dir.path()).unwrap(), [FIVE]);
        let post = Post::take(dir.path(), FIVE).unwrap().unwrap();
        assert!(unwatched(dir.path()).unwrap().is_empty() && is_watched(dir.path(), FIVE));
        assert!(Post::take(dir.path(), FIVE).unwrap().is_none(), "two of them");
        announce(dir.path(), FIVE, UUID).unwrap();
        assert!(is_watched(dir.path(), FIVE), "announced again, it is still the same record");
        drop(post);
        assert_eq!(unwatched(dir.path()).unwrap(), [FIVE]);
        Post::take(dir.path(), FIVE).unwrap().unwrap().close();
        assert!(unwatched(dir.path()).unwrap().is_empty() && !record_path(dir.path(), FIVE).exists());
    }

    #[test]
    fn a_domain_that_is_started_anew_is_watched_throughout() {
        let dir = tempfile::tempdir().unwrap();
        announce(dir.path(), FIVE, UUID).unwrap();
        let mut post = Post::take(dir.path(), FIVE).unwrap().unwrap();
        post.note_restart(&serde_json::json!({ "c_info": { "name": "vm" } })).unwrap();
        assert!(is_watched(dir.path(), FIVE) && Post::take(dir.path(), FIVE).unwrap().is_none());
        post.move_to(DomId(6)).unwrap();
        assert!(is_watched(dir.path(), DomId(6)) && !record_path(dir.path(), FIVE).exists());
        assert!(post.watched().restart.is_some(), "it is started anew until it runs");
        post.note_running().unwrap();
        assert_eq!(post.watched(), &Watched { domid: DomId(6), uuid: UUID, boot: this_boot(), restart: None });
    }

    #[test]
    fn what_is_being_started_anew_is_read_by_the_next() {
        let dir = tempfile::tempdir().unwrap();
        announce(dir.path(), FIVE, UUID).unwrap();
        let config = serde_json::json!({ "c_info": { "name": "vm" } });
        Post::take(dir.path(), FIVE).unwrap().unwrap().note_restart(&config).unwrap();
        let next = Post::take(dir.path(), FIVE).unwrap().unwrap();
        assert_eq!(next.watched().restart.as_ref().map(|restart| &restart.config), Some(&config));
    }

    #[test]
    fn a_record_that_cannot_be_read_is_complained_of_once() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(record_path(dir.path(), FIVE), "{").unwrap();
        assert!(matches!(Post::take(dir.path(), FIVE), Err(Error::Malformed { .. })));
        assert!(unwatched(dir.path()).unwrap().is_empty());
    }

    #[test]
    fn one_daemon_is_on_duty_and_others_see_it() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!is_somebody_on_duty(dir.path()));
        let duty = Duty::take(dir.path()).unwrap();
        assert!(duty.is_some() && is_somebody_on_duty(dir.path()));
        assert!(Duty::take(dir.path()).unwrap().is_none());
        drop(duty);
        assert!(!is_somebody_on_duty(dir.path()));
    }
}
