//! `bascule reboot`, `pause`, `unpause`, `resume` and `rename`: what a person does to a domain that runs, and must not do to one that is on its way.

use std::path::Path;

use bascule::admission::{Act, Record};
use bascule::ids::DomId;
use bascule::toolstack::{Domain, RunState};
use bascule::xen::Context;
use bascule::{abandoned, host, journal, plan};
use clap::Args;

use super::exit::Error;

/// Ask a domain to reboot
///
/// The guest shuts itself down as for a reboot; then its watcher does what on_reboot of its configuration says, as a rule start it anew, on the
/// same volumes. Refused while the domain is being migrated: a guest that reboots then makes the migration fail.
#[derive(Debug, Args)]
pub(crate) struct Reboot {
    /// The domain, by name or number
    domain: String,
}

/// Runs `reboot`.
pub(crate) fn reboot(args: &Reboot, state_dir: &Path) -> Result<(), Error> {
    let hold = Hold::take(&args.domain, Act::Command, state_dir)?;
    hold.refuse_unless(&[RunState::Running], "it cannot hear the request")?;
    Ok(hold.context.reboot(hold.domain.domid)?)
}

/// Stop a domain's virtual CPUs where they are
///
/// Its memory and its disks stay as they are until `bascule unpause`. Refused while the domain is being migrated: a paused guest cannot answer
/// the request to suspend.
#[derive(Debug, Args)]
pub(crate) struct Pause {
    /// The domain, by name or number
    domain: String,
}

/// Runs `pause`.
pub(crate) fn pause(args: &Pause, state_dir: &Path) -> Result<(), Error> {
    let hold = Hold::take(&args.domain, Act::Command, state_dir)?;
    hold.refuse_unless(&[RunState::Running, RunState::Paused], "there is nothing to pause")?;
    Ok(hold.context.pause(hold.domain.domid)?)
}

/// Let a paused domain run
///
/// Refused for a copy that belongs to a migration: it would run twice.
#[derive(Debug, Args)]
pub(crate) struct Unpause {
    /// The domain, by name or number
    domain: String,
}

/// Runs `unpause`.
pub(crate) fn unpause(args: &Unpause, state_dir: &Path) -> Result<(), Error> {
    let hold = Hold::take(&args.domain, Act::Command, state_dir)?;
    hold.refuse_unless(&[RunState::Running, RunState::Paused], "there is nothing to unpause")?;
    Ok(hold.context.unpause(hold.domain.domid)?)
}

/// Let a suspended domain go on
///
/// For one that `xl suspend` has suspended, or that a save has left so: it runs on where it stopped, as if nothing had been. One whose saving
/// process was killed the daemon resumes by itself. A file that it was saved to is of no use then: the disks go on, too. Refused while bascule migrates or saves it,
/// and where one of its DRBD volumes is not this host's any more: its copy may run elsewhere. What else xl does with a suspended domain cannot be
/// seen, so be sure that no `xl save` or `xl migrate` of it is under way.
#[derive(Debug, Args)]
pub(crate) struct Resume {
    /// The domain, by name or number
    domain: String,
}

/// Runs `resume`.
pub(crate) fn resume(args: &Resume, state_dir: &Path) -> Result<(), Error> {
    let hold = Hold::take(&args.domain, Act::Command, state_dir)?;
    hold.refuse_unless(&[RunState::Suspended], "there is nothing to resume")?;
    super::saved::refuse_unless_here(&hold.context.retrieve(hold.domain.domid)?)?;
    hold.context.resume(hold.domain.domid)?;
    let uuid = hold.domain.uuid;
    drop(hold);
    abandoned::dismiss(host::RUN_DIR.as_ref(), uuid)
}

/// Give a domain another name
///
/// The name must be free on this host. Refused while the domain is being migrated: both hosts know it by its name.
#[derive(Debug, Args)]
pub(crate) struct Rename {
    /// The domain, by name or number
    domain: String,
    /// Its new name
    #[arg(value_parser = new_name)]
    name: String,
}

/// A name that is no number, which would be taken for a domid, and none that a migration gives.
fn new_name(name: &str) -> Result<String, String> {
    if name.is_empty() || name.chars().any(|letter| letter.is_control() || letter.is_whitespace() || letter == '/') {
        return Err("a name has no spaces, no slashes, and at least one letter".into());
    }
    if name.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("a number would be taken for a domain's number".into());
    }
    match plan::is_between_hosts(name) {
        true => Err("--incoming and --migratedaway mark domains that are being migrated".into()),
        false => Ok(name.to_owned()),
    }
}

/// Runs `rename`.
pub(crate) fn rename(args: &Rename, state_dir: &Path) -> Result<(), Error> {
    let hold = Hold::take(&args.domain, Act::Command, state_dir)?;
    // Nor may something that goes on under the new name meet it.
    let _new = match args.name == hold.domain.name {
        true => return Ok(()),
        false => Record::act(host::RUN_DIR.as_ref(), Act::Command, &args.name)?,
    };
    Ok(hold.context.rename(hold.domain.domid, &hold.domain.name, &args.name)?)
}

/// A domain that no migration has in hand, and none gets hold of while this lives.
pub(super) struct Hold {
    pub(super) context: Context,
    pub(super) domain: Domain,
    pub(super) alone: Record,
}

impl Hold {
    /// `act` is what is done to it, for whoever meets the record.
    pub(super) fn take(name: &str, act: Act, state_dir: &Path) -> Result<Hold, Error> {
        let context = Context::open()?;
        let domain = context.find(name)?.domain;
        if domain.domid == DomId(0) {
            return Err("Domain 0 is this host's own: name a guest, bascule list".into());
        }
        let name = &domain.name;
        if plan::is_between_hosts(name) {
            return Err(format!("{name} belongs to a migration that has not ended: bascule recover --dry-run").into());
        }
        let alone = Record::act(host::RUN_DIR.as_ref(), act, name)?;
        if journal::keeps_domain(state_dir, domain.uuid)? {
            return Err(format!("{name} is in a migration that is not finished: bascule recover --dry-run").into());
        }
        Ok(Hold { context, domain, alone })
    }

    pub(super) fn refuse_unless(&self, states: &[RunState], otherwise: &str) -> Result<(), Error> {
        let Domain { name, state, .. } = &self.domain;
        match states.contains(state) {
            true => Ok(()),
            false => Err(format!("{name} is {}: {otherwise}; look with bascule list", word(*state)).into()),
        }
    }
}

fn word(state: RunState) -> &'static str {
    match state {
        RunState::Running => "running",
        RunState::Paused => "paused",
        RunState::Suspended => "suspended",
        RunState::Shutdown => "shut down",
        RunState::Dying => "being destroyed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_means_something_else_is_refused() {
        for refused in ["", "a b", "a/b", "17", "vm--incoming", "vm--migratedaway", "a\n"] {
            assert!(new_name(refused).is_err(), "{refused:?}");
        }
        for taken in ["vm1", "web-2.example", "1a", "vm--x"] {
            assert_eq!(new_name(taken).as_deref(), Ok(taken));
        }
    }
}
