//! Somebody who watches a domain: when it reboots, crashes or powers off, what its configuration says is done (`on_reboot` and its like), as
//! xl's process does it for each domain that xl has started.
//!
//! A domain that we have started, or that came here, has a record ([`record`]); the daemon starts a process for each record that nobody holds,
//! and that process tells the story below. Processes outlive the daemon. What is done is decided by [`decide`].
//!
//! Invariants: a domain that a migration has in hand, or has moved away, is left alone (I1 to I3 of ARCHITECTURE.md). Everything is done under
//! the domain's name in [`admission`], where a migration of it would stand: who holds that goes on, the other is refused or waits. No domain
//! has two who act: while xl's own process is there, it is xl's.

pub mod decide;
mod record;
pub mod xl;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use uuid::Uuid;

use self::decide::{Actions, Deed, Hand, Verdict, judge};
use self::record::Post;
pub(crate) use self::record::{Duty, unwatched};
pub use self::record::{Error as RecordError, announce, is_somebody_on_duty, is_watched};
use crate::abandoned;
use crate::admission::{self, Act};
use crate::ids::DomId;
use crate::journal;
use crate::migrate::chain;
use crate::plan;
use crate::stream::Cancel;
use crate::toolstack::{Domain, Error, RunState};
use crate::wait::poll_until;
use crate::xen::DomainConfig;
use crate::xen::domain::{DomainInfo, Ended};

/// What is done with a domain that has ended; [`crate::xen::Context`] does it by libxl.
pub trait Domains {
    /// One domain, or `None` when no domain has that number.
    ///
    /// # Errors
    /// The hypervisor does not answer.
    fn look(&self, domid: DomId) -> Result<Option<DomainInfo>, Error>;

    /// Whether this host has a domain of this name or UUID.
    ///
    /// # Errors
    /// The hypervisor does not answer.
    fn exists(&self, config: &DomainConfig) -> Result<bool, Error>;

    /// Waits until a domain has shut down or is gone; a suspended one has not. `None` at the deadline.
    ///
    /// # Errors
    /// The hypervisor or xenstore does not answer.
    fn await_end(&self, domid: DomId, deadline: Instant) -> Result<Option<Ended>, Error>;

    /// The configuration that libxl has stored, with what was changed since the domain was started.
    ///
    /// # Errors
    /// libxl did not make the domain.
    fn stored(&self, domid: DomId) -> Result<DomainConfig, Error>;

    /// Destroys it and removes its devices.
    ///
    /// # Errors
    /// A device could not be removed; the domain may be gone all the same.
    fn end(&self, domid: DomId) -> Result<(), Error>;

    /// Makes a domain, paused. `notice` is called with its number as soon as it has one.
    ///
    /// # Errors
    /// What had been made of it is destroyed.
    fn make(&self, config: &DomainConfig, notice: &mut (dyn FnMut(DomId) + Send)) -> Result<DomId, Error>;

    /// Lets a paused domain run.
    ///
    /// # Errors
    /// It stays paused.
    fn run(&self, domid: DomId) -> Result<(), Error>;

    /// Gives it another UUID, and this behind its name, so that its own are free.
    ///
    /// # Errors
    /// It is as it was.
    fn preserve(&self, domid: DomId, config: &DomainConfig, suffix: &str) -> Result<(), Error>;

    /// Writes its memory to a file.
    ///
    /// # Errors
    /// The file may be incomplete.
    fn dump(&self, domid: DomId, file: &Path) -> Result<(), Error>;

    /// Lets it begin anew in its memory; it is paused then.
    ///
    /// # Errors
    /// It cannot go on.
    fn soft_reset(&self, domid: DomId, config: &DomainConfig) -> Result<(), Error>;
}

/// What a watcher works with on this host.
pub struct Watcher<'a> {
    /// The way to Xen.
    pub domains: &'a dyn Domains,
    /// Where the records are.
    pub run_dir: &'a Path,
    /// Where the journals of migrations are.
    pub state_dir: &'a Path,
    /// Whether a process of xl's acts for a domain; [`xl::watches`] but in tests.
    pub xl: &'a dyn Fn(DomId, &str) -> bool,
}

impl std::fmt::Debug for Watcher<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watcher").field("run_dir", &self.run_dir).finish_non_exhaustive()
    }
}

/// xl's own process for a domain ends when the domain suspends (xl_vmcontrol.c, 4.17). One that goes on after that has ours, which acts only
/// where xl's does not. For whoever is about to suspend it.
pub fn stand_in_for_xl(run_dir: &Path, domid: DomId, name: &str, uuid: Uuid) {
    if !xl::watches(domid, name) {
        return;
    }
    if let Err(error) = announce(run_dir, domid, uuid) {
        tracing::warn!(error = %chain(&error), "if the domain goes on, nobody will act when it reboots or crashes");
    }
}

/// Between two looks at the wish to stop, while the domain runs.
const STOP_INTERVAL: Duration = Duration::from_secs(1);
/// Between two looks at a domain that another has in hand.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// How long the hypervisor may take to let go of the memory of a domain that was destroyed, before it is made anew.
const GONE_WAIT: Duration = Duration::from_secs(10);
/// How long somebody may take to see to what a killed watcher was making: the daemon has him started as it has this process.
const SEEN_TO_WAIT: Duration = Duration::from_secs(60);
/// A domain that ends sooner than this after its start has had a short life.
const LIFE_MIN: Duration = Duration::from_secs(60);
/// How long a domain waits to be started anew after its second short life in a row; each further one doubles it.
const PAUSE_MIN: Duration = Duration::from_secs(2);
/// The longest of these pauses: a domain that crashes while it boots is started about once a minute.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// How long a restart that a killed process has left may wait for the next. Later, a person may have decided otherwise meanwhile.
const RESTART_AGE_MAX: Duration = Duration::from_secs(300);
/// Where memory is written to (`XEN_DUMP_DIR`).
const DUMPS: &str = "/var/lib/xen/dump";

/// Watches a domain until it is gone for good, or until `stop` is asked for: then the record is the next process's. Does nothing when another
/// process watches it.
///
/// # Errors
/// The hypervisor, or a file, cannot be used; the record is the next process's.
pub fn watch(watcher: &Watcher<'_>, domid: DomId, stop: &Cancel) -> Result<(), Error> {
    let Some(post) = Post::take(watcher.run_dir, domid)? else { return Ok(()) };
    let mut watch = Watch { watcher, post, since: Instant::now(), ended_at: None, short_lives: 0, waits: false };
    let mut next = watch.resume()?;
    while !stop.requested() {
        next = match next {
            Next::Over => {
                watch.post.close();
                return Ok(());
            }
            Next::Runs => watch.await_end(Instant::now() + STOP_INTERVAL)?,
            Next::Look => {
                std::thread::sleep(LOOK_INTERVAL);
                watch.treat()?
            }
        };
    }
    Ok(())
}

/// One process's watch.
struct Watch<'a> {
    watcher: &'a Watcher<'a>,
    post: Post,
    /// Since when the domain runs, as far as this process knows.
    since: Instant,
    /// When it was seen to have shut down.
    ended_at: Option<Instant>,
    /// How many lives in a row were short.
    short_lives: u32,
    /// It has been said that another has the domain in hand.
    waits: bool,
}

/// What the watcher does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Wait for the domain's end.
    Runs,
    /// It has ended; look again what is to be done.
    Look,
    /// Nothing is left to watch.
    Over,
}

impl Watch<'_> {
    /// Goes on where a process that was killed has left off.
    fn resume(&mut self) -> Result<Next, Error> {
        let Some(restart) = self.post.watched().restart.clone() else { return Ok(Next::Runs) };
        let age = Timestamp::now().duration_since(restart.since).unsigned_abs();
        let config = DomainConfig::from_json(&restart.config.to_string())?;
        let alone = self.alone_after_death(config.name());
        if self.domain()?.is_some() {
            self.post.note_running()?;
            return Ok(Next::Runs);
        }
        if age > RESTART_AGE_MAX || self.post.watched().boot != journal::this_boot() {
            tracing::error!(
                domain = config.name(),
                ?age,
                "its restart was interrupted too long ago: it is not started"
            );
            return Ok(Next::Over);
        }
        let mut alone = match alone {
            Ok(alone) => alone,
            Err(error) => return given_up(&config, &error.to_string()),
        };
        if self.watcher.domains.exists(&config)? {
            return given_up(&config, "a domain of this name or UUID exists: look with bascule list");
        }
        if config.uuid().is_none_or(|uuid| journal::keeps_domain(self.watcher.state_dir, uuid).unwrap_or(true)) {
            return given_up(&config, "a migration of it is not finished: bascule recover --dry-run");
        }
        tracing::warn!(domain = config.name(), "the process that was starting it anew is gone: started by this one");
        Ok(self.start(&config, &mut alone))
    }

    /// Alone with the domain's name, when what the killed process has left of the one that it was making is seen to.
    fn alone_after_death(&self, name: &str) -> Result<admission::Record, admission::Error> {
        let (run_dir, uuid) = (self.watcher.run_dir, self.post.watched().uuid);
        let is_seen_to = || (!abandoned::is_left(run_dir, uuid)).then_some(());
        if poll_until(Instant::now() + SEEN_TO_WAIT, is_seen_to).is_none() {
            tracing::warn!(domain = name, "what the killed process has left is not seen to: bascule recover");
        }
        admission::Record::act(run_dir, Act::Restart, name)
    }

    /// The domain that the record means: numbers begin anew when the host is booted.
    fn domain(&self) -> Result<Option<DomainInfo>, Error> {
        let watched = self.post.watched();
        if watched.boot != journal::this_boot() {
            return Ok(None);
        }
        Ok(self.watcher.domains.look(watched.domid)?.filter(|info| info.domain.uuid == watched.uuid))
    }

    /// The domain, unless somebody destroys it.
    fn ended(&self) -> Result<Option<DomainInfo>, Error> {
        Ok(self.domain()?.filter(|info| info.domain.state != RunState::Dying))
    }

    fn await_end(&mut self, deadline: Instant) -> Result<Next, Error> {
        match self.watcher.domains.await_end(self.post.domid(), deadline)? {
            Some(_) => self.treat(),
            // A number that belongs to another domain by now has no end to wait for.
            None if self.domain()?.is_none() => Ok(Next::Over),
            None => Ok(Next::Runs),
        }
    }

    /// The domain has ended, or had when it was looked at last.
    fn treat(&mut self) -> Result<Next, Error> {
        let Some(domain) = self.ended()? else { return Ok(self.gone()) };
        if domain.shutdown.is_none() {
            return Ok(Next::Runs);
        }
        self.ended_at.get_or_insert_with(Instant::now);
        let mut alone = match self.alone(&domain.domain)? {
            Ok(alone) => alone,
            Err(hand) => return Ok(self.wait(&domain.domain, hand)),
        };
        // Who destroys a domain does not want it started anew.
        let Some(DomainInfo { domain, shutdown: Some(reason), .. }) = self.ended()? else { return Ok(Next::Look) };
        let config = self.watcher.domains.stored(domain.domid)?.with_name(&domain.name);
        match judge(reason, &Actions::of(config.value()), Hand::Ours) {
            Verdict::Wait => Ok(Next::Look),
            Verdict::Act { deed: Deed::Restart, .. } if !self.pause_is_over() => Ok(Next::Look),
            Verdict::Act { dump, deed } => {
                tracing::info!(domain = domain.name, domid = %domain.domid, ?reason, ?deed, "domain has shut down");
                if dump {
                    self.dump(&domain);
                }
                self.carry_out(deed, &domain, &config, &mut alone)
            }
        }
    }

    fn gone(&self) -> Next {
        tracing::info!(domid = %self.post.domid(), "domain is gone");
        Next::Over
    }

    /// The domain is nobody else's for as long as the record lives: whoever migrates it would stand there under its name, and nobody begins to
    /// while we do. Else who has it in hand.
    fn alone(&self, domain: &Domain) -> Result<Result<admission::Record, Hand>, Error> {
        let hand = self.hand(domain)?;
        if hand != Hand::Ours {
            return Ok(Err(hand));
        }
        let Ok(record) = admission::Record::act(self.watcher.run_dir, Act::End, &domain.name) else {
            return Ok(Err(Hand::Migration));
        };
        // A migration may have opened its journal between the two looks, and died.
        Ok(match self.hand(domain)? {
            Hand::Ours => Ok(record),
            hand => Err(hand),
        })
    }

    /// Who else has the domain in hand. What the name says counts also where no journal tells: a copy that arrives or has been moved away is
    /// never the watcher's.
    fn hand(&self, domain: &Domain) -> Result<Hand, Error> {
        if plan::is_between_hosts(&domain.name) || journal::keeps_domain(self.watcher.state_dir, domain.uuid)? {
            return Ok(Hand::Migration);
        }
        Ok(if (self.watcher.xl)(domain.domid, &domain.name) { Hand::Xl } else { Hand::Ours })
    }

    fn wait(&mut self, domain: &Domain, hand: Hand) -> Next {
        if !std::mem::replace(&mut self.waits, true) {
            tracing::info!(domain = domain.name, domid = %domain.domid, ?hand, "domain has shut down in another's hand: left to it");
        }
        Next::Look
    }

    /// A domain that ends again and again soon after its start is started at longer and longer intervals. It stays as it ended meanwhile, and
    /// keeps its volumes.
    fn pause_is_over(&self) -> bool {
        let ended_at = self.ended_at.unwrap_or(self.since);
        let short = ended_at - self.since < LIFE_MIN;
        ended_at.elapsed() >= pause_after(if short { self.short_lives } else { 0 })
    }

    fn dump(&self, domain: &Domain) {
        let file: PathBuf = Path::new(DUMPS).join(domain.name.replace('/', "_"));
        match self.watcher.domains.dump(domain.domid, &file) {
            Ok(()) => tracing::info!(domain = domain.name, file = %file.display(), "memory written"),
            Err(error) => {
                tracing::warn!(domain = domain.name, file = %file.display(), error = %chain(error.as_ref()), "memory not written");
            }
        }
    }

    fn carry_out(
        &mut self,
        deed: Deed,
        domain: &Domain,
        config: &DomainConfig,
        alone: &mut admission::Record,
    ) -> Result<Next, Error> {
        match deed {
            Deed::Preserve => Ok(Next::Over),
            Deed::Destroy => self.destroy(domain).map(|()| Next::Over),
            Deed::Restart => {
                self.post.note_restart(config.value())?;
                self.destroy(domain)?;
                Ok(self.start(config, alone))
            }
            Deed::RestartRenamed => {
                let suffix = Timestamp::now().strftime("-%Y%m%dT%H%MZ").to_string();
                self.post.note_restart(config.value())?;
                self.watcher.domains.preserve(domain.domid, config, &suffix)?;
                Ok(self.start(config, alone))
            }
            Deed::SoftReset => Ok(self.soft_reset(domain, config)),
        }
    }

    /// A device that could not be removed does not keep the domain, as a rule; and its memory is given back a little later.
    fn destroy(&self, domain: &Domain) -> Result<(), Error> {
        let ended = self.watcher.domains.end(domain.domid);
        let is_gone = || matches!(self.domain(), Ok(None)).then_some(());
        match (poll_until(Instant::now() + GONE_WAIT, is_gone), ended) {
            (Some(()), Err(error)) => {
                tracing::warn!(domain = domain.name, error = %chain(error.as_ref()), "destroyed, but not all of it");
                Ok(())
            }
            // What holds its memory still, an unfinished write as a rule, lets go in its own time.
            (_, Ok(())) => Ok(()),
            (None, Err(error)) => Err(error),
        }
    }

    /// Makes the domain and lets it run. Its volumes come by block-drbd, which asks what it asks at every start (I6).
    fn start(&mut self, config: &DomainConfig, alone: &mut admission::Record) -> Next {
        let domid = match self.make(config, alone) {
            Ok(domid) => domid,
            Err(error) => {
                tracing::error!(domain = config.name(), error = %chain(error.as_ref()),
                    "it could not be started anew: nobody runs it now; bascule create starts it from its file");
                return Next::Over;
            }
        };
        if let Err(error) = self.post.move_to(domid) {
            tracing::error!(domain = config.name(), %domid, error = %chain(&error), "its record cannot be written: nobody will watch it");
        }
        self.let_run(config.name(), domid)
    }

    fn make(&self, config: &DomainConfig, alone: &mut admission::Record) -> Result<DomId, Error> {
        let domains = self.watcher.domains;
        match config.uuid() {
            Some(uuid) => domains.make(config, &mut abandoned::making(alone, uuid)?),
            None => domains.make(config, &mut |_| {}),
        }
    }

    fn let_run(&mut self, name: &str, domid: DomId) -> Next {
        self.begin_life();
        match self.watcher.domains.run(domid) {
            Ok(()) => tracing::info!(domain = name, %domid, "started anew"),
            Err(error) => {
                tracing::error!(domain = name, %domid, error = %chain(error.as_ref()), "it stays paused: bascule unpause {domid}");
            }
        }
        if let Err(error) = self.post.note_running() {
            tracing::error!(domain = name, %domid, error = %chain(&error), "its record still says that it is being started anew");
        }
        Next::Runs
    }

    fn begin_life(&mut self) {
        let short = self.ended_at.is_some_and(|ended_at| ended_at - self.since < LIFE_MIN);
        self.short_lives = if short { self.short_lives + 1 } else { 0 };
        (self.since, self.ended_at, self.waits) = (Instant::now(), None, false);
    }

    /// As xl: what cannot begin anew is destroyed.
    fn soft_reset(&mut self, domain: &Domain, config: &DomainConfig) -> Next {
        match self.watcher.domains.soft_reset(domain.domid, config) {
            Ok(()) => self.let_run(&domain.name, domain.domid),
            Err(error) => {
                tracing::error!(domain = domain.name, error = %chain(error.as_ref()), "no soft reset: the domain is destroyed");
                if let Err(error) = self.destroy(domain) {
                    tracing::error!(domain = domain.name, error = %chain(error.as_ref()), "it could not be destroyed");
                }
                Next::Over
            }
        }
    }
}

fn given_up(config: &DomainConfig, why: &str) -> Result<Next, Error> {
    tracing::error!(domain = config.name(), why, "its restart was interrupted, and is not gone on with");
    Ok(Next::Over)
}

/// How long a domain stays down after so many short lives in a row before this one.
fn pause_after(short_lives: u32) -> Duration {
    match short_lives {
        0 => Duration::ZERO,
        nth => (PAUSE_MIN * (1 << (nth - 1).min(5))).min(PAUSE_MAX),
    }
}

#[cfg(test)]
mod tests;
