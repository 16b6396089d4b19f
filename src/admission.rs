//! Which migrations are open on this host, and whether a volume may be attached because of one of them.
//!
//! A migration's process keeps a record, `/run/bascule/migration-ID.json`, and holds a lock (flock) on it while it lives:
//! a record that nobody holds is stale and counts for nothing; one that says what is left to do stays until somebody has done it
//! ([`crate::abandoned`]). The hotplug program that libxl runs for a disk looks the
//! volume up here. When an incoming migration names it, the program asks that migration's process through a socket beside
//! the record, and the process answers as soon as it knows in which way the right to write changes hands.
//!
//! Invariants: a volume or a domain's name stands in at most one live record of a host; a volume of an open record is
//! attached for that migration's domain or not at all.

mod door;
mod files;

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::Flock;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use self::door::Door;
pub use self::door::{Asker, Refusal, Request};
pub(crate) use self::files::make_dir;
use self::files::{Found, io_error, lock_dir, publish, read, record_path, record_paths, remove_stale, socket_path};
pub use self::files::{lock_file, resource_lock};
use crate::abandoned::Charge;
use crate::ids::VolumeId;
pub use crate::protocol::Handover;
use crate::wait::retry_until;

/// Where the records are, unless a caller says otherwise.
pub const DIR: &str = "/run/bascule";
/// How long who makes a domain waits for one of its name to be destroyed: each device's hotplug program has 40 s.
const END_WAIT_MAX: Duration = Duration::from_secs(60);
/// What stands behind a domain's name while it is being received, so that it cannot be taken for one that runs.
const INCOMING_SUFFIX: &str = "--incoming";

/// Which end of a migration this host is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The domain comes to this host.
    Incoming,
    /// The domain leaves this host.
    Outgoing,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Incoming => "incoming",
            Self::Outgoing => "outgoing",
        })
    }
}

/// What is done to a domain that is no migration, and must not meet one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Act {
    /// It has shut down, and what its configuration says is done.
    End,
    /// It is started anew.
    Restart,
    /// A person's command changes it: its name, or whether it runs.
    Command,
    /// It goes to a file.
    Save,
    /// It comes from a file.
    Restore,
    /// It is made.
    Create,
    /// What a process that was killed has left of it is seen to.
    Settle,
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::End => "has shut down and is being destroyed or started anew",
            Self::Restart => "is being started anew",
            Self::Command => "is being changed by a command",
            Self::Save => "is being saved to a file",
            Self::Restore => "is being restored from a file",
            Self::Create => "is being created",
            Self::Settle => "was left behind by a process that was killed, which is being seen to",
        })
    }
}

/// An open migration, as its record says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The migration.
    pub id: Uuid,
    /// Which end of it this host is.
    pub side: Side,
    /// What is done where it is no migration; then nothing else here but the name and the process says anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub act: Option<Act>,
    /// The domain's own name, without a suffix.
    pub name: String,
    /// The volumes of its disks.
    pub volumes: Vec<VolumeId>,
    /// The process that holds the record.
    pub pid: u32,
    /// What is left to do if that is killed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub charge: Option<Charge>,
}

/// What a domain is in.
impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.act {
            None => write!(f, "is in the open {} migration {} (process {})", self.side, self.id, self.pid),
            Some(act) => write!(f, "{act} (process {}): try again when it has ended", self.pid),
        }
    }
}

/// The record of a migration that this process carries out. Dropping it takes it away, unless it was taken over and is not closed.
#[derive(Debug)]
pub struct Record {
    entry: Entry,
    path: PathBuf,
    door: Option<Door>,
    /// There is still something to do that it says.
    stays: bool,
    lock: Flock<File>,
}

/// Why a record cannot be opened or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another migration has one of the volumes.
    #[error("Volume {volume} belongs to the open {side} migration {id} of {name} (process {pid})", side = held_by.side, id = held_by.id, name = held_by.name, pid = held_by.pid)]
    VolumeTaken {
        /// The volume.
        volume: VolumeId,
        /// The other migration.
        held_by: Box<Entry>,
    },
    /// Another migration, or something else that is done to it, has the domain.
    #[error("Domain {} {held_by}", held_by.name)]
    NameTaken {
        /// The other.
        held_by: Box<Entry>,
    },
    /// Another process kept the directory locked.
    #[error("Directory {} stayed locked by another process", dir.display())]
    Locked {
        /// The directory.
        dir: PathBuf,
    },
    /// A file or the socket could not be used.
    #[error("Migration record {} could not be used", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A live record that does not say what it should.
    #[error("Migration record {} cannot be read", path.display())]
    Malformed {
        /// The record.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

impl Record {
    /// Opens the record of a migration and, for an incoming one, the socket where its disks' hotplug programs ask.
    ///
    /// # Errors
    /// [`Error::VolumeTaken`] and [`Error::NameTaken`] when another open migration of this host has what this one needs.
    pub fn open(dir: &Path, id: Uuid, side: Side, name: &str, volumes: &[VolumeId]) -> Result<Self, Error> {
        let (name, volumes) = (name.to_owned(), volumes.to_vec());
        Self::publish(dir, Entry { id, side, act: None, name, volumes, pid: std::process::id(), charge: None })
    }

    /// Stands under a domain's name while something is done to it that must not meet a migration. It keeps no volumes: for those, each start
    /// asks DRBD. Who makes a domain waits for the end of one of its name that has shut down, or that a killed process has left.
    ///
    /// # Errors
    /// [`Error::NameTaken`] when an open migration of this host, or another act, has the domain.
    pub fn act(dir: &Path, act: Act, name: &str) -> Result<Self, Error> {
        let (id, name) = (Uuid::new_v4(), name.to_owned());
        let (side, volumes, pid) = (Side::Outgoing, Vec::new(), std::process::id());
        let entry = Entry { id, side, act: Some(act), name, volumes, pid, charge: None };
        let makes = matches!(act, Act::Create | Act::Restore | Act::Restart);
        let wait = if makes { END_WAIT_MAX } else { Duration::ZERO };
        let ends = |error: &Error| match error {
            Error::NameTaken { held_by } => matches!(held_by.act, Some(Act::End | Act::Settle)),
            _ => false,
        };
        let publish = || Self::publish(dir, entry.clone());
        retry_until(Instant::now() + wait, publish, |done| !done.as_ref().is_err_and(ends))
    }

    /// Says in the record what is left to do if this process is killed.
    ///
    /// # Errors
    /// [`Error::Locked`] and [`Error::Io`]: the record says what it said before.
    pub fn charge(&mut self, charge: Charge) -> Result<(), Error> {
        let _turn = lock_dir(self.dir())?;
        let entry = Entry { charge: Some(charge), ..self.entry.clone() };
        self.lock = publish(&self.path, &entry)?;
        self.entry = entry;
        Ok(())
    }

    /// What was left to do is done.
    pub fn close(mut self) {
        self.stays = false;
    }

    fn dir(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(DIR))
    }

    fn publish(dir: &Path, entry: Entry) -> Result<Self, Error> {
        make_dir(dir)?;
        let _turn = lock_dir(dir)?;
        for other in live_entries(dir, Stale::Remove)? {
            check_conflict(&entry, other)?;
        }
        let door = match entry.side {
            Side::Incoming => Some(Door::open(&socket_path(dir, entry.id))?),
            Side::Outgoing => None,
        };
        let path = record_path(dir, entry.id);
        let lock = publish(&path, &entry)?;
        Ok(Self { entry, path, door, stays: false, lock })
    }

    /// The next question of a hotplug program, or `None` at `deadline`. Questions about a volume that this migration does
    /// not have, or for another domain than the one that is being received, are refused here and never seen.
    ///
    /// # Errors
    /// [`Error::Io`] when the socket fails. An outgoing record has no socket and waits for nothing.
    pub fn next_request(&mut self, deadline: Instant) -> Result<Option<Request>, Error> {
        let Some(door) = &mut self.door else {
            return Ok(None);
        };
        while let Some(request) = door.next_request(deadline)? {
            match objection(&self.entry, &request) {
                None => return Ok(Some(request)),
                Some(reason) => request.refuse(&reason),
            }
        }
        Ok(None)
    }

    /// What the record says.
    #[must_use]
    pub fn entry(&self) -> &Entry {
        &self.entry
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        // What a thread in panic has not done is as what a process that was killed has not.
        if self.stays || (self.entry.charge.is_some() && std::thread::panicking()) {
            return;
        }
        // The lock is let go after this, so that nobody sees the record and takes it for stale in between.
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "migration record not removed");
        }
    }
}

/// Why a question is none of this migration's.
fn objection(entry: &Entry, request: &Request) -> Option<String> {
    let asker = request.asker();
    let expected = incoming_name(&entry.name);
    if !entry.volumes.contains(&asker.volume) {
        return Some(format!("volume {} is not among the disks of the migration {}", asker.volume, entry.id));
    }
    (asker.domain != expected).then(|| {
        format!(
            "volume {} is kept for {expected}, which is on its way here; {:?} must not have it",
            asker.volume, asker.domain
        )
    })
}

/// The name of a domain while it is being received.
#[must_use]
pub fn incoming_name(name: &str) -> String {
    format!("{name}{INCOMING_SUFFIX}")
}

/// A volume's migration, seen from the hotplug program.
#[derive(Debug)]
pub struct Ticket {
    entry: Entry,
    socket: PathBuf,
}

/// The open migration that a volume belongs to, if there is one.
///
/// # Errors
/// [`Error::Malformed`] and [`Error::Io`]: what cannot be read must not be taken for permission.
pub fn lookup(dir: &Path, volume: &VolumeId) -> Result<Option<Ticket>, Error> {
    let entry = live_entries(dir, Stale::Keep)?.into_iter().find(|entry| entry.volumes.contains(volume));
    Ok(entry.map(|entry| Ticket { socket: socket_path(dir, entry.id), entry }))
}

/// All migrations that are open on this host.
///
/// # Errors
/// As for [`lookup`].
pub fn open_migrations(dir: &Path) -> Result<Vec<Entry>, Error> {
    Ok(live_entries(dir, Stale::Keep)?.into_iter().filter(|entry| entry.act.is_none()).collect())
}

/// The records of this host whose process is gone, and that say what is left to do.
///
/// # Errors
/// [`Error::Io`].
pub fn abandoned(dir: &Path) -> Result<Vec<Entry>, Error> {
    let found = record_paths(dir)?.into_iter().map(|path| read(&path)).collect::<Result<Vec<_>, _>>()?;
    Ok(found.into_iter().filter_map(Found::abandoned).collect())
}

/// Takes such a record over, under its domain's name, and what is left to do; `None` where there is none any more, or its process lives. Unless
/// it is closed, it stays for the next.
///
/// # Errors
/// [`Error::NameTaken`] when an open migration of this host, or another act, has the domain.
pub fn take_over(dir: &Path, id: Uuid) -> Result<Option<(Record, Charge)>, Error> {
    make_dir(dir)?;
    let _turn = lock_dir(dir)?;
    let path = record_path(dir, id);
    let Some(left) = read(&path)?.abandoned() else { return Ok(None) };
    let Some(charge) = left.charge.clone() else { return Ok(None) };
    let entry = Entry { act: Some(Act::Settle), pid: std::process::id(), ..left };
    live_entries(dir, Stale::Keep)?.into_iter().try_for_each(|other| check_conflict(&entry, other))?;
    let lock = publish(&path, &entry)?;
    Ok(Some((Record { entry, path, door: None, stays: true, lock }, charge)))
}

/// Removes the records whose process is gone and that say nothing. They count for nothing; this is for whoever looks.
///
/// # Errors
/// As for [`lookup`]; [`Error::Locked`].
pub fn remove_stale_records(dir: &Path) -> Result<(), Error> {
    make_dir(dir)?;
    let _turn = lock_dir(dir)?;
    live_entries(dir, Stale::Remove).map(drop)
}

impl Ticket {
    /// Asks the migration whether, and in which way, the volume may be attached; waits for its answer.
    ///
    /// # Errors
    /// [`Refusal`], at once when the migration is an outgoing one.
    pub fn ask(&self, asker: &Asker, deadline: Instant) -> Result<Handover, Refusal> {
        match self.entry.side {
            Side::Incoming => door::ask(&self.socket, asker, deadline),
            Side::Outgoing => Err(Refusal::Leaving { name: self.entry.name.clone(), id: self.entry.id }),
        }
    }

    /// What the record says.
    #[must_use]
    pub fn entry(&self) -> &Entry {
        &self.entry
    }
}

/// What to do with records that nobody holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stale {
    Keep,
    /// Only under the directory's lock: a record that is being written must not be met.
    Remove,
}

/// The entries of all records whose process lives.
fn live_entries(dir: &Path, stale: Stale) -> Result<Vec<Entry>, Error> {
    let mut entries = Vec::new();
    for path in record_paths(dir)? {
        match read(&path)? {
            Found::Live(entry) => entries.push(entry),
            Found::Stale if stale == Stale::Remove => remove_stale(&path),
            Found::Stale | Found::Abandoned(_) => {}
        }
    }
    Ok(entries)
}

fn check_conflict(entry: &Entry, other: Entry) -> Result<(), Error> {
    if let Some(volume) = entry.volumes.iter().find(|volume| other.volumes.contains(volume)) {
        return Err(Error::VolumeTaken { volume: volume.clone(), held_by: Box::new(other) });
    }
    if other.name == entry.name || other.id == entry.id {
        return Err(Error::NameTaken { held_by: Box::new(other) });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
