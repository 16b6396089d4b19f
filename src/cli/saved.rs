//! `bascule save` and `restore`.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bascule::admission::{Act, Record};
use bascule::drbd::Drbd;
use bascule::ids::{DomId, VolumeId};
use bascule::migrate::chain;
use bascule::plan::DomainFacts;
use bascule::replication::{Replication, VolumeState};
use bascule::saved::note::{self, Note, Since};
use bascule::saved::{self, Afterwards, Left, Outcome, Request, Saved};
use bascule::stream::Cancel;
use bascule::toolstack::{OnStream, RunState, StreamEvent, StreamProgress};
use bascule::watch::{self, Domains};
use bascule::xen::{Context, DomainConfig};
use bascule::{host, journal, plan};
use clap::Args;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::ConfigFile;
use super::console::Attached;
use super::domain::{self, Begin};
use super::exit::{self, Error};
use super::life::Hold;
use super::pace::Pace;

/// Save a domain to a file
///
/// The domain is suspended, its memory goes to FILE, and then it is destroyed; `bascule restore`, or `xl restore`, lets it go on from there. Its
/// disks stay where they are, and this host is Secondary for its volumes. The domain is destroyed when FILE is complete and on disk, not
/// before; whatever fails until then, Ctrl-C included, makes it run on and leaves no file. Only root can read FILE. Where xl overwrites
/// a file that is there already, this refuses, unless --force is given.
///
/// FILE is good for the disks as they are at that moment. A domain that goes on after it (--checkpoint), and whatever else writes them,
/// makes it worthless, and restoring it all the same ruins the domain's file systems. FILE says what its volumes were, so that
/// `bascule restore` can tell in many cases; a file of `xl save` says nothing.
///
/// Should this very program be killed in the middle (SIGKILL), the daemon does what is left to do, within seconds: without a complete FILE the domain goes
/// on, and FILE.PID.partial is removed; with one, what was asked for is done. On a host without a daemon, `bascule recover` does it.
#[derive(Debug, Args)]
pub(crate) struct Save {
    /// The domain, by name or number
    domain: String,
    /// The file; it takes as much space as the domain has memory
    file: PathBuf,
    /// Let the domain run on afterwards
    #[arg(short, long)]
    checkpoint: bool,
    /// Leave the domain here, paused, afterwards
    #[arg(short, long)]
    pause: bool,
    /// Replace FILE if it exists
    #[arg(short, long)]
    force: bool,
}

/// Runs `save`.
pub(crate) fn save(args: &Save, state_dir: &Path) -> ExitCode {
    match try_save(args, state_dir) {
        Ok((name, outcome)) => conclude(args, &name, outcome),
        Err(error) => exit::fail(exit::FAILED, &chain(error.as_ref())),
    }
}

fn try_save(args: &Save, state_dir: &Path) -> Result<(String, Outcome), Error> {
    let mut hold = Hold::take(&args.domain, Act::Save, state_dir)?;
    hold.refuse_unless(&[RunState::Running], "it cannot hear the request to suspend")?;
    let Hold { context, domain, alone } = &mut hold;
    let config = context.retrieve(domain.domid)?.with_name(&domain.name);
    let volumes = Volumes::of(&config);
    let cancel = Cancel::default();
    super::serve::cancel_on(&cancel, &SIGNALS)?;
    watch::stand_in_for_xl(host::RUN_DIR.as_ref(), domain.domid, &domain.name, domain.uuid);
    let request = Request {
        domid: domain.domid,
        uuid: domain.uuid,
        config,
        memory_kib: domain.memory_kib,
        file: &args.file,
        replace: args.force,
        afterwards: match (args.pause, args.checkpoint) {
            (true, _) => Afterwards::Pause,
            (false, true) => Afterwards::Resume,
            (false, false) => Afterwards::Destroy,
        },
        note: volumes.note(),
    };
    let at_rest = || volumes.note_at_rest(domain.domid);
    let outcome = saved::save(&*context, &request, alone, &at_rest, &lines(&domain.name), &cancel);
    Ok((domain.name.clone(), outcome))
}

/// A terminal that is closed is a wish to stop, too: killed, the process would leave the domain suspended.
const SIGNALS: [i32; 3] = [SIGINT, SIGTERM, SIGHUP];

/// One line for the moment, and at most one a second after it.
fn lines(name: &str) -> OnStream {
    let (name, pace) = (name.to_owned(), Pace::default());
    Arc::new(move |event| match event {
        StreamEvent::Suspended => out!("{name} is suspended"),
        StreamEvent::Progress(StreamProgress { round, done, total }) if pace.is_due(round, done == total) => {
            out!("    {done} of {total} pages");
        }
        StreamEvent::Progress(_) => {}
    })
}

fn conclude(args: &Save, name: &str, outcome: Outcome) -> ExitCode {
    let file = args.file.display();
    match outcome {
        Outcome::Saved { bytes, stood_still, left } => {
            let mib = bytes >> 20;
            match stood_still.map(|time| time.as_secs_f64()) {
                None => out!("{name} is saved in {file} ({mib} MiB) and no longer here: bascule restore {file}"),
                Some(_) if args.pause => {
                    out!(
                        "{name} is saved in {file} ({mib} MiB) and paused here. Once it runs on, {file} no longer fits its disks"
                    );
                }
                Some(seconds) => out!(
                    "{name} is saved in {file} ({mib} MiB) and runs on, after {seconds:.1} s. Its disks go on, too: {file} fits only a \
                     copy of them from that moment"
                ),
            }
            if let Some(error) = left {
                out!("Not all of it could be removed: {}", chain(error.as_ref()));
            }
            ExitCode::from(exit::DONE)
        }
        Outcome::Failed(error) => {
            exit::fail(exit::FAILED, &format!("{}. {name} was not touched and runs on", chain(error.as_ref())))
        }
        Outcome::RolledBack { reason } => {
            exit::fail(exit::FAILED, &format!("{}. {name} runs on, and nothing is saved", chain(reason.as_ref())))
        }
        Outcome::Indeterminate { reason, state } => {
            exit::fail(exit::IN_DOUBT, &format!("{}\n{}", chain(reason.as_ref()), advice(args, name, state)))
        }
    }
}

fn advice(args: &Save, name: &str, state: Left) -> String {
    let file = args.file.display();
    match state {
        Left::Suspended => {
            format!("{name} stays suspended, and nothing is saved. To let it go on: bascule resume {name}")
        }
        Left::SavedAndSuspended => format!(
            "{name} stays suspended, and {file} is complete. Either bascule destroy {name}, and {file} is good; or bascule resume {name}, \
             and {file} no longer fits its disks"
        ),
        Left::Gone => {
            format!(
                "{name} has ended meanwhile, not by this, and nothing is saved. Its watcher does what its configuration says: bascule list"
            )
        }
        Left::Unknown => {
            format!(
                "It is not known what {name} does, and nothing is saved: bascule list; if it is suspended, bascule resume {name}"
            )
        }
    }
}

/// Let a domain go on from a file
///
/// FILE is what `bascule save` or `xl save` has written; it stays where it is. The domain must not exist any more, on this host, under its name or its
/// UUID. Its volumes are attached as by `bascule create`: refused while the peer is Primary.
///
/// A domain's memory fits its disks only as they were when it was saved: what is in memory of a file system that has gone on meanwhile ruins
/// it. A file of `bascule save` says what the DRBD volumes were. On the same host, as long as that was not booted, this proves that nobody has
/// written them, or that somebody has; elsewhere and later, another data generation proves that somebody has, and the same one proves
/// nothing. Volumes that were written make this refuse (--force), and what cannot be told is said, for a file of `xl save` always. Other disks are not
/// looked at.
///
/// Should this very program be killed (SIGKILL) before the domain runs, the daemon, or `bascule recover`, destroys what there is of it; FILE is
/// as it was.
#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// The saved file
    file: PathBuf,
    /// A domain's file of xl's format, instead of the configuration that was saved, for a domain whose devices are elsewhere now. xl's order,
    /// this one first, is understood, too
    #[arg(value_name = "CONFIG-FILE")]
    domain_file: Option<ConfigFile>,
    /// Leave the domain paused
    #[arg(short, long)]
    paused: bool,
    /// Attach to its console before it runs
    #[arg(short, long)]
    console: bool,
    /// Restore it although its volumes were written since. Only for disks that were put back to what they were
    #[arg(short, long)]
    force: bool,
    /// Say nothing about what cannot be told, and about keys of CONFIG-FILE that are deprecated or have no effect
    #[arg(short, long)]
    quiet: bool,
}

/// Runs `restore`.
pub(crate) fn restore(args: &Restore, state_dir: &Path) -> Result<(), Error> {
    let (saved, file) = open(args)?;
    let config = configuration(args, &saved, file)?;
    let name = config.name();
    if plan::is_between_hosts(name) {
        return Err(format!("{name} was saved in the middle of a migration: its copy cannot be restored").into());
    }
    let context = Context::open()?;
    let mut alone = Record::act(host::RUN_DIR.as_ref(), Act::Restore, name)?;
    if let Some(uuid) = config.uuid()
        && journal::keeps_domain(state_dir, uuid)?
    {
        return Err(format!("{name} is in a migration that is not finished: bascule recover --dry-run").into());
    }
    if context.exists(&config)? {
        return Err(format!("A domain of the name or the UUID of {name} exists here: bascule list").into());
    }
    let volumes = Volumes::of(&config);
    let before = volumes.states()?;
    judge(args, &volumes, saved.note.as_ref(), &before)?;

    let cancel = Cancel::default();
    super::serve::cancel_on(&cancel, &SIGNALS)?;
    let (silent, stream): (OnStream, _) = (Arc::new(|_| {}), saved.file.as_fd());
    let domid = domain::make(&context, &config, &mut alone, || {
        saved::abortable(&cancel, |handle| Ok(context.restore(&config, stream, &silent, handle)?))
    })?;
    still_as_before(&context, domid, &before, &volumes)?;
    let console = domain::begin(&context, domid, alone, Begin { paused: args.paused, console: args.console })?;
    console.map_or(Ok(()), Attached::attend)
}

/// The saved file, and the domain's, in either order.
fn open(args: &Restore) -> Result<(Saved, Option<&Path>), Error> {
    match (saved::open(&args.file), &args.domain_file) {
        (Err(error), Some(second)) if error.is_other_kind() => Ok((saved::open(second)?, Some(&args.file))),
        (opened, domain_file) => Ok((opened?, domain_file.as_deref())),
    }
}

fn configuration(args: &Restore, saved: &Saved, file: Option<&Path>) -> Result<DomainConfig, Error> {
    let Some(file) = file else {
        let missing = "No configuration is in it that can be read: name the domain's file behind it";
        return saved.config.clone().ok_or_else(|| missing.into());
    };
    domain::load(file, &[], &domain::as_configured(args.quiet)?, args.quiet)
}

/// Refuses what is known to ruin the domain's file systems, and says what is not known.
fn judge(args: &Restore, volumes: &Volumes, note: Option<&Note>, now: &[VolumeState]) -> Result<(), Error> {
    let found: Vec<(&VolumeId, Since)> =
        now.iter().map(|state| (&state.id, note::since(note, &volumes.node, volumes.boot, state))).collect();
    let said = |(id, since): &(&VolumeId, Since)| format!("{id} {since}");
    let written: Vec<String> = found.iter().filter(|(_, since)| since.is_written()).map(said).collect();
    if !written.is_empty() && !args.force {
        return Err(format!(
            "Since it was saved {}: the memory in {} does not fit that disk any more, and would ruin its file systems. If the disk was put back to \
             what it was then: --force",
            written.join(", "),
            args.file.display()
        )
        .into());
    }
    if !args.quiet {
        for line in found.iter().filter(|(_, since)| matches!(since, Since::Unknown(_))).map(said) {
            warn(&format!("since it was saved {line}. If it was, this ruins its file systems"));
        }
    }
    Ok(())
}

#[expect(clippy::print_stderr, reason = "the program's messages")]
fn warn(line: &str) {
    eprintln!("bascule: warning: {line}");
}

/// From the look until block-drbd has made this host Primary, another host could have been. The copy has not run.
fn still_as_before(context: &Context, domid: DomId, before: &[VolumeState], volumes: &Volumes) -> Result<(), Error> {
    let now = volumes.states();
    let same = now.as_ref().is_ok_and(|now| {
        let written = |states: &[VolumeState]| states.iter().map(|state| state.counters.written).collect::<Vec<_>>();
        written(now) == written(before)
    });
    if same {
        return Ok(());
    }
    context.destroy(domid)?;
    now?;
    Err("One of its volumes was written while it was being restored: it is destroyed again, and its file is as it was"
        .into())
}

/// The DRBD volumes of a configuration.
struct Volumes {
    drbd: Option<Drbd>,
    ids: Vec<VolumeId>,
    node: String,
    boot: uuid::Uuid,
}

/// A domain that stands still owns its volumes as long as this host is Primary for each, alone.
pub(super) fn refuse_unless_here(config: &DomainConfig) -> Result<(), Error> {
    let states = Volumes::of(config).states()?;
    let elsewhere = states.iter().find_map(|state| Some((&state.id, elsewhere(state.primary, state.peer_primary)?)));
    match elsewhere {
        Some((id, why)) => Err(format!(
            "{id} {why}: a copy of the domain may run on the other host, and it was not touched here. bascule status {}",
            id.resource
        )
        .into()),
        None => Ok(()),
    }
}

/// Why a volume may have gone on without the domain.
fn elsewhere(primary: bool, peer_primary: bool) -> Option<&'static str> {
    match (primary, peer_primary) {
        (true, false) => None,
        (_, true) => Some("is Primary on the peer"),
        (false, false) => Some("is not Primary here"),
    }
}

/// How long the block backends of a suspended domain may take to come to rest.
const IDLE_WAIT: Duration = Duration::from_secs(30);

impl Volumes {
    /// Whatever else the domain has for disks, or a resource that is down, is libxl's and block-drbd's to complain of.
    fn of(config: &DomainConfig) -> Volumes {
        let drbd = Drbd::open().ok();
        let disks = DomainFacts::from_json(&config.to_json()).map(|facts| facts.disks).unwrap_or_default();
        let resolve = |target: &str| drbd.as_ref()?.resolve(target).ok().flatten();
        let ids = disks.iter().filter_map(|disk| resolve(&disk.target)).collect();
        Volumes { ids, drbd, node: host::node_name(), boot: journal::this_boot() }
    }

    fn states(&self) -> Result<Vec<VolumeState>, Error> {
        let Some(drbd) = &self.drbd else { return Ok(Vec::new()) };
        self.ids.iter().filter_map(|id| drbd.state(id).transpose()).collect()
    }

    fn note(&self) -> Option<Note> {
        match self.states() {
            Ok(states) => (!states.is_empty()).then(|| Note::new(&self.node, self.boot, &states)),
            Err(error) => {
                tracing::warn!(error = %chain(error.as_ref()), "the file will not say what its volumes were");
                None
            }
        }
    }

    fn note_at_rest(&self, domid: DomId) -> Option<Note> {
        let drbd = self.drbd.as_ref()?;
        if let Err(error) = drbd.wait_idle(domid, Instant::now() + IDLE_WAIT) {
            tracing::warn!(error = %chain(error.as_ref()), "its disks do not come to rest: the file does not say what its volumes were");
            return None;
        }
        self.note()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suspended_domain_goes_on_only_where_its_volumes_are() {
        assert_eq!(elsewhere(true, false), None);
        for (primary, peer_primary) in [(true, true), (false, true), (false, false)] {
            assert!(elsewhere(primary, peer_primary).is_some(), "{primary} {peer_primary}");
        }
    }
}
