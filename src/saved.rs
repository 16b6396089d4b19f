//! Domains saved to files, in xl's own format: what `xl save` has written is restored here, and what is written here `xl restore` takes.
//!
//! [`save`] is the story of a save. The domain is suspended first and then written, as by xl, so that nothing needs to be logged; what its
//! volumes are then is noted in the file ([`note`]).
//!
//! Invariant: the domain is destroyed when the file is complete, durable and has its name, never before. Whatever fails until then makes
//! the domain go on, and leaves no file.

mod draft;
mod format;
pub mod note;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

pub(crate) use self::draft::sync_name;
pub use self::draft::{FileError, Inode};
pub use self::format::{FormatError, read};
pub use self::note::Note;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use self::draft::{Draft, Spot};
use crate::abandoned::{Charge, Saving};
use crate::admission::Record;
use crate::ids::DomId;
use crate::stream::Cancel;
use crate::toolstack::{Abort, Error, OnStream, RunState};
use crate::wait::poll_until;
use crate::xen::DomainConfig;

/// What a save needs of Xen; [`crate::xen::Context`] does it by libxl.
pub trait Domains {
    /// Suspends the domain, and then writes it to `fd`. `handle` is called once, before that, with what aborts it.
    ///
    /// # Errors
    /// The domain may then run or be suspended: look. Log-dirty mode is off.
    fn write(
        &self,
        domid: DomId,
        fd: BorrowedFd<'_>,
        events: OnStream,
        handle: &dyn Fn(Arc<dyn Abort>),
    ) -> Result<(), Error>;

    /// What the domain is doing, or `None` when no domain has that number.
    ///
    /// # Errors
    /// The hypervisor does not answer.
    fn state(&self, domid: DomId) -> Result<Option<RunState>, Error>;

    /// Lets a suspended domain go on in place; one that is paused, too, stays paused.
    ///
    /// # Errors
    /// It stays suspended.
    fn resume(&self, domid: DomId) -> Result<(), Error>;

    /// Pauses it.
    ///
    /// # Errors
    /// It is as it was.
    fn pause(&self, domid: DomId) -> Result<(), Error>;

    /// Destroys it and removes its devices.
    ///
    /// # Errors
    /// A device could not be removed; the domain may be gone all the same.
    fn destroy(&self, domid: DomId) -> Result<(), Error>;
}

/// What becomes of the domain when it is saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Afterwards {
    /// It is destroyed.
    Destroy,
    /// It runs on.
    Resume,
    /// It stays, paused.
    Pause,
}

/// What is to be saved, and where.
#[derive(Debug)]
pub struct Request<'a> {
    /// The domain's number.
    pub domid: DomId,
    /// Its UUID.
    pub uuid: Uuid,
    /// Its configuration, as libxl has stored it.
    pub config: DomainConfig,
    /// Its memory, in KiB.
    pub memory_kib: u64,
    /// The file.
    pub file: &'a Path,
    /// Whether a file that is there already is replaced.
    pub replace: bool,
    /// What becomes of the domain.
    pub afterwards: Afterwards,
    /// What its volumes are while it still runs: as much room as that takes is kept.
    pub note: Option<Note>,
}

/// How a save ended.
#[derive(Debug)]
pub enum Outcome {
    /// The file is there, and the domain is what was asked for.
    Saved {
        /// The file's length in bytes.
        bytes: u64,
        /// How long the domain stood still, where it goes on.
        stood_still: Option<Duration>,
        /// What is left of a domain that was destroyed, in words.
        left: Option<Error>,
    },
    /// It failed before the domain was touched, which runs on. There is no file.
    Failed(Error),
    /// It failed, and the domain runs on. There is no file.
    RolledBack {
        /// What failed.
        reason: Error,
    },
    /// The domain is not what it should be.
    Indeterminate {
        /// What failed.
        reason: Error,
        /// What is so now, as a sentence without the domain's name, and what to type.
        state: Left,
    },
}

/// What a save has left that did not end as it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// The domain stays suspended; there is no file.
    Suspended,
    /// The domain is gone, and it is not this that has ended it; there is no file.
    Gone,
    /// The file is complete; the domain stays suspended.
    SavedAndSuspended,
    /// It is not known; there is no file.
    Unknown,
}

/// How long a domain that runs after a failure is watched: the request to suspend may still be on its way to it.
const LATE_SUSPEND_WAIT: Duration = Duration::from_secs(3);
/// Between two looks at the user's wish.
const LISTEN_INTERVAL: Duration = Duration::from_millis(100);
/// What a file may have beside the memory, in bytes: the numbers of its pages, 8 bytes each, are added to this.
const BESIDE_MEMORY: u64 = 4 << 20;

/// Saves a domain. `alone` is what this process has for it in [`crate::admission`], which says what is left to do if the process is killed; `at_rest`
/// looks at its volumes when it has been suspended.
pub fn save(
    domains: &dyn Domains,
    request: &Request<'_>,
    alone: &mut Record,
    at_rest: &dyn Fn() -> Option<Note>,
    events: &OnStream,
    cancel: &Cancel,
) -> Outcome {
    let (draft, place) = match begin(request, alone) {
        Ok(begun) => begun,
        Err(error) => return Outcome::Failed(error),
    };
    let begun = Instant::now();
    match write(domains, request.domid, (draft, &place), at_rest, events, cancel) {
        Ok(bytes) => conclude(domains, request, bytes, begun),
        Err(reason) => undo(domains, request.domid, reason),
    }
}

/// Where the note stands in the file.
struct Place {
    at: u64,
    len: usize,
}

/// The file, its header and its space: all that can fail while the domain still runs.
fn begin(request: &Request<'_>, alone: &mut Record) -> Result<(Draft, Place), Error> {
    let len = request.note.clone().map_or(0, Note::text_len_max);
    let header = format::write(&request.config.clone().without_domid().to_json(), len)?;
    let spot = Spot::find(request.file, request.replace)?;
    let mut saving = Saving {
        file: spot.target.clone(),
        partial: spot.partial.clone(),
        inode: None,
        afterwards: request.afterwards,
    };
    let charge = |saving: &Saving| Charge::saving(request.uuid, request.domid, saving.clone());
    alone.charge(charge(&saving))?;
    let mut draft = Draft::begin(spot)?;
    saving.inode = Some(draft.inode()?);
    alone.charge(charge(&saving))?;
    let memory = request.memory_kib << 10;
    draft.reserve(memory + (memory >> 9) + BESIDE_MEMORY)?;
    draft.write(&header)?;
    Ok((draft, Place { at: (header.len() - len) as u64, len }))
}

/// The stream, the note, and the file's name. Its length in bytes.
fn write(
    domains: &dyn Domains,
    domid: DomId,
    (draft, place): (Draft, &Place),
    at_rest: &dyn Fn() -> Option<Note>,
    events: &OnStream,
    cancel: &Cancel,
) -> Result<u64, Error> {
    abortable(cancel, |handle| domains.write(domid, draft.as_fd(), Arc::clone(events), handle))?;
    if let Some(text) = at_rest().map(Note::text).filter(|text| text.len() <= place.len) {
        draft.put(place.at, text.as_bytes())?;
    }
    match cancel.requested() {
        true => Err("Cancelled".into()),
        false => Ok(draft.complete()?),
    }
}

/// Does something that the user may stop.
///
/// # Errors
/// What it returns; "Cancelled" where the user has stopped it.
pub fn abortable<T>(
    cancel: &Cancel,
    work: impl FnOnce(&dyn Fn(Arc<dyn Abort>)) -> Result<T, Error>,
) -> Result<T, Error> {
    let (ended, switch) = (AtomicBool::new(false), Mutex::<Option<Arc<dyn Abort>>>::default());
    let switch = || switch.lock().unwrap_or_else(PoisonError::into_inner);
    std::thread::scope(|scope| {
        let listener = scope.spawn(|| {
            while !ended.load(Ordering::SeqCst) {
                if cancel.requested()
                    && let Some(switch) = &*switch()
                {
                    switch.abort();
                }
                std::thread::park_timeout(LISTEN_INTERVAL);
            }
        });
        let done = work(&|handle| *switch() = Some(handle));
        ended.store(true, Ordering::SeqCst);
        listener.thread().unpark();
        done.map_err(|error| if cancel.requested() { "Cancelled".into() } else { error })
    })
}

/// The file is complete: from here on it counts, whatever becomes of the domain.
fn conclude(domains: &dyn Domains, request: &Request<'_>, bytes: u64, begun: Instant) -> Outcome {
    let domid = request.domid;
    let done = match request.afterwards {
        Afterwards::Destroy => return destroy(domains, domid, bytes),
        Afterwards::Resume => domains.resume(domid),
        // Paused first, so that it does not run in between.
        Afterwards::Pause => domains.pause(domid).and_then(|()| domains.resume(domid)),
    };
    match done {
        Ok(()) => Outcome::Saved { bytes, stood_still: Some(begun.elapsed()), left: None },
        Err(reason) => Outcome::Indeterminate { reason, state: Left::SavedAndSuspended },
    }
}

/// A device that could not be removed does not keep the domain, as a rule.
fn destroy(domains: &dyn Domains, domid: DomId, bytes: u64) -> Outcome {
    let left = domains.destroy(domid).err();
    match (left, domains.state(domid)) {
        (Some(reason), Ok(Some(state))) if state != RunState::Dying => {
            Outcome::Indeterminate { reason, state: Left::SavedAndSuspended }
        }
        (left, _) => Outcome::Saved { bytes, stood_still: None, left },
    }
}

/// There is no file, and the domain goes on.
fn undo(domains: &dyn Domains, domid: DomId, reason: Error) -> Outcome {
    let settled = |state: &Option<RunState>| !matches!(state, Some(RunState::Running | RunState::Paused));
    let look = || domains.state(domid).map(|state| settled(&state).then_some(state)).transpose();
    let state = poll_until(Instant::now() + LATE_SUSPEND_WAIT, look).unwrap_or(Ok(Some(RunState::Running)));
    match state {
        Ok(Some(RunState::Suspended)) => match domains.resume(domid) {
            Ok(()) => Outcome::RolledBack { reason },
            Err(error) => {
                tracing::error!(%error, "not resumed");
                Outcome::Indeterminate { reason, state: Left::Suspended }
            }
        },
        Ok(Some(RunState::Running | RunState::Paused)) => Outcome::RolledBack { reason },
        Ok(None | Some(RunState::Dying | RunState::Shutdown)) => Outcome::Indeterminate { reason, state: Left::Gone },
        Err(_) => Outcome::Indeterminate { reason, state: Left::Unknown },
    }
}

/// A saved file, read up to libxl's stream, which its descriptor gives next.
#[derive(Debug)]
pub struct Saved {
    /// The file.
    pub file: File,
    /// The domain's configuration, if there is one that can be read.
    pub config: Option<DomainConfig>,
    /// What it says of the volumes, if `bascule save` has written it.
    pub note: Option<Note>,
}

/// Why a saved file cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is none, or it may not be read.
    #[error("{} cannot be opened", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is not what it should be.
    #[error("{} cannot be restored", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: FormatError,
    },
    /// Its configuration is no configuration.
    #[error("The configuration in {} cannot be used", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: crate::xen::Error,
    },
}

impl OpenError {
    /// Whether it is no saved file at all.
    #[must_use]
    pub fn is_other_kind(&self) -> bool {
        matches!(self, OpenError::Format { source: FormatError::Magic | FormatError::Truncated, .. })
    }
}

/// Opens a saved file.
///
/// # Errors
/// [`OpenError`].
pub fn open(path: &Path) -> Result<Saved, OpenError> {
    let named = || path.to_owned();
    let mut file = File::open(path).map_err(|source| OpenError::Open { path: named(), source })?;
    let head = read(&mut file).map_err(|source| OpenError::Format { path: named(), source })?;
    let config = head.config.as_deref().map(DomainConfig::from_json).transpose();
    let config = config.map_err(|source| OpenError::Config { path: named(), source })?;
    Ok(Saved { file, config, note: Note::parse(&head.tail) })
}

#[cfg(test)]
mod tests;
