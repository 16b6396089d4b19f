//! The directory of the journals: which there are, who holds them, which of them go.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::stat::{major, minor};
use uuid::Uuid;

use super::error::{Error, io_error};
use super::scan;
use super::story::Story;
use crate::ids::VolumeId;
use crate::wait::poll_until;

/// What a journal's file name ends with.
const SUFFIX: &str = "journal";
/// What the file name of a journal that is being made ends with.
pub(super) const DRAFT: &str = "new";
/// Where finished journals are, below the directory of the journals.
const FINISHED: &str = "finished";
/// How long to wait for a process that makes or removes a journal.
const DIR_WAIT_MAX: Duration = Duration::from_secs(5);
/// How long to try for a journal's lock: who only looks whether it is held takes it for an instant.
const LOCK_WAIT_MAX: Duration = Duration::from_millis(20);

/// A journal among the others.
#[derive(Debug)]
pub struct Listed {
    /// The migration.
    pub id: Uuid,
    /// What it says.
    pub story: Result<Story, Error>,
    /// Whether a process works on it.
    pub held: bool,
    /// That process, where the kernel shows it (proc(5), locks).
    pub holder: Option<u32>,
}

/// Reads a journal, also while another process works on it; `None` when there is none. What it says is on disk.
///
/// # Errors
/// [`Error::Damaged`], [`Error::Future`], [`Error::Io`].
pub fn read(dir: &Path, id: Uuid) -> Result<Option<Story>, Error> {
    for path in places(dir, id) {
        if let Some((scan, file)) = scan::look(&path)? {
            // Its writer may be between the write and the sync: nobody hears of what could still vanish.
            file.sync_data().map_err(io_error(&path))?;
            return scan.undamaged().map(Some);
        }
    }
    Ok(None)
}

/// The unfinished journal that names the volume, if there is one, held or not. Of a damaged one, what can be read.
///
/// # Errors
/// A journal whose head cannot be read: it must not be taken for permission.
pub fn open_for(dir: &Path, volume: &VolumeId) -> Result<Option<Story>, Error> {
    find_open(dir, |story| story.names(volume))
}

/// The same by the UUID of its domain.
///
/// # Errors
/// As for [`open_for`].
pub fn open_of(dir: &Path, uuid: Uuid) -> Result<Option<Story>, Error> {
    find_open(dir, |story| story.head.uuid == uuid)
}

/// Whether an unfinished journal, held or not, keeps the domain of this UUID from everybody but its migration. What a damaged one says up
/// to the damage counts.
///
/// # Errors
/// As for [`open_for`].
pub fn keeps_domain(dir: &Path, uuid: Uuid) -> Result<bool, Error> {
    Ok(find_open(dir, |story| story.head.uuid == uuid && story.keeps_domain())?.is_some())
}

fn find_open(dir: &Path, is_wanted: impl Fn(&Story) -> bool) -> Result<Option<Story>, Error> {
    for (_, path) in journals_in(dir)? {
        let scan = scan::look(&path)?.map(|(scan, _)| scan);
        if let Some(scan) = scan.filter(|scan| scan.is_open() && is_wanted(&scan.story)) {
            return Ok(Some(scan.story));
        }
    }
    Ok(None)
}

/// All journals, finished ones included, oldest first; a missing directory has none.
///
/// # Errors
/// [`Error::Io`]. What is wrong with one journal stands in its place in the list.
pub fn list(dir: &Path) -> Result<Vec<Listed>, Error> {
    let mut found = Vec::new();
    for id in all(dir)? {
        found.extend(listed_anywhere(dir, id)?);
    }
    found.sort_by_key(|(since, listed)| (*since, listed.id));
    Ok(found.into_iter().map(|(_, listed)| listed).collect())
}

/// The journals that have not been set aside as finished, in no order: what a look for orphans needs.
///
/// # Errors
/// As for [`list`].
pub fn unfinished(dir: &Path) -> Result<Vec<Listed>, Error> {
    let mut found = Vec::new();
    for journal in journals_in(dir)? {
        found.extend(listed(journal)?.map(|(_, listed)| listed));
    }
    Ok(found)
}

/// Removes the oldest finished journals beyond `keep`, and what a crash left of journals that were being made. Never one that
/// is unfinished, damaged or held.
///
/// # Errors
/// [`Error::Io`], [`Error::Locked`].
pub fn prune(dir: &Path, keep: usize) -> Result<(), Error> {
    if !dir.is_dir() {
        return Ok(());
    }
    let _turn = lock_dir(dir)?;
    for draft in files_in(dir, DRAFT)? {
        remove(&draft)?;
    }
    let finished = list(dir)?.into_iter().filter(|listed| listed.story.as_ref().is_ok_and(Story::is_done));
    for listed in finished.rev().skip(keep).filter(|listed| !listed.held) {
        remove_free(dir, listed.id)?;
    }
    Ok(())
}

/// Removes a journal unless somebody holds it meanwhile.
fn remove_free(dir: &Path, id: Uuid) -> Result<(), Error> {
    let Some(path) = find(dir, id)? else { return Ok(()) };
    match lock_journal(dir, id)? {
        Some(Some(_held)) => remove(&path),
        _ => Ok(()),
    }
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(io_error(path)),
    }
}

/// Every journal once.
fn all(dir: &Path) -> Result<BTreeSet<Uuid>, Error> {
    let (unfinished, finished) = (journals_in(dir)?, journals_in(&dir.join(FINISHED))?);
    Ok(unfinished.into_iter().chain(finished).map(|(id, _)| id).collect())
}

/// A journal wherever it is: one that is finished meanwhile is found where it has moved to.
fn listed_anywhere(dir: &Path, id: Uuid) -> Result<Option<(Timestamp, Listed)>, Error> {
    for path in places(dir, id) {
        if let Some(found) = listed((id, path))? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// A journal's place in the list: when it was opened, or, where it does not say, last written.
fn listed((id, path): (Uuid, PathBuf)) -> Result<Option<(Timestamp, Listed)>, Error> {
    let Some((held, holder)) = probe(&path)? else { return Ok(None) };
    // The lock first: one that is finished in between is then held and finished, not unfinished and free.
    let story = match scan::look(&path) {
        Ok(None) => return Ok(None),
        Ok(Some((scan, _))) => scan.undamaged(),
        Err(error) => Err(error),
    };
    let since = story.as_ref().map_or_else(|_| written_at(&path), |story| story.opened_at);
    Ok(Some((since, Listed { id, story, held, holder })))
}

fn written_at(path: &Path) -> Timestamp {
    let modified = fs::metadata(path).and_then(|metadata| metadata.modified());
    modified.ok().and_then(|time| time.try_into().ok()).unwrap_or_default()
}

/// Whether somebody holds a journal, and who. A shared lock tells: those who look do not stand in each other's way.
fn probe(path: &Path) -> Result<Option<(bool, Option<u32>)>, Error> {
    let Some(file) = open(path, File::options().read(true))? else { return Ok(None) };
    match Flock::lock(file, FlockArg::LockSharedNonblock) {
        Ok(_) => Ok(Some((false, None))),
        Err((file, Errno::EWOULDBLOCK)) => Ok(Some((true, holder(&file)))),
        Err((_, errno)) => Err(io_error(path)(errno.into())),
    }
}

/// The process that holds a file's lock: lines such as `1: FLOCK  ADVISORY  WRITE 714 08:01:1121 0 EOF` (proc(5), locks).
fn holder(file: &File) -> Option<u32> {
    let metadata = file.metadata().ok()?;
    let (dev, inode) = (metadata.dev(), metadata.ino());
    let number = format!("{:02x}:{:02x}:{inode}", major(dev), minor(dev));
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let mut fields = locks.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    let line = fields.find(|fields| fields.get(1) == Some(&"FLOCK") && fields.get(5) == Some(&number.as_str()))?;
    line[4].parse().ok()
}

/// Opens a journal and takes its lock: `None` when there is no such journal, `Some(None)` when another process holds it.
pub(super) fn lock_journal(dir: &Path, id: Uuid) -> Result<Option<Option<Flock<File>>>, Error> {
    for path in places(dir, id) {
        if let Some(file) = open(&path, File::options().read(true).write(true))? {
            return lock(&path, file, LOCK_WAIT_MAX).map(Some);
        }
    }
    Ok(None)
}

fn open(path: &Path, options: &fs::OpenOptions) -> Result<Option<File>, Error> {
    match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        file => file.map(Some).map_err(io_error(path)),
    }
}

/// Serialises the making and removing of journals.
pub(super) fn lock_dir(dir: &Path) -> Result<Flock<File>, Error> {
    let file = File::open(dir).map_err(io_error(dir))?;
    lock(dir, file, DIR_WAIT_MAX)?.ok_or_else(|| Error::Locked { dir: dir.to_owned() })
}

fn lock(path: &Path, file: File, wait_max: Duration) -> Result<Option<Flock<File>>, Error> {
    let mut file = Some(file);
    let locked =
        poll_until(Instant::now() + wait_max, || match Flock::lock(file.take()?, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Some(Ok(lock)),
            Err((again, Errno::EWOULDBLOCK)) => {
                file = Some(again);
                None
            }
            Err((_, errno)) => Some(Err(io_error(path)(errno.into()))),
        });
    locked.transpose()
}

/// Locks a file that nobody else can know.
pub(super) fn lock_now(file: File) -> io::Result<Flock<File>> {
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno.into())
}

/// Where the journal is now, if there is one.
pub(super) fn find(dir: &Path, id: Uuid) -> Result<Option<PathBuf>, Error> {
    for path in places(dir, id) {
        if path.try_exists().map_err(io_error(&path))? {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// Moves a journal to the finished ones, and says where it is then.
pub(super) fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else { return Ok(path.to_owned()) };
    let finished = dir.join(FINISHED);
    DirBuilder::new().recursive(true).mode(0o700).create(&finished)?;
    let to = finished.join(name);
    fs::rename(path, &to).map(|()| to)
}

/// Only root may look into the directory: who can write there decides which domains run.
pub(super) fn make_dir(dir: &Path) -> Result<(), Error> {
    if dir.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io_error(dir))?;
    sync_name(dir)
}

/// Makes the name of a file or directory durable.
pub(super) fn sync_name(path: &Path) -> Result<(), Error> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(io_error(dir))
}

/// Where a journal can be, in the order in which it moves, so that it is not missed in between.
fn places(dir: &Path, id: Uuid) -> [PathBuf; 2] {
    [open_path(dir, id), open_path(&dir.join(FINISHED), id)]
}

/// Where an unfinished journal is.
pub(super) fn open_path(dir: &Path, id: Uuid) -> PathBuf {
    dir.join(format!("{id}.{SUFFIX}"))
}

/// The journals of one directory, in no order. A file that is not named as ours are is none.
fn journals_in(dir: &Path) -> Result<Vec<(Uuid, PathBuf)>, Error> {
    let files = files_in(dir, SUFFIX)?.into_iter();
    Ok(files.filter_map(|path| Some((path.file_stem()?.to_str()?.parse().ok()?, path))).collect())
}

fn files_in(dir: &Path, extension: &str) -> Result<Vec<PathBuf>, Error> {
    let listing = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listing => listing.map_err(io_error(dir))?,
    };
    let paths = listing.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>();
    let paths = paths.map_err(io_error(dir))?.into_iter();
    Ok(paths.filter(|path| path.extension().is_some_and(|found| found == extension)).collect())
}
