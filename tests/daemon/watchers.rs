//! Who watches domains: processes that the daemon starts, and that no end of the daemon's touches.

use std::fs;

use anyhow::ensure;
use bascule::abandoned::Charge;
use bascule::admission::{Act, Record};
use bascule::ids::DomId;
use bascule::watch::{announce, is_somebody_on_duty, is_watched};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use uuid::Uuid;

use crate::Tested;
use crate::process::{Daemon, wait};
use crate::stand_in::{Setting, record};

const FIVE: DomId = DomId(5);
const SIX: DomId = DomId(6);

/// A daemon that is killed leaves them; the next one gives a process to what nobody holds, and to nothing else.
pub(crate) fn watchers_outlive_their_daemon() -> Tested {
    let setting = Setting::default();
    let mut first = Daemon::start(&setting)?;
    let run_dir = first.run_dir();
    announce(&run_dir, FIVE, Uuid::from_u128(5))?;
    let watcher = Killed(wait("the domain is watched", || holder(&first))?);
    ensure!(is_somebody_on_duty(&run_dir), "nobody is on duty");

    first.signal(Signal::SIGKILL)?;
    first.ended()?;
    ensure!(is_watched(&run_dir, FIVE), "its watcher died with the daemon");
    ensure!(!is_somebody_on_duty(&run_dir), "somebody is on duty who is dead");

    let second = first.successor(&setting)?;
    announce(&run_dir, SIX, Uuid::from_u128(6))?;
    let other = Killed(wait("the other is watched", || Ok(second.workers()?.first().copied()))?);
    wait("it holds its record", || Ok(is_watched(&run_dir, SIX).then_some(())))?;
    ensure!(second.workers()? == [other.0], "a second watcher: {:?}", second.workers()?);

    drop(watcher);
    wait("the next one holds the record", || {
        Ok((second.workers()?.len() == 2 && is_watched(&run_dir, FIVE)).then_some(()))
    })?;
    second.workers()?.into_iter().map(Killed).for_each(drop);
    Ok(())
}

/// What a killed process has left of a domain gets a process that sees to it; what a living one has in hand does not.
pub(crate) fn what_a_killed_process_has_left_is_adopted() -> Tested {
    let daemon = Daemon::start(&Setting::default())?;
    let run_dir = daemon.run_dir();
    let mut alone = Record::act(&run_dir, Act::Restore, "vm")?;
    alone.charge(Charge::making(Uuid::from_u128(7)))?;
    let path = run_dir.join(format!("migration-{}.json", alone.entry().id));
    // As it would be without its process. The other lives.
    let left = fs::read(&path)?;
    let text = String::from_utf8(left)?.replace(&alone.entry().id.to_string(), &Uuid::from_u128(8).to_string());
    let of_the_dead = run_dir.join(format!("migration-{}.json", Uuid::from_u128(8)));
    fs::write(&of_the_dead, text)?;
    let adopted = format!("nobody worked on what process {} has left of vm", std::process::id());
    wait("it is adopted", || Ok(daemon.log()?.contains(&adopted).then_some(())))?;
    ensure!(!daemon.log()?.contains(&alone.entry().id.to_string()), "a living one was adopted");
    ensure!(of_the_dead.exists() && path.exists(), "its record went before it was seen to");
    Ok(())
}

/// The daemon's first child, once it holds the record.
fn holder(daemon: &Daemon) -> anyhow::Result<Option<i32>> {
    let watched = is_watched(&daemon.run_dir(), FIVE) && record(&daemon.run_dir(), FIVE).exists();
    Ok(daemon.workers()?.first().copied().filter(|_| watched))
}

/// A process that ends with the test, whoever its parent is by now.
struct Killed(i32);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.0), Signal::SIGKILL);
    }
}
