//! Domains that have a record and nobody who watches them: each gets a process that does. It is no part of the daemon: it lives on when the
//! daemon ends, and the next daemon leaves it alone.

use std::collections::HashMap;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use crate::ids::DomId;
use crate::migrate::chain;
use crate::watch::{self, Duty};

/// How often the records are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How long after a watching process has ended, its record still there, the next one is started.
const AGAIN_AFTER: Duration = Duration::from_secs(10);

/// The daemon's care for watchers.
pub(super) struct Watchers<'a> {
    run_dir: PathBuf,
    watcher: &'a dyn Fn(DomId) -> Command,
    /// None while another daemon of this host has it.
    duty: Option<Duty>,
    running: HashMap<DomId, Child>,
    not_before: HashMap<DomId, Instant>,
    /// Why the records could not be read last.
    complained: Option<String>,
    next_look: Instant,
}

impl<'a> Watchers<'a> {
    pub(super) fn new(run_dir: PathBuf, watcher: &'a dyn Fn(DomId) -> Command) -> Watchers<'a> {
        let (running, not_before) = (HashMap::new(), HashMap::new());
        Watchers { run_dir, watcher, duty: None, running, not_before, complained: None, next_look: Instant::now() }
    }

    /// Looks, if it is time to.
    pub(super) fn look(&mut self) {
        if Instant::now() < self.next_look {
            return;
        }
        self.next_look = Instant::now() + LOOK_INTERVAL;
        self.reap();
        match self.unwatched() {
            Ok(domids) => domids.into_iter().for_each(|domid| self.give(domid)),
            Err(error) => self.complain(chain(&error)),
        }
    }

    /// Once for each reason: it looks every second.
    fn complain(&mut self, why: String) {
        if self.complained.as_ref() != Some(&why) {
            tracing::error!(error = why, "the records of watched domains cannot be read: nobody will watch them");
            self.complained = Some(why);
        }
    }

    fn unwatched(&mut self) -> Result<Vec<DomId>, watch::RecordError> {
        if self.duty.is_none() {
            self.duty = Duty::take(&self.run_dir)?;
        }
        match self.duty {
            Some(_) => watch::unwatched(&self.run_dir),
            None => Ok(Vec::new()),
        }
    }

    fn give(&mut self, domid: DomId) {
        let waits = self.not_before.contains_key(&domid);
        if waits || self.running.contains_key(&domid) {
            return;
        }
        // In a process group of its own: what a terminal says to the daemon is not said to it.
        match (self.watcher)(domid).process_group(0).spawn() {
            Ok(child) => {
                tracing::info!(%domid, process = child.id(), "watched");
                self.running.insert(domid, child);
            }
            Err(error) => tracing::error!(%domid, %error, "no process could be started to watch it"),
        }
    }

    fn reap(&mut self) {
        let now = Instant::now();
        self.not_before.retain(|_, moment| now < *moment);
        let ended: Vec<DomId> = self.running.iter_mut().filter_map(|(domid, child)| ended(*domid, child)).collect();
        for domid in ended {
            self.running.remove(&domid);
            self.not_before.insert(domid, now + AGAIN_AFTER);
        }
    }
}

fn ended(domid: DomId, child: &mut Child) -> Option<DomId> {
    match child.try_wait() {
        Ok(None) => None,
        Ok(Some(status)) => {
            tracing::info!(%domid, process = child.id(), %status, "no longer watched by this process");
            Some(domid)
        }
        Err(error) => {
            tracing::error!(%domid, %error, "a watching process cannot be waited for");
            Some(domid)
        }
    }
}
