//! Journals with work left and nobody who does it, and records of killed processes that say what is left to do: each gets a process that recovers it.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::sessions::terminate;
use crate::admission;
use crate::journal::{self, Listed};
use crate::migrate::chain;

/// How often the journals are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How long after a recovering process has ended without an end of the migration the next one is started.
const AGAIN_AFTER: Duration = Duration::from_secs(10);
/// The most processes that recover at one time.
const RUNNING_MAX: usize = 8;

/// The daemon's care for orphans.
pub(super) struct Orphans<'a> {
    run_dir: PathBuf,
    state_dir: PathBuf,
    recoverer: &'a dyn Fn(Uuid) -> Command,
    running: HashMap<Uuid, Child>,
    not_before: HashMap<Uuid, Instant>,
    /// Journals that cannot be read, and have been complained of.
    unreadable: HashSet<Uuid>,
    next_look: Instant,
}

impl<'a> Orphans<'a> {
    pub(super) fn new(run_dir: PathBuf, state_dir: PathBuf, recoverer: &'a dyn Fn(Uuid) -> Command) -> Orphans<'a> {
        let (running, not_before, unreadable) = (HashMap::new(), HashMap::new(), HashSet::new());
        Orphans { run_dir, state_dir, recoverer, running, not_before, unreadable, next_look: Instant::now() }
    }

    /// Looks, if it is time to.
    pub(super) fn look(&mut self) {
        if Instant::now() < self.next_look {
            return;
        }
        self.next_look = Instant::now() + LOOK_INTERVAL;
        self.reap();
        match journal::unfinished(&self.state_dir) {
            Ok(journals) => journals.iter().for_each(|journal| self.consider(journal)),
            Err(error) => tracing::error!(%error, "the journals cannot be read"),
        }
        match admission::abandoned(&self.run_dir) {
            Ok(left) => left.iter().for_each(|entry| {
                self.adopt(entry.id, &format!("what process {} has left of {}", entry.pid, entry.name))
            }),
            Err(error) => tracing::error!(error = %chain(&error), "the records of killed processes cannot be read"),
        }
    }

    /// A journal that cannot be read needs a person, not a process.
    fn consider(&mut self, journal: &Listed) {
        match &journal.story {
            Ok(story) if !journal.held && !story.is_done() => self.adopt(journal.id, "this migration"),
            Ok(_) => {}
            Err(error) if self.unreadable.insert(journal.id) => {
                tracing::error!(id = %journal.id, error = %chain(error), "nobody can work on this migration: a person must look");
            }
            Err(_) => {}
        }
    }

    fn adopt(&mut self, id: Uuid, what: &str) {
        let waits = self.not_before.get(&id).is_some_and(|moment| Instant::now() < *moment);
        if waits || self.running.contains_key(&id) || self.running.len() >= RUNNING_MAX {
            return;
        }
        match (self.recoverer)(id).spawn() {
            Ok(child) => {
                tracing::warn!(%id, process = child.id(), "adopted: nobody worked on {what}");
                self.running.insert(id, child);
            }
            Err(error) => tracing::error!(%id, %error, "no process could be started to recover it"),
        }
    }

    fn reap(&mut self) {
        let ended: Vec<Uuid> = self.running.iter_mut().filter_map(|(id, child)| has_ended(*id, child)).collect();
        for id in ended {
            self.running.remove(&id);
            self.not_before.insert(id, Instant::now() + AGAIN_AFTER);
        }
    }

    /// How many processes recover.
    pub(super) fn count(&self) -> usize {
        self.running.len()
    }

    /// Tells the processes to leave; what they were doing is in the journals.
    pub(super) fn ask_to_end(&self) {
        self.running.values().for_each(terminate);
    }

    /// Whether they have left.
    pub(super) fn have_ended(&mut self) -> bool {
        self.reap();
        self.running.is_empty()
    }
}

fn has_ended(id: Uuid, child: &mut Child) -> Option<Uuid> {
    match child.try_wait() {
        Ok(None) => None,
        Ok(Some(status)) => {
            tracing::info!(%id, process = child.id(), %status, "recovery ended");
            Some(id)
        }
        Err(error) => {
            tracing::error!(%id, %error, "a recovering process cannot be waited for");
            Some(id)
        }
    }
}
