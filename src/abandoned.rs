//! What a killed process has left of a domain that it was saving, or making: nobody is asked about it, and nobody guesses.
//!
//! Who saves, restores or creates a domain says in its record in [`admission`] what that is ([`Charge`]). The record of one that was killed
//! stays until somebody has done what is left ([`settle`]): the daemon's child, or a person (`bascule recover`). What that is follows from the
//! record and from what is seen ([`decide`]).
//!
//! Invariants: a domain is destroyed for a file that is complete, durable and has its name, or when it was made by that process and has
//! never run; nothing else is. It is resumed only where nobody else saves it, its volumes are this host's alone, and no migration of it is
//! undecided (I1). Who lives is left alone.

mod processes;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::admission::{self, Record};
use crate::ids::DomId;
use crate::journal::{self, this_boot};
use crate::migrate::chain;
use crate::plan;
use crate::saved::{Afterwards, Inode, sync_name};
use crate::toolstack::{Error, RunState};
use crate::wait::poll_until;
use crate::watch;
use crate::xen::domain::DomainInfo;
use crate::xen::{Context, DomainConfig};

/// What a record says for the case that its process is killed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Charge {
    /// The boot of this host that all of it belongs to.
    pub boot: Uuid,
    /// The domain's UUID.
    pub uuid: Uuid,
    /// Its number; none while the domain that is being made has none yet.
    pub domid: Option<DomId>,
    /// The file that it goes to; none for a domain that is being made.
    pub saving: Option<Saving>,
}

/// A save.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saving {
    /// Where the file will be, as an absolute path.
    pub file: PathBuf,
    /// Where it is until it is complete.
    pub partial: PathBuf,
    /// Which file that is. None before it has been begun: the domain has not been asked to suspend then.
    pub inode: Option<Inode>,
    /// What becomes of the domain when the file is complete.
    pub afterwards: Afterwards,
}

impl Charge {
    /// Of a domain that is about to be made.
    #[must_use]
    pub fn making(uuid: Uuid) -> Charge {
        Charge { boot: this_boot(), uuid, domid: None, saving: None }
    }

    /// Of a domain that is about to be saved.
    #[must_use]
    pub fn saving(uuid: Uuid, domid: DomId, saving: Saving) -> Charge {
        Charge { boot: this_boot(), uuid, domid: Some(domid), saving: Some(saving) }
    }

    /// Whether there is still something to do: domains do not outlive the host's boot.
    #[must_use]
    pub fn counts(&self) -> bool {
        self.boot == this_boot()
    }

    /// Whether the file is complete: then it has its name, which is given in one moment. What another has put there meanwhile is not it.
    fn is_complete(&self) -> bool {
        let Some(Saving { file, inode, .. }) = &self.saving else { return false };
        inode.is_some() && Inode::at(file) == *inode
    }
}

/// Says in the record of this process that it is about to make a domain; what is returned is to be called with its number as soon as it has one.
///
/// # Errors
/// The record cannot be written.
pub fn making(alone: &mut Record, uuid: Uuid) -> Result<impl FnMut(DomId) + Send, admission::Error> {
    let charge = Charge::making(uuid);
    alone.charge(charge.clone())?;
    Ok(move |domid| {
        if let Err(error) = alone.charge(Charge { domid: Some(domid), ..charge.clone() }) {
            tracing::warn!(%domid, error = %chain(&error), "if this process is killed, a person must look what it has left");
        }
    })
}

/// Whether something is left of a domain that nobody sees to yet.
pub(crate) fn is_left(run_dir: &Path, uuid: Uuid) -> bool {
    let left = admission::abandoned(run_dir).unwrap_or_default();
    left.iter().any(|entry| entry.charge.as_ref().is_some_and(|charge| charge.uuid == uuid))
}

/// What is seen of the domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Seen {
    /// It is not there, or is being destroyed.
    Gone,
    /// It has shut down.
    Ended,
    /// It is suspended.
    Suspended,
    /// The same, and a person's `unpause` is wanted before it runs.
    SuspendedAndPaused,
    /// It is paused and has never run.
    Untouched,
    /// It runs, or has run.
    Runs,
}

impl Seen {
    /// Whether it has run at all is the hypervisor's knowledge: it counts the time.
    fn of(info: Option<&DomainInfo>) -> Seen {
        let Some(DomainInfo { domain, flags, .. }) = info else { return Seen::Gone };
        match domain.state {
            RunState::Dying => Seen::Gone,
            RunState::Shutdown => Seen::Ended,
            RunState::Suspended if flags.paused => Seen::SuspendedAndPaused,
            RunState::Suspended => Seen::Suspended,
            RunState::Paused if domain.cpu_time.is_zero() => Seen::Untouched,
            RunState::Paused | RunState::Running => Seen::Runs,
        }
    }

    /// In words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Seen::Gone => "gone",
            Seen::Ended => "shut down",
            Seen::Suspended => "suspended",
            Seen::SuspendedAndPaused => "suspended, and paused",
            Seen::Untouched => "paused, and has never run",
            Seen::Runs => "not suspended",
        }
    }
}

/// What is to be done with the domain. An incomplete file goes in every case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Deed {
    /// Nothing.
    Nothing,
    /// It goes on where it stopped.
    Resume,
    /// The same, paused.
    ResumePaused,
    /// It is in a file, or was never more than one.
    Destroy,
    /// It lives, and somebody is to be in charge of it.
    Watch,
    /// It may be another's: a person must look.
    Doubt,
}

impl Deed {
    /// In words, behind the domain's name.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Deed::Nothing => "nothing is done to the domain",
            Deed::Resume => "it goes on where it stopped",
            Deed::ResumePaused => "it is resumed, and stays paused",
            Deed::Destroy => "it is destroyed",
            Deed::Watch => "it has run, and is watched from now on",
            Deed::Doubt => "nobody knows who made it: a person must look",
        }
    }
}

/// Decides. `complete`: the file of a save has its name.
#[must_use]
pub fn decide(charge: &Charge, seen: Seen, complete: bool) -> Deed {
    match &charge.saving {
        Some(saving) => after_save(saving.afterwards, seen, complete),
        None => after_making(charge.domid.is_some(), seen),
    }
}

/// Without its file the domain goes on, whatever was to become of it. One that runs, or has ended, was suspended no more, or not yet.
fn after_save(afterwards: Afterwards, seen: Seen, complete: bool) -> Deed {
    match seen {
        Seen::Gone | Seen::Ended | Seen::Untouched | Seen::Runs => Deed::Nothing,
        Seen::Suspended | Seen::SuspendedAndPaused => match afterwards {
            Afterwards::Destroy if complete => Deed::Destroy,
            // Paused a second time, it would have to be unpaused twice.
            Afterwards::Pause if complete && seen == Seen::Suspended => Deed::ResumePaused,
            _ => Deed::Resume,
        },
    }
}

/// One that has never run has written nothing: its file, or the saved one, makes it again. `known`: that process made it.
fn after_making(known: bool, seen: Seen) -> Deed {
    match seen {
        Seen::Gone => Deed::Nothing,
        Seen::Untouched if known => Deed::Destroy,
        Seen::Untouched => Deed::Doubt,
        _ if known => Deed::Watch,
        // Somebody has let it run, and answers for it.
        _ => Deed::Nothing,
    }
}

/// What is left behind, and what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Examination {
    /// The domain's number, if there is a domain.
    pub domid: Option<DomId>,
    /// What is seen of it.
    pub seen: Seen,
    /// Whether the file of a save is complete.
    pub complete: bool,
    /// What is to be done.
    pub deed: Deed,
}

/// Looks; changes nothing.
///
/// # Errors
/// The hypervisor does not answer.
pub fn examine(context: &Context, charge: &Charge) -> Result<Examination, Error> {
    let info = match charge.domid {
        Some(domid) => context.info(domid)?.filter(|info| info.domain.uuid == charge.uuid),
        None => {
            let lives = |info: &DomainInfo| info.domain.uuid == charge.uuid && info.domain.state != RunState::Dying;
            context.list()?.into_iter().find(lives)
        }
    };
    let (seen, complete) = (Seen::of(info.as_ref()), charge.is_complete());
    let domid = info.map(|info| info.domain.domid);
    Ok(Examination { domid, seen, complete, deed: decide(charge, seen, complete) })
}

/// What somebody who settles works with.
pub struct Hands<'a> {
    /// The way to Xen.
    pub context: &'a Context,
    /// Where the records are.
    pub run_dir: &'a Path,
    /// Where the journals of migrations are.
    pub state_dir: &'a Path,
    /// Refuses a suspended domain whose volumes are not this host's alone.
    pub is_here: &'a dyn Fn(&DomainConfig) -> Result<(), Error>,
}

impl std::fmt::Debug for Hands<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hands").field("run_dir", &self.run_dir).finish_non_exhaustive()
    }
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// This was found, and done.
    Done(Examination),
    /// A person must look at this domain; the record stays.
    Doubt(Examination),
    /// There is no such record any more, or another process works on it.
    Held,
}

/// How long a domain that was to be suspended is watched: the request may still be on its way to it.
const LATE_SUSPEND_WAIT: Duration = Duration::from_secs(30);

/// Does what is left to do, and takes the record away. It can be repeated, after whatever death.
///
/// # Errors
/// It is not all done; the record stays for the next try.
pub fn settle(hands: &Hands<'_>, id: Uuid) -> Result<Settled, Error> {
    let Some((record, charge)) = admission::take_over(hands.run_dir, id)? else { return Ok(Settled::Held) };
    leave_to_migration(hands, record.entry(), &charge)?;
    if let Some(domid) = charge.domid {
        processes::end_of(domid, charge.saving.as_ref().and_then(|saving| saving.inode))?;
    }
    let found = at_rest(hands.context, &charge)?;
    if found.deed == Deed::Doubt {
        return Ok(Settled::Doubt(found));
    }
    carry_out(hands, &charge, found)?;
    remove_partial(&charge)?;
    record.close();
    Ok(Settled::Done(found))
}

/// A record that nobody has seen to for long may meet a migration of its domain that is not decided: then the domain is the migration's. None begins
/// while we have the name.
fn leave_to_migration(hands: &Hands<'_>, entry: &admission::Entry, charge: &Charge) -> Result<(), Error> {
    let name = charge.domid.map_or_else(String::new, |domid| hands.context.name(domid));
    if plan::is_between_hosts(&name) || journal::keeps_domain(hands.state_dir, charge.uuid)? {
        return Err(format!("{} is in a migration that is not finished: bascule recover --dry-run", entry.name).into());
    }
    Ok(())
}

/// Looks when it does not change any more.
fn at_rest(context: &Context, charge: &Charge) -> Result<Examination, Error> {
    let was_asked = charge.saving.as_ref().is_some_and(|saving| saving.inode.is_some());
    let changes = |found: &Examination| was_asked && !found.complete && found.seen == Seen::Runs;
    let look = || examine(context, charge).map(|found| (!changes(&found)).then_some(found)).transpose();
    poll_until(Instant::now() + LATE_SUSPEND_WAIT, look).unwrap_or_else(|| examine(context, charge))
}

fn carry_out(hands: &Hands<'_>, charge: &Charge, found: Examination) -> Result<(), Error> {
    let (context, Some(domid)) = (hands.context, found.domid) else { return Ok(()) };
    match found.deed {
        Deed::Nothing | Deed::Doubt => Ok(()),
        Deed::Resume | Deed::ResumePaused => {
            (hands.is_here)(&context.retrieve(domid)?)?;
            if found.deed == Deed::ResumePaused {
                context.pause(domid)?;
            }
            Ok(context.resume(domid)?)
        }
        Deed::Destroy => {
            if let Some(saving) = &charge.saving {
                sync_name(&saving.file)?;
            }
            destroy(context, domid)
        }
        Deed::Watch => Ok(watch::announce(hands.run_dir, domid, charge.uuid)?),
    }
}

/// A device that could not be removed does not keep the domain, as a rule.
fn destroy(context: &Context, domid: DomId) -> Result<(), Error> {
    let Err(error) = context.destroy(domid) else { return Ok(()) };
    match context.state(domid)? {
        None | Some(RunState::Dying) => {
            tracing::warn!(%domid, error = %chain(&error), "destroyed, but not all of it");
            Ok(())
        }
        Some(_) => Err(error.into()),
    }
}

/// Under its name another may have begun a file of its own.
fn remove_partial(charge: &Charge) -> Result<(), Error> {
    let Some(Saving { partial, inode, .. }) = &charge.saving else { return Ok(()) };
    if inode.is_some() && Inode::at(partial) != *inode {
        return Ok(());
    }
    match fs::remove_file(partial) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(format!("{} cannot be removed: {error}", partial.display()).into())
        }
        _ => Ok(()),
    }
}

/// A person has decided what becomes of this domain: nothing is left of its save but an incomplete file, which goes.
///
/// # Errors
/// A record, or a file, is still there.
pub fn dismiss(run_dir: &Path, uuid: Uuid) -> Result<(), Error> {
    let left = admission::abandoned(run_dir)?.into_iter();
    for entry in left.filter(|entry| entry.charge.as_ref().is_some_and(|charge| charge.uuid == uuid)) {
        let Some((record, charge)) = admission::take_over(run_dir, entry.id)? else { continue };
        remove_partial(&charge)?;
        record.close();
    }
    Ok(())
}

#[cfg(test)]
mod tests;
